"""When entries were used last, for a cache with a size limit: a mapped array of times.

Each entry has the place that its key's hash leads to; entries that share one look as if they were
used together, which makes the order of eviction a little less exact and nothing wrong. All
processes write to it without a lock.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from easydata._fs import storage_errors
from easydata.cache import clock

__all__ = ["Uses"]

_BYTES_PER_ENTRY = 1024  # as far as entries can be foreseen
_FEWEST, _MOST = 1 << 10, 1 << 20
_ITEM_BYTES = 8


class Uses:
    """Times of last use."""

    def __init__(self, path: Path, size_limit: int) -> None:
        """Map the file; make it if it is not there.

        Args:
            path: the file.
            size_limit: of the cache, which says how many times there will be.

        Raises:
            StorageError: it cannot be made.
        """
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                if size < _ITEM_BYTES * _FEWEST or size % _ITEM_BYTES:  # new, or cut off
                    items = min(max(size_limit // _BYTES_PER_ENTRY, _FEWEST), _MOST)
                    size = _ITEM_BYTES * (1 << (items - 1).bit_length())
                    # Written, not left a hole: see `table`. Equal zeros of two processes at once
                    # do no harm, as a time that is lost only is an old one.
                    os.pwrite(descriptor, bytes(size), 0)
                self._times = memoryview(mmap.mmap(descriptor, size)).cast("q")
            finally:
                os.close(descriptor)
        self._mask = (1 << (len(self._times).bit_length() - 1)) - 1

    def mark(self, key_hash: int) -> None:
        """An entry is used now."""
        self._times[key_hash & self._mask] = clock.now()

    def last(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """int64[n]: nanoseconds since 1970, 0 where never."""
        times = np.array(self._times, np.int64)
        return times[(hashes & np.uint64(self._mask)).astype(np.int64)]
