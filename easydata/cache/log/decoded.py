"""Blocks that were decoded, kept in memory up to a limit that all segments of a cache share."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["DecodedBlocks"]


class DecodedBlocks:
    """Blocks that were decoded, the last used ones. Safe to share between threads.

    The child of a fork starts with none.

    Attributes:
        num_bytes: size of what is kept: at most the limit, or one block.
        decode_seconds: time spent decoding.
    """

    def __init__(self, max_bytes: int) -> None:
        """
        Args:
            max_bytes: how much to keep. The block decoded last is kept in any case.
        """
        self._max_bytes = max_bytes
        self.decode_seconds = 0.0
        self.start_over()
        _all.add(self)

    def start_over(self) -> None:
        """Forget all blocks, also if a thread that is gone was at work on them."""
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], memoryview] = OrderedDict()
        self.num_bytes = 0

    def get(self, segment: str, unit: int, decode: Callable[[], bytearray]) -> memoryview:
        """A read-only view of a block.

        Args:
            segment: which one; its path.
            unit: which block.
            decode: makes it, if it is not there. Two threads may do so at once.
        """
        key = segment, unit
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
                return found
        start = time.perf_counter()
        block = memoryview(decode()).toreadonly()
        seconds = time.perf_counter() - start
        with self._lock:
            self.decode_seconds += seconds
            found = self._blocks.setdefault(key, block)
            if found is block:
                self.num_bytes += len(block)
            self._blocks.move_to_end(key)
            while self.num_bytes > self._max_bytes and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self.num_bytes -= len(oldest)
        return found


_all: weakref.WeakSet[DecodedBlocks] = weakref.WeakSet()


def _start_over() -> None:
    for blocks in list(_all):
        blocks.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
