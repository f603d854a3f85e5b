"""Where entries lie in a segment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import Bytes
from easydata.cache.log.layout import NUM_OWN_RUNS, EntryLayout
from easydata.format.alignment import ALIGNMENT

__all__ = ["LocatedRows", "Row", "SingleRows"]


class Row(NamedTuple):
    """Where one entry lies in a map of its segment.

    Attributes:
        key_hash, stamp, expires: as in `Entry`.
        key, metadata, recipe: positions of their first byte and after their last.
        data: for each column that has offsets the positions of its first byte and after its
            last, for each other column its number.
    """

    key_hash: int
    stamp: int
    expires: int
    key: tuple[int, int]
    metadata: tuple[int, int]
    recipe: tuple[int, int]
    data: list[Any]

    @property
    def size(self) -> int:
        """Bytes of its key, metadata, recipe, and data with offsets."""
        runs = [self.key, self.metadata, self.recipe]
        runs += [item for item in self.data if type(item) is tuple]
        return sum(stop - start for start, stop in runs)

    @property
    def is_tombstone(self) -> bool:
        """True if it says that its key has no value."""
        return self.recipe[0] == self.recipe[1]

    def entry(self, view: Bytes) -> Entry:
        """The entry itself: views of the map that it lies in."""
        view = memoryview(view)
        return Entry(
            bytes(view[slice(*self.key)]),
            self.key_hash,
            self.stamp,
            self.expires,
            bytes(view[slice(*self.metadata)]),
            bytes(view[slice(*self.recipe)]),
            [view[slice(*item)] if type(item) is tuple else item for item in self.data],
        )


class LocatedRows:
    """The entries of a message with several rows: views of a map.

    Attributes:
        hashes: uint64[rows].
        stamps: int64[rows].
        expires: int64[rows].
    """

    def __init__(self, layout: EntryLayout, view: Bytes, body: int, rows: int) -> None:
        """
        Args:
            layout: the columns.
            view: the segment, which is kept.
            body: where the message's body starts in it.
            rows: the message's rows.
        """
        self._columns = layout.columns
        self._item_bytes = [1] * NUM_OWN_RUNS + [c.item_bytes for c in layout.columns if c.is_run]
        fixed_starts = layout.fixed_starts(rows)
        self.hashes = np.frombuffer(view, "<u8", rows, body)
        self.stamps = np.frombuffer(view, "<i8", rows, body + fixed_starts[1])
        self.expires = np.frombuffer(view, "<i8", rows, body + fixed_starts[2])
        self._offsets: list[npt.NDArray[np.int32]] = []
        self._numbers: list[npt.NDArray[Any] | None] = []
        for index, column in enumerate((None, None, None, *layout.columns), start=3):
            at = body + fixed_starts[index]
            if column is None or column.is_run:
                self._offsets.append(np.frombuffer(view, "<i4", rows + 1, at))
            if column is not None:
                dtype = None if column.is_run else column.kind.to_pandas_dtype()
                self._numbers.append(
                    None if dtype is None else np.frombuffer(view, dtype, rows, at)
                )
        sizes = [
            int(offsets[-1]) * item
            for offsets, item in zip(self._offsets, self._item_bytes, strict=True)
        ]
        starts = layout.data_starts(fixed_starts[-1], sizes)[:-1]
        # One item of a memoryview takes a quarter of the time of one of an array.
        self._times = [a.data for a in (self.hashes, self.stamps, self.expires)]
        self._scalars = [None if a is None else a.data for a in self._numbers]
        self._has_numbers = any(a is not None for a in self._numbers)
        # int64[rows + 1, runs]: where each run of each entry begins in the map, then the ends.
        self._bounds = np.empty((rows + 1, len(self._offsets)), np.int64)
        for at, (start, item) in enumerate(zip(starts, self._item_bytes, strict=True)):
            np.multiply(self._offsets[at], item, out=self._bounds[:, at], dtype=np.int64)
            self._bounds[:, at] += body + start
        self._keys = memoryview(view)[body + starts[0] : body + starts[0] + sizes[0]]

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """int64[rows]: bytes of each entry's key, metadata, recipe, and data with offsets."""
        total = np.zeros(len(self), np.int64)
        for offsets, item in zip(self._offsets, self._item_bytes, strict=True):
            total += np.diff(offsets).astype(np.int64) * item
        return total

    @property
    def are_tombstones(self) -> npt.NDArray[np.bool_]:
        """bool[rows]: those that say that a key has no value."""
        return np.diff(self._offsets[NUM_OWN_RUNS - 1]) == 0

    def keys(self) -> list[bytes]:
        """The key of each entry."""
        data = bytes(self._keys)
        return [data[start:end] for start, end in pairwise(self._offsets[0].tolist())]

    def have_keys(self, first: int, keys: Sequence[bytes]) -> bool:
        """Whether the entries from `first` on have these keys, one after another."""
        ends = self._offsets[0][first : first + len(keys) + 1]
        are_they = bytes(self._keys[ends[0] : ends[-1]]) == b"".join(keys)
        return are_they and np.diff(ends).tolist() == list(map(len, keys))

    def row(self, index: int) -> Row:
        """One entry."""
        begins, ends = self._bounds[index : index + 2].tolist()
        key, metadata, recipe, *runs = zip(begins, ends)  # noqa: B905 - of one array
        data: list[Any] = runs
        if self._has_numbers:
            run = iter(runs)
            data = [next(run) if numbers is None else numbers[index] for numbers in self._scalars]
        hashes, stamps, expires = self._times
        times = hashes[index], stamps[index], expires[index]
        return _new_row(Row, (*times, key, metadata, recipe, data))


_new_row = tuple.__new__  # the constructor of a NamedTuple takes twice as long


class SingleRows:
    """Entries that are messages of their own, many at once: views of a map and arrays.

    Attributes:
        hashes: uint64[n].
        stamps, expires: int64[n].
        sizes: int64[n]: bytes of each entry's key, metadata, recipe, and data with offsets.
        numbers: for each column of numbers an array[n] of them, None for each other column.
    """

    def __init__(
        self, layout: EntryLayout, header_bytes: int, view: memoryview, starts: npt.NDArray[Any]
    ) -> None:
        """
        Args:
            layout: the columns.
            header_bytes: size of each message without its body.
            view: the segment, which is kept.
            starts: int64[n]: where each message starts in it, a multiple of 64.
        """
        # The fixed part of one row consists of words of 8 bytes: three numbers, then for each run
        # the offsets 0 and of its end, for each other column its number.
        words = np.frombuffer(view, "<i8", len(view) // 8)
        first = (starts + header_bytes) // 8
        self.hashes = words[first].view(np.uint64)
        self.stamps, self.expires = words[first + 1], words[first + 2]
        self._view = view
        self._runs: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self.numbers: list[npt.NDArray[Any] | None] = []
        self.sizes = np.zeros(len(starts), np.int64)
        end = starts + header_bytes + layout.fixed_bytes(1)
        for at, column in enumerate((None, None, None, *layout.columns), start=3):
            found = words[first + at]
            if column is not None and not column.is_run:
                dtype = np.dtype(column.kind.to_pandas_dtype())
                self.numbers.append(np.ascontiguousarray(found.view(dtype)[:: 8 // dtype.itemsize]))
                continue
            size = (found >> 32) * (1 if column is None else column.item_bytes)
            start = end if column is None else end + (-end % ALIGNMENT)
            end = start + size + (-size % 8)
            self._runs.append((start, size))
            self.sizes += size
            if column is not None:
                self.numbers.append(None)

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def are_tombstones(self) -> npt.NDArray[np.bool_]:
        """bool[n]: those that say that a key has no value."""
        are: npt.NDArray[np.bool_] = self._runs[NUM_OWN_RUNS - 1][1] == 0
        return are

    def runs(self) -> list[list[memoryview]]:
        """Keys, metadata, recipes, then each column with offsets: the bytes of each entry."""
        view = self._view
        return [
            [view[a:b] for a, b in zip(start.tolist(), (start + size).tolist(), strict=True)]
            for start, size in self._runs
        ]
