"""Files that appear whole or not at all, and locks that only save work.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed.
A reader therefore sees the old file or the new one, and a process killed half-way leaves only
a temporary file, which its next run removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from easydata.errors import StorageError

if TYPE_CHECKING:
    import filelock

__all__ = [
    "exclusive",
    "is_temporary",
    "publish_bytes",
    "publish_file",
    "storage_errors",
    "sync_directory",
    "temporary_path",
]

_TEMPORARY_PREFIX = ".tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def is_temporary(name: str) -> bool:
    """True for the name of a file that was never published."""
    return name.startswith(_TEMPORARY_PREFIX)


def temporary_path(path: Path) -> Path:
    """A new name in the folder of `path` for what will become `path`."""
    return path.with_name(f"{_TEMPORARY_PREFIX}{os.urandom(8).hex()}-{path.name}"[:255])


@contextlib.contextmanager
def storage_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn an OSError from the block into a StorageError that says what to do.

    Raises:
        StorageError: the disk is full, the folder is read-only, or the system failed otherwise.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            remedy = "the disk (or a quota or file size limit) is full. Free space and run again"
        elif error.errno in _DENIED:
            remedy = "permission denied. Choose a folder that you may write to"
        else:
            remedy = "check the disk and run again"
        raise StorageError(
            error.errno or errno.EIO, f"Cannot {doing} {path}: {error.strerror or error}; {remedy}."
        ) from error


@contextlib.contextmanager
def publish_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A new file to write to and read back; it becomes `path` when the block ends without error.

    Until then it lies under a temporary name in the same folder, readable by its owner only.
    With `sync` the content is on the disk before the name appears; call `sync_directory` to
    make the name itself survive a power failure.

    Raises:
        StorageError: nothing was published.
    """
    temporary = temporary_path(path)
    with storage_errors(path):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(temporary, flags | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.chmod(temporary, 0o666 & ~_umask())
                if sync:
                    os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:  # also Ctrl-C: nothing may be left
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def publish_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write `data` to `path`, whole or not at all."""
    with publish_file(path, sync=sync) as file:
        file.write(data)


def sync_directory(path: Path) -> None:
    """Make the names in a folder survive a power failure, where the system can."""
    if os.name == "nt":  # pragma: no cover - Windows has no such call
        return
    with storage_errors(path, "flush"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def exclusive(lock_path: Path, *, on_wait: str) -> Iterator[None]:
    """Let one process at a time into the block, as far as the file system has locks.

    This only prevents doing the same work twice. Nothing may depend on it for being correct:
    on some network file systems locks do not exist (one warning), on others they lie.

    Args:
        lock_path: an empty file that is made and left in place.
        on_wait: a line logged once if another process holds the lock.
    """
    import warnings

    import filelock

    lock = filelock.FileLock(lock_path)
    with storage_errors(lock_path, "lock"):
        try:
            _acquire(lock, lock_path.parent, on_wait)
        except NotImplementedError:  # what filelock raises there
            warnings.warn(
                f"The file system of {lock_path.parent} has no locks; "
                "two processes that write there at once will both do the work.",
                RuntimeWarning,
                stacklevel=3,
            )
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: filelock.BaseFileLock, folder: Path, on_wait: str) -> None:
    import logging

    import filelock

    patience = 0
    while not lock.is_locked:
        # Whoever held it may have removed it, and its folder, when it was done: also between any
        # two of these steps, or while the folder is made.
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience)
        except filelock.Timeout:
            logging.getLogger("easydata").warning(on_wait)
            patience = -1
        except FileNotFoundError:
            pass
        except FileExistsError:
            if folder.is_file():
                raise


def _umask() -> int:
    # The only portable way to read the mask is to set it; a thread creating a file in between
    # would get the stricter mode, never a looser one.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
