"""Record batches that are decoded on threads before they are asked for."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["DecodeAhead"]

Decoded = TypeVar("Decoded")


class DecodeAhead(Generic[Decoded]):
    """Decodes what was announced, on as many threads as there are cores. Safe to share between
    threads.

    What was announced and is not asked for any more is forgotten at the next announcement.
    """

    def __init__(self, decode: Callable[[int], Decoded]) -> None:
        """
        Args:
            decode: a method that decodes a record batch by number, called by several threads at
                once. Its object is not kept alive.
        """
        self._method = weakref.WeakMethod(decode)
        self.start_over()

    def start_over(self) -> None:
        """In a forked child: the threads are not there, and one may have held the lock."""
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Decoded]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def announce(self, batches: Iterable[int]) -> None:
        """These are decoded soon, in this order; what is announced no more is not."""
        wanted = list(dict.fromkeys(batches))
        with self._lock:
            for batch in self._pending.keys() - set(wanted):
                self._pending.pop(batch).cancel()
            for batch in wanted:
                if batch not in self._pending:
                    if self._pool is None:
                        self._pool = ThreadPoolExecutor(os.cpu_count(), "easydata-decode")
                    self._pending[batch] = self._pool.submit(self._decode, batch)

    def take(self, batch: int) -> Decoded:
        """The record batch: decoded ahead, or here and now.

        Raises:
            Exception: whatever decoding it raised.
        """
        with self._lock:
            future = self._pending.pop(batch, None)
        if future is None or future.cancel():  # its turn had not come
            return self._decode(batch)
        return future.result()

    def _decode(self, batch: int) -> Decoded:
        decode = self._method()
        if decode is None:
            raise RuntimeError("a dataset was dropped while it was read")
        return decode(batch)

    @property
    def pending(self) -> list[int]:
        """What was announced and not taken."""
        with self._lock:
            return list(self._pending)
