"""Threads that stand by, for pieces of one work that can be done at the same time.

They are worth it for what lets go of the interpreter's lock for a millisecond or so, as hashing
and copying of megabytes do: to hand over a piece takes about a tenth of that. With the thread that
asks there are as many as Arrow takes for its own work, but four at most: `pyarrow.set_cpu_count`
sets both.

`concurrent.futures` is not used: some of its locks are written in Python, and Ctrl-C on the way in
or out of one keeps it held, for every later call of the process. All that is shared here is a
`SimpleQueue`, which is written in C.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Call", "in_parts", "thread_count"]

Result = TypeVar("Result")
Items = npt.NDArray[np.int64]

_MOST = 4  # for each that copies, Arrow's allocator keeps more memory


def thread_count() -> int:
    """How many pieces are best done at once, one of them by the thread that asks."""
    return min(pa.cpu_count(), _MOST)


class Call(Generic[Result]):
    """A call that a thread which stands by makes, unless the result is asked for before: by one
    thread at a time.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        """
        Args:
            function: is called once at most, by this thread or another, but again in a
                forked child whose parent's thread had begun it.
        """
        self._function = function
        self._begin()
        _threads().queue.put(weakref.ref(self))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._claim, self._unfinished = threading.Lock(), threading.Lock()
        self._unfinished.acquire()
        self._value: Result | None = None
        self._error: BaseException | None = None

    def result(self) -> Result:
        """What the function returns, or raises.

        Nobody waits for a call that has not begun: it is made here and now. So a call may make
        calls itself.
        """
        self.make()
        with self._unfinished:
            pass
        try:
            if self._error is not None:
                raise self._error
            return cast("Result", self._value)
        finally:
            del self  # which the traceback of the error would keep alive

    def make(self, *, caught: type[BaseException] = Exception) -> bool:
        """Make it here and now; False if it was made before, or a thread is at it.

        Args:
            caught: what `result` raises. Anything else, as an interrupt, is raised here, and the
                call is as if it had not begun.
        """
        if not self.cancel():
            return False
        try:
            self._value = self._function()
        except caught as error:
            self._error = error
        except BaseException:  # such as Ctrl-C: it goes on up, and the call may be made again
            self._claim.release()
            raise
        self._unfinished.release()
        return True

    def cancel(self) -> bool:
        """Have nobody else make it; False if one has begun, or it was made."""
        if self._pid != os.getpid():
            # A forked child has none of the threads, and a lock that one of them may have held.
            self._begin()
        return self._claim.acquire(blocking=False)

    @property
    def is_under_way(self) -> bool:
        """Whether a thread is at it."""
        return self._claim.locked() and self._unfinished.locked()


def in_parts(function: Callable[[Items], object], items: Items, least: int) -> None:
    """Call the function with parts of an array at once, of at least `least` items if there are so
    many.

    Raises:
        Exception: whatever a call raised.
    """
    count = min(thread_count(), max(len(items) // least, 1))
    mine, *others = np.array_split(items, count)
    calls = [Call(partial(function, part)) for part in others]
    try:
        function(mine)
        for call in calls:
            call.result()
    finally:
        for call in calls:
            call.cancel()


class _Threads:
    """Some threads that make the calls in a queue."""

    def __init__(self, count: int) -> None:
        self.queue: SimpleQueue[weakref.ref[Call[Any]] | None] = SimpleQueue()
        # Daemons, or the interpreter would wait for them before it calls `_end`.
        self._threads = [
            threading.Thread(target=_work, args=(self.queue,), name=f"easydata-{i}", daemon=True)
            for i in range(count)
        ]
        # Where no more threads can be started, calls are made when their results are asked for.
        with suppress(RuntimeError):
            for thread in self._threads:
                thread.start()

    def end(self, *, waits: bool) -> None:
        """Have them end after the calls that they were given."""
        for _ in self._threads:
            self.queue.put(None)
        for thread in self._threads:
            if waits and thread.is_alive():
                thread.join()


def _work(queue: SimpleQueue[weakref.ref[Call[Any]] | None]) -> None:
    while (reference := queue.get()) is not None:
        call = reference()
        if call is not None:
            call.make(caught=BaseException)
        del call  # and with it the result, if nobody wants it any more


_now: dict[int, _Threads] = {}  # one at most, by how many threads it has


def _threads() -> _Threads:
    count = max(thread_count() - 1, 1)
    found = _now.get(count)
    if found is None:
        # Of two that are made at once, one is not used.
        found = _Threads(count)
        others = [*_now.values()]
        _now.clear()
        _now[count] = found
        for other in others:
            other.end(waits=False)
    return found


def _end() -> None:
    """As the interpreter exits: a thread must not come back from Arrow after it."""
    for threads in _now.values():
        threads.end(waits=True)


def _start_over() -> None:
    """In a forked child: the threads are not there."""
    _now.clear()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
