"""Leases: a generation is not deleted while anybody reads or writes it.

A lease is a shared lock (flock) of a file in the generation's folder. Whoever wants to delete
that folder asks for the exclusive lock without waiting. The kernel gives a lease back when the
last copy of its descriptor is closed, so it ends with its process, however that ends, and the
child of a fork shares its parent's. Where there are no locks, nothing is ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

from easydata._fs import storage_errors, temporary_path
from easydata.cache.datasets.names import LEASE_FILE
from easydata.cache.log import locks
from easydata.errors import StorageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lease", "move_unheld", "remove_unheld", "take"]


class Lease:
    """Keeps a generation from being deleted until it is closed, or nothing refers to it."""

    def __init__(self, descriptor: int) -> None:
        """Own an open file."""
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False  # arrays may still be in use then; the system closes the file

    def close(self) -> None:
        """Give the lease back; nothing happens the second time."""
        self._close()


def take(generation: Path, *, create: bool = False) -> Lease | None:
    """A lease of a generation's folder; None if the folder is gone.

    Args:
        generation: the folder.
        create: make the file that is locked; for whoever made the folder.

    Raises:
        StorageError: the file cannot be opened.
    """
    path = generation / LEASE_FILE
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    with storage_errors(path, "open"):
        try:
            descriptor = os.open(path, flags, 0o666)
        except (FileNotFoundError, NotADirectoryError):
            return None
        lease = Lease(descriptor)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # no locks here
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        # Whoever held the exclusive lock until now may have moved the folder away.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return lease
        lease.close()
        return None


def move_unheld(generation: Path, target: Path, is_wanted: Callable[[], bool]) -> bool:
    """Rename a generation's folder unless somebody has a lease of it, or it is wanted.

    Args:
        generation: the folder.
        target: its new path.
        is_wanted: asked while nobody can take a lease.

    Returns:
        Whether it was renamed.

    Raises:
        StorageError: it cannot be renamed.
    """
    try:
        with locks.exclusive(generation / LEASE_FILE, wait=False) as taken:
            if not taken or is_wanted():
                return False
            with storage_errors(generation, "rename"):
                generation.rename(target)
            return True
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return False  # another process was faster
        raise


def remove_unheld(generation: Path, is_wanted: Callable[[], bool]) -> None:
    """Delete a generation's folder unless somebody has a lease of it, or it is wanted.

    Raises:
        StorageError: it cannot be deleted.
    """
    # Renamed first: nobody may find a folder of which half is deleted.
    removed = temporary_path(generation)
    if move_unheld(generation, removed, is_wanted):
        shutil.rmtree(removed, ignore_errors=True)
