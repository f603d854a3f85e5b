"""Reading ahead on background threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast

from easydata.errors import UsageError
from easydata.loader._checks import check_count

__all__ = ["Prefetcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Prefetcher(Iterator[Result]):
    """`map(function, items)` worked out ahead of the reader, in order, on threads.

    Items are taken from their iterator, and the function called, on the threads. An exception of
    either is raised by the `next()` whose turn it is, with the traceback of the thread, and ends
    the iteration. The threads end when the results do, at `close()`, when nobody holds the
    iterator any more, and when the interpreter exits; each finishes the call it is in. To be read
    by one thread at a time.

    >>> list(Prefetcher(abs, [-3, 2, -1], workers=2, buffer_size=2))
    [3, 2, 1]
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int,
        buffer_size: int,
    ) -> None:
        """
        Args:
            function: called with each item, by several threads at once.
            items: taken one at a time.
            workers: threads.
            buffer_size: results that are worked out or wait at any time.

        Raises:
            UsageError: a number is not from 1 up.
        """
        workers = check_count(workers, "prefetch_workers")
        buffer_size = check_count(buffer_size, "prefetch_buffer_size")
        shared = _Shared(function, iter(items), buffer_size)
        self._shared = shared
        # Threads that nothing could end would keep the interpreter from exiting: they are
        # daemons, and the finalizer, which runs at exit too, ends them before it comes down.
        threads = [
            threading.Thread(target=shared.work, name=f"easydata-prefetch-{i}", daemon=True)
            for i in range(min(workers, buffer_size))
        ]
        self._finalizer = weakref.finalize(self, _end, shared, threads, os.getpid())
        self._pid = os.getpid()
        for thread in threads:
            thread.start()

    def __next__(self) -> Result:
        if os.getpid() != self._pid:
            raise UsageError("reading ahead does not survive a fork; iterate anew in the child.")
        try:
            return self._shared.next()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the threads and wait for them; `next()` then finds nothing more."""
        self._finalizer()


class _Shared(Generic[Item, Result]):
    """What the threads and the reader share. It must not know the `Prefetcher`."""

    def __init__(
        self, function: Callable[[Item], Result], items: Iterator[Item], buffer_size: int
    ) -> None:
        self._function = function
        self._items = items
        self._taking = threading.Lock()
        # Re-entrant, as the finalizer may run wherever garbage is collected. The reader enters the
        # lock itself: Ctrl-C in the condition's way in or out, which is Python, would keep it held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._results: dict[int, tuple[Result | None, BaseException | None]] = {}
        self._taken = 0  # items
        self._given = 0  # results
        self._room = buffer_size
        self._ended = False  # no more items
        self._closed = False

    def work(self) -> None:
        while self._work_on_one():
            pass

    def _work_on_one(self) -> bool:
        """False if there is nothing more to do."""
        # A call of its own for each, so that a waiting thread holds on to no item and no result.
        result: Result | None = None
        error: BaseException | None = None
        with self._taking:
            with self._changed:
                self._changed.wait_for(self._may_take)
                if self._closed or self._ended:
                    return False
                number = self._taken
            is_item = True  # or an error in its place
            try:
                item = next(self._items)
            except StopIteration:
                is_item = False
            except BaseException as raised:  # noqa: BLE001 - the reader's, whatever it is
                error = raised
            with self._changed:
                # At once: who saw the end before it was counted would miss the error.
                self._taken += is_item
                self._ended = not is_item or error is not None
                if self._ended:
                    self._changed.notify_all()
            if not is_item:
                return False
        if error is None:
            try:
                result = self._function(item)
            except BaseException as raised:  # noqa: BLE001 - the reader's, whatever it is
                error = raised
        with self._changed:
            self._results[number] = result, error
            self._changed.notify_all()
        return True

    def _may_take(self) -> bool:
        return self._closed or self._ended or self._taken - self._given < self._room

    def _may_give(self) -> bool:
        if self._closed or self._given in self._results:
            return True
        return self._ended and self._given == self._taken

    def next(self) -> Result:
        with self._lock:
            self._changed.wait_for(self._may_give)
            if self._closed or self._given not in self._results:
                raise StopIteration
            result, error = self._results.pop(self._given)
            self._given += 1
            self._changed.notify_all()
        if isinstance(error, StopIteration):
            raise RuntimeError("the function that is read ahead raised StopIteration") from error
        if error is not None:
            try:
                raise error
            finally:
                del error  # which by its traceback holds this frame
        return cast("Result", result)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._results.clear()
            self._changed.notify_all()


def _end(shared: _Shared[Any, Any], threads: list[threading.Thread], pid: int) -> None:
    # A forked child has none of the threads, and a lock that one of them may have held.
    if os.getpid() != pid:
        return
    shared.close()
    # In one of the threads, garbage was collected there: it may hold what the others wait for.
    if threading.current_thread() not in threads:
        for thread in threads:
            if thread.is_alive():
                thread.join()
