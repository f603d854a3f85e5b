"""Copy many equally long runs out of memory maps in one NumPy call.

A sample may lie in any of thousands of mapped files, and each file is an array of its own: one
fancy index per file is a Python loop per sample. But all maps lie in one address space. Seen
from the lowest address of interest, every run is a row of one array whose rows overlap, each
starting one item after the last; fancy-indexing that array gathers runs from everywhere.

Nothing outside the runs asked for is ever touched, so it does not matter that most of that
array is no memory of ours.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MappedRegions"]


class _Memory:
    """Memory from `address` on, as an array of overlapping rows."""

    def __init__(self, address: int, rows: int, length: int, dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "version": 3,
            "typestr": dtype.str,
            "data": (address, True),
            "shape": (rows, length),
            "strides": (dtype.itemsize, dtype.itemsize),
        }


class MappedRegions:
    """Arrays somewhere in memory, numbered, from which runs can be gathered."""

    def __init__(self, count: int, dtype: np.dtype[Any]) -> None:
        """
        Args:
            count: how many arrays there are; where they lie is said later.
            dtype: type of their items.
        """
        self._dtype = dtype
        self._first_items = np.zeros(count, np.int64)  # address / itemsize; 0: not known
        self._end_item = 0
        self._lock = threading.Lock()
        # By length of the runs: the number of the first item, and the array of all runs.
        self._views: dict[int, tuple[int, npt.NDArray[Any]]] = {}

    def start_over(self) -> None:
        """In a forked child: a thread that is not there may have held the lock."""
        self._lock = threading.Lock()
        self._views.clear()

    def place(self, region: int, address: int, length: int) -> None:
        """Say where an array lies. The caller keeps it alive as long as this object.

        Args:
            region: its number.
            address: of its first item.
            length: its items.
        """
        first = address // self._dtype.itemsize
        # A view must never be older than the arrays gathered from it: an index would wrap.
        with self._lock:
            self._end_item = max(self._end_item, first + length)
            self._first_items[region] = first
            self._views.clear()

    def gather(
        self, regions: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], length: int
    ) -> npt.NDArray[Any]:
        """dtype[n, length]: `length` items from item `starts[i]` of array `regions[i]`, copied.

        Args:
            regions: int64[n], n ≥ 1, numbers of arrays that have been placed.
            starts: int64[n]; each run lies inside its array. Not checked.
            length: items in each run, at least 1.
        """
        base, view = self._views.get(length) or self._make_view(length)
        gathered: npt.NDArray[Any] = view[self._first_items[regions] + (starts - base)]
        return gathered

    def _make_view(self, length: int) -> tuple[int, npt.NDArray[Any]]:
        with self._lock:
            base = int(self._first_items[self._first_items > 0].min())
            rows = self._end_item - base
            memory = _Memory(base * self._dtype.itemsize, rows, length, self._dtype)
            self._views[length] = made = (base, np.asarray(memory))
        return made
