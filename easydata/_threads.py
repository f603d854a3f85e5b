"""Threads that stand by, for pieces of one work that can be done at the same time.

They are worth it for what lets go of the interpreter's lock for a millisecond or so, as hashing
and copying of megabytes do: to hand over a piece takes about a tenth of that. With the thread that
asks there are as many as Arrow takes for its own work: `pyarrow.set_cpu_count` sets both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Call", "in_parts", "thread_count"]

Result = TypeVar("Result")
Items = npt.NDArray[np.int64]

_MOST = 4  # for each that copies, Arrow's allocator keeps more memory
_pool: ThreadPoolExecutor | None = None


def thread_count() -> int:
    """How many pieces are best done at once, one of them by the thread that asks."""
    return min(pa.cpu_count(), _MOST)


class Call(Generic[Result]):
    """A call that a thread which stands by makes, unless the result is asked for before."""

    def __init__(self, function: Callable[[], Result]) -> None:
        """
        Args:
            function: is called once at most, by this thread or another, but again in a
                forked child whose parent's thread had begun it.
        """
        self._function = function
        self._pid = os.getpid()
        self._future: Future[Result] | None = None
        # No thread begins any more as the interpreter exits: it is called when asked for.
        with suppress(RuntimeError):
            self._future = _threads().submit(function)

    def result(self) -> Result:
        """What the function returns, or raises.

        Nobody waits for a call that has not begun: it is made here and now. So a call may make
        calls itself.
        """
        self.make()
        assert self._future is not None
        return self._future.result()

    def make(self) -> bool:
        """Make it here and now; False if it was made before, or a thread is at it."""
        if not self.cancel():
            return False
        self._pid = os.getpid()
        self._future = Future()
        try:
            self._future.set_result(self._function())
        except Exception as error:  # noqa: BLE001 - whatever it is, `result` raises it
            self._future.set_exception(error)
        return True

    def cancel(self) -> bool:
        """Have no thread make it; False if one has begun, or it was made."""
        # A forked child has none of the threads, and a lock that one of them may have held.
        return self._future is None or self._pid != os.getpid() or self._future.cancel()

    @property
    def is_under_way(self) -> bool:
        """Whether a thread is at it."""
        return self._future is not None and self._future.running()


def in_parts(function: Callable[[Items], object], items: Items, least: int) -> None:
    """Call the function with parts of an array at once, each of `least` items if there are so many.

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


def _threads() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one for the process
    if _pool is None:
        # Of two that are made at once, one is dropped, and its threads end with their calls.
        _pool = ThreadPoolExecutor(max(thread_count() - 1, 1), "easydata")
    return _pool


def _start_over() -> None:
    """In a forked child: the threads are not there."""
    global _pool  # noqa: PLW0603 - one for the process
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
