"""Locks that end with the process that holds them: flock, on a file that is open.

They belong to the open file, so it does not matter who else opens the file in this process. Where
the file system or the system has none, everybody seems to hold the lock that he asks for and
nobody another's: a segment then counts as growing for ever, which costs space only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from easydata._fs import storage_errors

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    HAVE_LOCKS = False
else:
    HAVE_LOCKS = True

__all__ = ["delete_unlocked", "exclusive", "is_locked", "lock", "unlock"]

_held: set[int] = set()


def lock(descriptor: int) -> None:
    """Lock a file of which nobody else is the owner, until `unlock`, which closes it.

    The child of a fork closes it too: a lock lasts as long as any copy of its descriptor.
    """
    _held.add(descriptor)
    if HAVE_LOCKS:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits for who looks whether it is locked


def unlock(descriptor: int) -> None:
    """Close a file that `lock` was given; nothing happens in a child that did not lock it."""
    if descriptor in _held:
        _held.remove(descriptor)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """True if somebody holds the lock of a file, or that cannot be known.

    Raises:
        FileNotFoundError: the file is gone.
    """
    if not HAVE_LOCKS:
        return True
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def delete_unlocked(path: Path) -> None:
    """Delete a file unless somebody holds its lock; whoever waits for that finds it deleted."""
    if not HAVE_LOCKS:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[bool]:
    """Let one at a time into the block, among all threads and processes.

    Args:
        path: an empty file that is made and left.
        wait: for whoever is inside.

    Yields:
        False if somebody is inside and there was no waiting, or there are no locks here.

    Raises:
        StorageError: the file cannot be made.
    """
    with storage_errors(path, "lock"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        taken = False
        if HAVE_LOCKS:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                taken = True
        yield taken
    finally:
        unlock(descriptor)


def _forget() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
