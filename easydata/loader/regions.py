"""The regions that a stream consists of: which one an item lies in, and runs cut where they end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easydata.loader.ranges import ranges

__all__ = ["Regions", "SplitRuns"]

Int64Array = npt.NDArray[np.int64]

# Entries of a table, two for each region if these allow it. With so many, at least three in four
# positions lie in the region that it says. A larger one would take longer to make than it saves.
_LEAST_ENTRIES, _MOST_ENTRIES = 1 << 12, 1 << 20


class SplitRuns(NamedTuple):
    """Runs of a stream, cut where regions of it end.

    Attributes:
        regions: int64[pieces], the region of each piece.
        starts: int64[pieces], its first item, from the start of the region.
        lengths: int64[pieces], its items.
        counts: int64[runs], how many pieces each run is; None if every run is one.
    """

    regions: Int64Array
    starts: Int64Array
    lengths: Int64Array
    counts: Int64Array | None


class Regions:
    """Finds items by their position in a stream.

    A binary search for positions in no order guesses wrong at every other step, which takes a
    processor longer than all else that locating a sample does. So a table says in which region
    each of many equal stretches of the stream begins. Most positions lie in that region, and only
    for the others it is searched.
    """

    def __init__(self, firsts: Int64Array) -> None:
        """
        Args:
            firsts: int64[regions + 1], the first item of each region, the first of them 0, and how
                many items there are; not copied.
        """
        self._firsts = firsts
        count, size = len(firsts) - 1, int(firsts[-1])
        entries = min(max(2 * count, _LEAST_ENTRIES), _MOST_ENTRIES)
        self._shift = max(size.bit_length() - entries.bit_length(), 0)
        begun = -(-firsts[1:-1] >> self._shift)
        kind = np.min_scalar_type(count)
        self._table = np.bincount(begun, minlength=(size >> self._shift) + 1).cumsum(dtype=kind)

    def find(self, positions: Int64Array) -> Int64Array:
        """int64[n]: the last region that begins at each position or before it.

        Args:
            positions: int64[n], from 0 to the number of items.
        """
        return self._find(positions)[0]

    def split(self, starts: Int64Array, lengths: Int64Array | int) -> SplitRuns:
        """Cut runs of the stream where the regions end.

        Args:
            starts: int64[runs], the first item of each run; all lie within the stream.
            lengths: int64[runs], items in each, or in all.
        """
        firsts = self._firsts
        ends = starts + lengths
        regions, region_ends = self._find(starts)
        local, sizes = starts - firsts.take(regions, mode="clip"), ends - starts
        split = np.flatnonzero(ends > region_ends)
        if not len(split):
            return SplitRuns(regions, local, sizes, None)
        # Few are: only for them it is worked out where the pieces lie.
        counts = np.ones(len(starts), np.int64)
        counts[split] = spans = firsts.searchsorted(ends[split]) - regions[split]
        among = ranges(regions[split], spans)
        first = np.maximum(starts[split].repeat(spans), firsts[among])
        last = np.minimum(ends[split].repeat(spans), firsts[among + 1])
        pieces = ranges(split + (spans - 1).cumsum() - (spans - 1), spans)
        whole = np.arange(len(starts)).repeat(counts)
        regions, local, sizes = (array.take(whole) for array in (regions, local, sizes))
        regions[pieces], local[pieces] = among, first - firsts[among]
        sizes[pieces] = last - first
        return SplitRuns(regions, local, sizes, counts)

    def _find(self, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Their regions, and where these end."""
        firsts = self._firsts
        regions = self._table.take(positions >> self._shift, mode="clip").astype(np.int64)
        ends = firsts.take(regions + 1, mode="clip")
        later = np.flatnonzero(positions >= ends)
        if len(later):
            regions[later] = found = firsts[:-1].searchsorted(positions[later], side="right") - 1
            ends[later] = firsts.take(found + 1, mode="clip")
        return regions, ends
