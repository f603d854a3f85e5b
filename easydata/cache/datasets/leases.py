"""Leases: a generation is not deleted while anybody reads or writes it.

A lease is a shared lock (flock) of a file in the generation's folder. Whoever wants to delete
that folder asks for the exclusive lock without waiting. The kernel gives a lock back when the
last copy of its descriptor is closed, so it ends with its process, however that ends, and the
child of a fork shares its parent's. Where there are no locks, nothing is ever deleted.

All leases of a generation in a process share one descriptor, which is closed with the last one.
Unless `datasets` has stored results of `map` beside the files: a result does not refer to what
it was made from, but needs its own file. Then the descriptor is kept until no table of `datasets`
in this process lies in that folder; `settle` looks.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from easydata._fs import storage_errors, temporary_path
from easydata.cache.datasets.names import LEASE_FILE, MAPPED_FILES
from easydata.cache.log import locks
from easydata.errors import NotADatasetError, StorageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # a module, where there is one

__all__ = ["Lease", "Replays", "move_unheld", "remove_unheld", "settle", "take", "unless_gone"]


class Lease:
    """Keeps a generation from being deleted until it is closed, or nothing refers to it.

    A copy is the same lease. Unpickled, in this process or another, it is one more.

    Attributes:
        folder: the generation's.
    """

    def __init__(self, folder: Path, file: _LeaseFile) -> None:
        self.folder = folder
        self._file: _LeaseFile | None = file

    def close(self) -> None:
        """Give the lease back; nothing happens the second time."""
        self._file = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Lease:
        return self

    def __reduce__(self) -> tuple[Callable[[Path], Lease], tuple[Path]]:
        return _take_again, (self.folder,)


class Replays(list[Any]):
    """The history of a `MemoryMappedTable`, which all tables made from it copy and pickle.

    So it carries the lease, whatever rows and columns they have; buffers, which an empty column
    has none of, could not.
    """

    def __init__(self, lease: Lease) -> None:
        super().__init__()
        self.lease = lease

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.lease,), None, iter(self)


class _LeaseFile:
    """The open and locked file."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.descriptor = descriptor
        # At the end of the process the system closes it: arrays may still be in use before.
        weakref.finalize(self, _let_go, folder, descriptor).atexit = False


_open: weakref.WeakValueDictionary[Path, _LeaseFile] = weakref.WeakValueDictionary()
_ended: collections.deque[tuple[Path, int]] = collections.deque()  # but with results of `map`
_kept: collections.deque[tuple[Path, int]] = collections.deque()  # of these, those in use


def take(generation: Path, *, create: bool = False) -> Lease | None:
    """A lease of a generation's folder; None if the folder is gone.

    Args:
        generation: the folder.
        create: make the file that is locked; for whoever made the folder.

    Raises:
        StorageError: the file cannot be opened.
    """
    if _ended:
        settle()
    path = generation / LEASE_FILE
    file = _open.get(generation)
    if file is not None and _is_at(path, file.descriptor):
        return Lease(generation, file)
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    with storage_errors(path, "open"):
        try:
            descriptor = os.open(path, flags, 0o666)
        except (FileNotFoundError, NotADirectoryError):
            return None
    file = _LeaseFile(generation, descriptor)
    if fcntl is not None:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(descriptor, fcntl.LOCK_SH)
    # Whoever held the exclusive lock until now may have moved the folder away.
    if not _is_at(path, descriptor):
        return None
    _open[generation] = file
    return Lease(generation, file)


def settle() -> None:
    """Close what was kept for results of `map` that are not in use any more."""
    if not _ended and not _kept:
        return
    found: list[tuple[Path, int]] = []
    for items in (_ended, _kept):
        with contextlib.suppress(IndexError):
            while True:
                found.append(items.popleft())
    used = _folders_in_use()
    for folder, descriptor in found:
        if used is None or os.path.normpath(folder) in used:
            _kept.append((folder, descriptor))
        else:
            os.close(descriptor)


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
    moved = False
    with unless_gone(), locks.exclusive(generation / LEASE_FILE, wait=False) as taken:
        if taken and not is_wanted():
            with storage_errors(generation, "rename"):
                generation.rename(target)
            moved = True
    return moved


def remove_unheld(generation: Path, is_wanted: Callable[[], bool]) -> bool:
    """Delete a generation's folder unless somebody has a lease of it, or it is wanted.

    Returns:
        Whether it was deleted.

    Raises:
        StorageError: it cannot be deleted.
    """
    # Renamed first: nobody may find a folder of which half is deleted.
    removed = temporary_path(generation)
    if not move_unheld(generation, removed, is_wanted):
        return False
    shutil.rmtree(removed, ignore_errors=True)
    return True


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """End the block quietly if another process has deleted the folder that it works on."""
    try:
        yield
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise


def _take_again(folder: Path) -> Lease:
    lease = take(folder)
    if lease is None:
        raise NotADatasetError(
            f"{folder} is gone: the cached dataset was replaced or invalidated after it was "
            "pickled. Get it from its cache again, or keep the original while a pickle is in use."
        )
    return lease


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _let_go(folder: Path, descriptor: int) -> None:
    # Runs at any moment, so it does not look for tables.
    try:
        has_results = any(any(folder.glob(pattern)) for pattern in MAPPED_FILES)
    except OSError:  # nobody knows
        has_results = True
    if has_results:
        _ended.append((folder, descriptor))
    else:
        os.close(descriptor)


def _folders_in_use() -> set[str] | None:
    """Folders (and their parents) of all mapped tables in this process; None if hidden."""
    tables = sys.modules.get("datasets.table")
    if tables is None:
        return set()
    if gc.get_freeze_count():
        return None
    kind = tables.MemoryMappedTable
    # Another thread may be about to give one its path; then it holds what that is made from.
    paths = {Path(getattr(item, "path", "")) for item in gc.get_objects() if type(item) is kind}
    return {str(parent) for path in paths for parent in path.parents[:2]}
