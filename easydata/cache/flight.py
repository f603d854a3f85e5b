"""Single flight: what several threads and processes ask for at once is computed once.

Threads of a process wait for a flight, the computation that one of them leads. Leaders of
several processes exclude each other by POSIX record locks, one byte of the lock file for each
key: a fork does not inherit them, and they end with their process, however it ends.

Nobody may wait in a circle. In a process, a graph of threads is walked before each wait. Between
processes the kernel's own check (EDEADLK) is of no use: it takes a process for one waiter, and
so reports circles where two processes with two threads each merely wait for two keys, and misses
others. A leader therefore asks for its byte again and again without blocking, and while a thread
that is stuck behind it holds another byte h, the lock file has a row that says "h is not free
until w is". A leader whose own row would close a circle computes without the lock.

The lock file holds these rows (four uint64, little-endian: process, thread, h, w) and is empty
most of the time. A row counts while the byte of its process is locked, so a killed process leaves
none that matter.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import operator
import os
import struct
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # its lack is asked for before it is used

__all__ = ["SingleFlight"]

T = TypeVar("T")
_Identity = tuple[int, int]  # of a file: what `_identity` reads from its status
_Row = tuple[int, int, int, int]  # process, thread, h, w: h is not free until w is

_identity = operator.attrgetter("st_dev", "st_ino")
_GUARD = 2**62  # whoever reads or writes the rows holds this byte; those below are for keys
_PROCESSES = 2**61  # bytes (2**62, 2**62 + 2**61]: one of them for each process with rows
_ROW = struct.Struct("<QQQQ")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.0005, 0.05
_LONGEST_WAIT_SECONDS = 0.5


class SingleFlight:
    """One computation per key across the threads and, with a lock file, processes of a machine.

    All objects with the same lock file are one; without a file each stands alone. It only saves
    work: where locks fail, everybody computes.

    A computation may ask for other keys, also of other objects; where that would be a wait in a
    circle (or, with two lock files, might be), it computes without waiting. What cannot be seen is
    a computation that waits for a thread or process which in turn asks for what is computed.

    Args:
        lock_path: made when first needed and never removed; its folder must exist. Nothing
            else in this process may open it: closing any descriptor of it drops all locks of
            the process. None: threads of this process only.
    """

    def __init__(self, lock_path: Path | None) -> None:
        self._lock_path = lock_path
        self._warned = False
        self._used: list[_Identity] = []
        # A finalizer runs at any moment, so it may not lock; the next `_open` closes the files.
        weakref.finalize(self, _retired.append, self._used).atexit = False

    def run(
        self,
        key_hash: int,
        key: str,
        look: Callable[[], tuple[T] | None],
        compute: Callable[[], T],
    ) -> T:
        """The value of `key`: found by `look`, or from the one `compute` that is under way.

        Threads of this process that ask meanwhile get the very object that `compute` returned,
        or the exception it raised. Another process then looks, and computes if nothing is
        there; so `compute` should store its value where `look` finds it. An exception is not
        kept. One that is not an `Exception` (Ctrl-C) reaches its own thread only, and another
        takes over.

        Args:
            key_hash: which byte to lock. The same key must have the same hash in every process;
                two keys with one hash merely wait for each other.
            key: what is computed.
            look: asked once no other process computes the key: `(value,)` or None.
            compute: asked if `look` found nothing. If it asks for its own key, that is computed.

        Raises:
            Exception: whatever `look` or `compute` raised, here or in the thread that led.

        Warns:
            RuntimeWarning: once for this object, if the lock file cannot be locked.
        """
        try:
            file = self._open()
        except OSError as error:
            file = None
            self._warn(error)
        flight = _Flight(threading.get_ident())
        name = (self if file is None else file.identity, key)
        try:
            # Whatever interrupts this thread from here on, `land` undoes what it did.
            while (other := _process.join(name, flight)) is not None:
                if other is flight:
                    return compute()
                # Not for ever: a signal that comes just before a wait does not end it.
                while not other.landed.wait(_LONGEST_WAIT_SECONDS):
                    pass
                if other.error is not None:
                    raise other.error
                if other.result is not None:
                    return other.result[0]
            try:
                if file is not None:
                    file.wait(key_hash % _GUARD, flight)
            except OSError as error:
                self._warn(error)
            flight.result = look() or (compute(),)
            return flight.result[0]
        except Exception as error:
            flight.error = error
            raise
        finally:
            _process.land(name, flight)

    def _open(self) -> _LockFile | None:
        """The lock file as it is now; somebody may have removed the one that was used before."""
        if self._lock_path is None:
            return None
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no record locks")
        with _process.mutex:
            _close_retired()
            file = None
            with contextlib.suppress(FileNotFoundError):
                file = _process.files.get(_identity(self._lock_path.stat()))
            if file is None:
                descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o666)
                identity = _identity(os.fstat(descriptor))
                # If the path led elsewhere a moment ago, the file has two descriptors now.
                file = _process.files.setdefault(identity, _LockFile(identity, []))
                file.descriptors.append(descriptor)
            if file.identity not in self._used:
                self._used.append(file.identity)
                file.users += 1
            return file

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"Cannot lock {self._lock_path} ({error.strerror or error}); processes that ask "
                "for one key at once will all compute it. Use a local disk to avoid that.",
                RuntimeWarning,
                stacklevel=3,
            )


class _Flight:
    """A computation under way, or the wish of a thread for one."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.landed = threading.Event()
        self.over = False
        self.result: tuple[Any] | None = None
        self.error: Exception | None = None
        self.lock: tuple[_LockFile, int] | None = None  # the byte it holds


class _Process:
    """Who computes and who waits in this process; guarded by `mutex`, as all lock files are."""

    def __init__(self) -> None:
        # Reentrant, as a signal handler or a finalizer may ask for a key at any moment.
        self.mutex = threading.RLock()
        self.flights: dict[tuple[object, str], _Flight] = {}
        self.waiting: dict[int, _Flight] = {}
        self.files: dict[_Identity, _LockFile] = {}

    def join(self, name: tuple[object, str], flight: _Flight) -> _Flight | None:
        """None: `flight` leads now. Another: wait for that. `flight` itself: do not wait."""
        with self.mutex:
            self.waiting.pop(flight.owner, None)
            leader = self.flights.setdefault(name, flight)
            if leader is flight:
                return None
            last = leader.owner
            while last != flight.owner:
                awaited = self.waiting.get(last)
                if awaited is None or awaited.over:
                    self.waiting[flight.owner] = leader
                    return leader
                last = awaited.owner
            return flight

    def stuck_behind(self, thread: int) -> set[tuple[_Identity, int]]:
        """The bytes held by `thread` and by all that wait for it, directly or not."""
        stuck, found = {thread}, {thread}
        while found:
            found = {
                waiter
                for waiter, flight in self.waiting.items()
                if flight.owner in found and not flight.over
            } - stuck
            stuck |= found
        return {
            (flight.lock[0].identity, flight.lock[1])
            for flight in self.flights.values()
            if flight.owner in stuck and flight.lock is not None
        }

    def land(self, name: tuple[object, str], flight: _Flight) -> None:
        """End a flight, or the wish for it: whoever waits for it goes on."""
        with self.mutex:
            if self.flights.get(name) is flight:
                if flight.lock is not None:
                    flight.lock[0].give(flight.lock[1])
                flight.over = True
                del self.flights[name]
                flight.landed.set()
            else:  # it was a wish, or this is a child and the parent's flight
                self.waiting.pop(flight.owner, None)

    def start_over(self) -> None:
        """In the child of a fork: one thread, no flights, no locks, the same descriptors."""
        self.mutex = threading.RLock()
        self.flights = {}
        self.waiting = {}
        self.files = {
            identity: _LockFile(identity, file.descriptors, file.users)
            for identity, file in self.files.items()
        }


class _LockFile:
    """One file of locks and rows, and what this process holds in it.

    Record locks do not count: all threads of a process hold a byte together, and the first to
    unlock it would unlock it for all. So they are counted here.
    """

    def __init__(self, identity: _Identity, descriptors: list[int], users: int = 0) -> None:
        self.identity = identity
        self.descriptors = descriptors  # the first is used, none may be closed
        self.users = users
        self._holders: collections.Counter[int] = collections.Counter()
        self._rows: dict[int, set[tuple[int, int]]] = {}  # by thread
        self._process: int | None = None

    def wait(self, byte: int, flight: _Flight) -> None:
        """Lock a byte for `flight`; return without it if to wait longer would be for ever.

        Raises:
            OSError: there are no locks here.
        """
        pause = _FIRST_PAUSE_SECONDS
        try:
            while not self._ask(byte, flight):
                time.sleep(pause)
                pause = min(1.5 * pause, _LONGEST_PAUSE_SECONDS)
        finally:
            while not self._withdraw(flight.owner):
                time.sleep(_FIRST_PAUSE_SECONDS)

    def give(self, byte: int) -> None:
        """Undo one `wait` that locked the byte."""
        self._holders[byte] -= 1
        if not self._holders[byte]:
            del self._holders[byte]
            # If the system cannot unlock, others wait until this process ends: late, not wrong.
            with contextlib.suppress(OSError):
                self._unlock(byte)

    def _ask(self, byte: int, flight: _Flight) -> bool:
        """True if there is nothing left to wait for."""
        with _process.mutex:
            published = flight.owner in self._rows
            if not published and self._take(byte, flight):
                return True
            stuck = _process.stuck_behind(flight.owner)
            # Rows do not show circles through two files. There are none if nobody waits in a
            # file while holding a byte of a later one.
            if any(identity > self.identity for identity, _ in stuck):
                return True
            held = {held for identity, held in stuck if identity == self.identity}
            return (published or bool(held)) and self._ask_with_rows(byte, flight, held)

    def _take(self, byte: int, flight: _Flight) -> bool:
        if not self._holders[byte] and not self._try_lock(byte):
            return False
        self._holders[byte] += 1
        flight.lock = (self, byte)
        return True

    def _ask_with_rows(self, byte: int, flight: _Flight, held: set[int]) -> bool:
        with self._rows_of_others() as others:
            if others is None:
                return False
            # Locking and forgetting the row are one step for all who look for circles.
            self._rows.pop(flight.owner, None)
            done = self._take(byte, flight) or self._is_circle(byte, held, others)
            if not done:
                self._rows[flight.owner] = {(row, byte) for row in held}
            return done

    def _withdraw(self, thread: int) -> bool:
        with _process.mutex:
            if thread not in self._rows:
                return True
            with self._rows_of_others() as others:
                if others is not None:
                    del self._rows[thread]
                return others is not None

    def _is_circle(self, byte: int, held: set[int], others: list[_Row]) -> bool:
        edges = {row[2:] for row in others}.union(*self._rows.values())
        reached, found = {byte}, {byte}
        while found:
            found = {wanted for at, wanted in edges if at in found} - reached
            reached |= found
        return not reached.isdisjoint(held)

    @contextlib.contextmanager
    def _rows_of_others(self) -> Iterator[list[_Row] | None]:
        """The rows of other living processes; the block may change those of this one.

        None if another process is at the rows now.
        """
        if not self._try_lock(_GUARD):
            yield None
            return
        try:
            data = os.pread(self.descriptors[0], os.fstat(self.descriptors[0]).st_size, 0)
            # A row cut short was written by a process that was killed meanwhile.
            whole = data[: len(data) // _ROW.size * _ROW.size]
            rows = [row for row in _ROW.iter_unpack(whole) if row[0] != self._process]
            alive = {process: self._is_alive(process) for process in {row[0] for row in rows}}
            others = [row for row in rows if alive[row[0]]]
            try:
                yield others
            finally:  # after an interrupt, too, the file says what this process knows
                self._write(others)
        finally:
            self._unlock(_GUARD)

    def _write(self, others: list[_Row]) -> None:
        while self._rows and self._process is None:
            process = int.from_bytes(os.urandom(8), "little") % _PROCESSES
            if self._try_lock(_GUARD + 1 + process):
                self._process = process
        own = [(self._process, at, *row) for at, rows in self._rows.items() for row in rows]
        data = b"".join(_ROW.pack(*row) for row in [*others, *own])
        os.ftruncate(self.descriptors[0], len(data))
        os.pwrite(self.descriptors[0], data, 0)

    def _is_alive(self, process: int) -> bool:
        if process >= _PROCESSES or not self._try_lock(_GUARD + 1 + process):
            return process < _PROCESSES
        self._unlock(_GUARD + 1 + process)
        return False

    def _try_lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self.descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # another process holds it: EAGAIN or EACCES
            return False
        return True

    def _unlock(self, byte: int) -> None:
        fcntl.lockf(self.descriptors[0], fcntl.LOCK_UN, 1, byte)


def _close_retired() -> None:
    """Close the files that no object uses any more. Call with the mutex held."""
    while _retired:
        for identity in _retired.popleft():
            file = _process.files[identity]
            file.users -= 1
            if not file.users:
                del _process.files[identity]
                for descriptor in file.descriptors:
                    os.close(descriptor)


_process = _Process()
_retired: collections.deque[list[_Identity]] = collections.deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.start_over)
