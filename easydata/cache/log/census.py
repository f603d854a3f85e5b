"""Which entries segments hold, and which of them are the newest of their keys."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easydata.cache.log.rows import LocatedRows, Row, SingleRows
from easydata.cache.log.segment import ROW_BITS, Segment, units_of
from easydata.cache.log.segments import Unreadable
from easydata.errors import CorruptShardError

__all__ = [
    "Census",
    "Lost",
    "are_in",
    "by_block",
    "join_lost",
    "lost_entries",
    "may_be_stale",
    "newest",
    "stretches",
    "take_census",
]


class Census(NamedTuple):
    """Entries of some segments: those of a segment together and in its order.

    Attributes:
        segments: those that were counted.
        segment: int64[n]: position in `segments`.
        places: uint64[n]: where in it.
        hashes: uint64[n].
        stamps, expires: int64[n]: nanoseconds since 1970.
        sizes: int64[n]: bytes of each entry, without what surrounds it.
        is_tombstone: bool[n].
        is_single: bool[n]: it lies in a map, as a message of its own.
    """

    segments: Sequence[Segment]
    segment: npt.NDArray[np.int64]
    places: npt.NDArray[np.uint64]
    hashes: npt.NDArray[np.uint64]
    stamps: npt.NDArray[np.int64]
    expires: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    is_tombstone: npt.NDArray[np.bool_]
    is_single: npt.NDArray[np.bool_]

    def key(self, index: int) -> bytes:
        """The key of an entry."""
        view, row = self.locate(index)
        return bytes(view[slice(*row.key)])

    def locate(self, index: int) -> tuple[memoryview, Row]:
        """A view, and where an entry lies in it."""
        return self.segments[self.segment[index]].locate(int(self.places[index]))


_DTYPES = (np.int64, np.uint64, np.uint64, np.int64, np.int64, np.int64, np.bool_, np.bool_)


def take_census(segments: Sequence[Segment]) -> Census:
    """All entries whose bytes are those that were written, also those that others replace."""
    parts = [[np.empty(0, dtype) for dtype in _DTYPES]]
    for number, segment in enumerate(segments):
        units = np.fromiter(segment.units(), np.int64)
        are_single, singles = segment.single_rows(units)
        blocks = [_counted(number, units[are_single] << ROW_BITS, singles, is_single=True)]
        for unit in units[~are_single].tolist():
            rows = segment.codec.locate_rows(*segment.blocks.block(unit))
            places = np.arange(len(rows)) + (unit << ROW_BITS)
            blocks.append(_counted(number, places, rows, is_single=False))
        columns = [np.concatenate(column) for column in zip(*blocks, strict=True)]
        order = np.argsort(columns[1], kind="stable")
        parts.append([column[order] for column in columns])
    return Census(segments, *map(np.concatenate, zip(*parts, strict=True)))


def _counted(
    number: int, places: npt.NDArray[np.int64], rows: LocatedRows | SingleRows, *, is_single: bool
) -> list[npt.NDArray[Any]]:
    count = len(rows)
    return [
        *(np.full(count, number), places.astype(np.uint64)),
        *(rows.hashes, rows.stamps, rows.expires, rows.sizes, rows.are_tombstones),
        np.full(count, is_single),
    ]


class Lost(NamedTuple):
    """Entries whose bytes are not those that were written.

    Attributes:
        hashes: uint64[n]: of their keys.
        bounds: int64[n]: a stamp that each did not reach.
    """

    hashes: npt.NDArray[np.uint64]
    bounds: npt.NDArray[np.int64]


def join_lost(parts: Sequence[Lost]) -> Lost:
    """All of them together."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(part.hashes for part in parts)])
    return Lost(hashes, np.concatenate([np.empty(0, np.int64), *(part.bounds for part in parts)]))


def lost_entries(segments: Sequence[Segment], unreadable: Collection[Unreadable]) -> Lost:
    """What cannot be read of some segments, as far as their tables tell."""
    hashes = [np.empty(0, np.uint64)]
    bounds = [np.empty(0, np.int64)]
    for segment in segments:
        found, places = segment.table.entries()  # first, as entries may be added meanwhile
        units = places >> np.uint64(ROW_BITS)
        is_lost = ~np.isin(units, np.fromiter(segment.units(), np.uint64))
        limits = {unit: segment.bound(unit) for unit in set(units[is_lost].tolist())}
        hashes.append(found[is_lost])
        bounds.append(np.array([limits[unit] for unit in units[is_lost].tolist()], np.int64))
    for gone in unreadable:
        if gone.table is not None:
            found, _ = gone.table.entries()
            hashes.append(found)
            bounds.append(np.full(len(found), gone.newest_possible))
    return Lost(np.concatenate(hashes), np.concatenate(bounds))


def may_be_stale(
    census: Census, current: npt.NDArray[np.int64], lost: Lost
) -> npt.NDArray[np.bool_]:
    """bool[m]: entries whose key may have had a newer value among those that are lost."""
    if not len(lost.hashes):
        return np.zeros(len(current), np.bool_)
    order = np.lexsort((lost.bounds, lost.hashes))
    hashes, bounds = lost.hashes[order], lost.bounds[order]
    wanted = np.maximum(census.hashes[current], np.uint64(1))  # as tables have them
    last = np.searchsorted(hashes, wanted, side="right") - 1  # the greatest bound of each
    found = (last >= 0) & (hashes[last] == wanted)
    return found & (census.stamps[current] < bounds[last])


def newest(census: Census, others: Sequence[Segment]) -> npt.NDArray[np.int64]:
    """int64[m]: entries that are the newest of their key, in the census and in `others`."""
    if not len(census.hashes):
        return np.empty(0, np.int64)
    # By hash, then from old to new; of one stamp (one batch) the later row is newer.
    order = np.lexsort((np.arange(len(census.hashes)), census.stamps, census.hashes))
    hashes = census.hashes[order]
    changes = np.flatnonzero(hashes[1:] != hashes[:-1]) + 1
    starts, ends = np.append(0, changes), np.append(changes, len(hashes))
    found = order[starts[ends - starts == 1]].tolist()
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start == 1:
            continue
        keys = set()
        for index in order[start:end][::-1].tolist():
            key = census.key(index)
            if key not in keys:
                keys.add(key)
                found.append(index)
            if not key and census.is_tombstone[index]:
                break  # of all keys with this hash
    result = np.sort(np.array(found, np.int64))
    elsewhere = np.flatnonzero(are_in(others, census.hashes[result])).tolist()
    old = [at for at in elsewhere if _has_newer(others, census, int(result[at]))]
    return np.delete(result, old)


def are_in(segments: Sequence[Segment], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """bool[n]: which hashes one of the segments has."""
    found = np.zeros(len(hashes), np.bool_)
    for segment in segments:
        found |= segment.table.find_many(hashes)[0]
    return found


def _has_newer(others: Sequence[Segment], census: Census, index: int) -> bool:
    key = census.key(index)
    for segment in others:
        with contextlib.suppress(CorruptShardError):
            hit = segment.find(key, int(census.hashes[index]))
            if hit is not None and hit.row.stamp > census.stamps[index]:
                return True
    return False


def by_block(
    census: Census, kept: npt.NDArray[np.int64], *, join_singles: bool = False
) -> Iterator[tuple[Segment, int, npt.NDArray[np.int64]]]:
    """Segment, unit and entries of each block that has some of the entries `kept`, in order.

    With `join_singles` those that are messages of their own come together, as far as they follow
    one another, with the unit of the first.
    """
    numbers, units = census.segment[kept], units_of(census.places[kept])
    joined = np.where(census.is_single[kept], -1, units) if join_singles else units
    for start, stop in stretches(numbers, joined):
        yield census.segments[numbers[start]], int(units[start]), kept[start:stop]


def stretches(
    numbers: npt.NDArray[np.int64], units: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Where entries of one block follow one another: the first, and behind the last.

    Args:
        numbers: int64[n]: of the segment of each.
        units: int64[n]: of each in it.
    """
    if not len(numbers):
        return
    changes = (numbers[1:] != numbers[:-1]) | (units[1:] != units[:-1])
    yield from pairwise([0, *(np.flatnonzero(changes) + 1).tolist(), len(numbers)])
