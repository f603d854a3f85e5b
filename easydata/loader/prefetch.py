"""Reading ahead on background threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar, cast

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
        except BaseException:  # also an interrupt: nobody may come back, and the threads would wait
            self.close()
            raise

    def close(self) -> None:
        """End the threads and wait for them; `next()` then finds nothing more."""
        self._finalizer()


class _Done(NamedTuple):
    """What became of an item: a result or an error."""

    number: int
    result: Any
    error: BaseException | None


class _Shared(Generic[Item, Result]):
    """What the threads and the reader share. It must not know the `Prefetcher`.

    The reader waits in `SimpleQueue`, which is written in C: in the way in or out of a condition,
    which is Python, Ctrl-C would leave its lock in disorder. Nor does it matter where garbage is
    collected, and the finalizer runs.
    """

    def __init__(
        self, function: Callable[[Item], Result], items: Iterator[Item], buffer_size: int
    ) -> None:
        self._function = function
        self._items = items
        self._taking = threading.Lock()  # the threads alone, of which none is ever interrupted
        self._taken = 0  # items
        self._ended = False  # no more items are taken
        self._room: SimpleQueue[None] = SimpleQueue()  # for each entry an item may be taken
        for _ in range(buffer_size):
            self._room.put(None)
        self._done: SimpleQueue[_Done] = SimpleQueue()
        # The reader's:
        self._early: dict[int, _Done] = {}  # those whose turn has not come
        self._given = 0
        self._closed = False

    def work(self) -> None:
        while self._work_on_one():
            pass

    def _work_on_one(self) -> bool:
        """False if there is nothing more to do."""
        # A call of its own for each, so that a waiting thread holds on to no item and no result.
        result: Result | None = None
        error: BaseException | None = None
        self._room.get()
        with self._taking:
            if self._ended:
                self._room.put(None)  # the next thread ends, too
                return False
            number = self._taken
            self._taken += 1
            try:
                item = next(self._items)
            except BaseException as raised:  # noqa: BLE001 - the reader's, and so is StopIteration
                error = raised
                self._end_taking()
        if error is None:
            try:
                result = self._function(item)
            except StopIteration as raised:
                error = RuntimeError("the function that is read ahead raised StopIteration")
                error.__cause__ = raised
            except BaseException as raised:  # noqa: BLE001 - the reader's, whatever it is
                error = raised
        self._done.put(_Done(number, result, error))
        del error  # which by its traceback holds this frame, and in turn all that its reader holds
        return True

    def next(self) -> Result:
        while not self._closed and self._given not in self._early:
            done = self._done.get()
            self._early[done.number] = done
            del done
        given = self._early.pop(self._given, None)
        if self._closed or given is None:  # perhaps by another thread, at this moment
            raise StopIteration
        _, result, error = given
        del given
        self._given += 1
        self._room.put(None)
        if error is not None:
            try:
                raise error
            finally:
                del error  # which by its traceback holds this frame
        return cast("Result", result)

    def _end_taking(self) -> None:
        self._ended = True
        self._room.put(None)

    def close(self) -> None:
        """Have the threads end."""
        self._closed = True
        self._end_taking()

    def clear(self) -> None:
        """Let go of all results, once the threads have ended; a reader that waits finds none."""
        with suppress(Empty):
            while True:
                self._done.get_nowait()
        self._early.clear()
        self._done.put(_Done(-1, None, None))


def _end(shared: _Shared[Any, Any], threads: list[threading.Thread], pid: int) -> None:
    # A forked child has none of the threads, and a lock that one of them may have held.
    if os.getpid() != pid:
        return
    shared.close()
    try:
        # In one of the threads, garbage was collected there: it may hold what the others wait for.
        if threading.current_thread() not in threads:
            for thread in threads:
                if thread.is_alive():
                    thread.join()
    finally:
        shared.clear()
