"""Looking at all entries of a cache folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from easydata.cache import clock
from easydata.cache.log.census import (
    Census,
    by_block,
    lost_entries,
    may_be_stale,
    newest,
    stretches,
    take_census,
)
from easydata.cache.log.rows import Row
from easydata.cache.log.segment import MAX_ROWS, ROW_BITS, Segment, units_of
from easydata.cache.log.store import LogStore
from easydata.cache.tables import TableMaker, is_run, whole_table
from easydata.errors import CorruptShardError, DatasetError

__all__ = ["count", "keys", "live", "problems", "require_intact", "table", "table_of_keys"]

_ROW_MASK = np.uint64(MAX_ROWS - 1)
_NOWHERE, _SEVERAL = -1, -2  # instead of the number of a segment
_LEAST_ROWS = 8  # fewer rows of a block are copied sooner than its batch is made


def live(store: LogStore, *, with_expired: bool = False) -> tuple[Census, npt.NDArray[np.int64]]:
    """A census of all segments, and int64[m]: which of its entries can be found now."""
    segments = store.segments()
    census = take_census(segments)
    current = newest(census, ())
    lost = lost_entries(segments, store.segments.unreadable())
    current = current[~may_be_stale(census, current, lost)]
    keep = ~census.is_tombstone[current]
    keep &= census.stamps[current] > store.cleared
    if not with_expired:
        keep &= census.expires[current] > clock.now()
    return census, current[keep]


def count(store: LogStore) -> int:
    """How many entries can be found."""
    return len(live(store)[1])


def keys(store: LogStore, prefix: str, *, with_expired: bool = False) -> list[str]:
    """The keys of all entries that can be found and begin with `prefix`, sorted."""
    found: list[str] = []
    for segment, unit, rows in _live_blocks(store, with_expired=with_expired):
        found += map(bytes.decode, _keys(segment, unit, rows))
    if prefix:
        found = [key for key in found if key.startswith(prefix)]
    return sorted(found)


def table(store: LogStore, prefix: str) -> pa.Table:
    """All entries that can be found and whose keys begin with `prefix`; see `TableMaker`.

    Those that were put together stand together, in that order.
    """
    start = prefix.encode("utf-8", "surrogatepass")
    maker = TableMaker(with_keys=True)
    for segment, unit, found in _live_blocks(store):
        rows = found
        if start:
            rows = rows[[key.startswith(start) for key in _keys(segment, unit, rows)]]
        if _is_single(segment, unit):
            for row in rows.tolist():
                _add_entry(maker, segment, *segment.locate(unit << ROW_BITS | row))
        elif len(rows):
            maker.add_rows(segment, unit, rows)
    return maker.finish()


def table_of_keys(store: LogStore, keys: Sequence[str]) -> pa.Table:
    """The entries of some keys in this order, each given once; see `TableMaker`.

    Keys that cannot be found are left out. A single key whose value is a table, record batch or
    DataFrame gives that table.
    """
    names = [key.encode() for key in keys]
    hashes = np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, names)), ">u8").astype(np.uint64)
    maker = TableMaker(with_keys=False)
    if len(names) == 1:
        return _table_of_key(store, names[0], int(hashes[0]))
    segments = store.segments()
    numbers, places = _look_up(store, segments, hashes)
    for start, stop in stretches(numbers, units_of(places)):
        number = int(numbers[start])
        if number == _NOWHERE:
            continue
        if stop - start >= _LEAST_ROWS and number != _SEVERAL:
            unit = int(places[start]) >> ROW_BITS
            rows = (places[start:stop] & _ROW_MASK).astype(np.int64)
            if _add_rows(store, maker, segments[number], unit, rows, names[start:stop]):
                continue
        for at in range(start, stop):
            _add_found(store, maker, names[at], int(hashes[at]))
    return maker.finish()


def problems(store: LogStore) -> list[str]:
    """One line for each segment in which bytes are not those that were written."""
    segments = store.segments()
    found = [lost.problem for lost in store.segments.unreadable()]
    for segment in segments:
        lost = len(lost_entries([segment], ()).hashes)
        if lost:
            found.append(f"{segment.path} is damaged: {lost} entries are lost.")
    return found


def require_intact(store: LogStore) -> None:
    """
    Raises:
        CorruptShardError: some bytes are not those that were written.
    """
    found = problems(store)
    if found:
        raise CorruptShardError(
            " ".join(found) + " Call verify(repair=True) on the cache to keep what is whole."
        )


def _table_of_key(store: LogStore, name: bytes, key_hash: int) -> pa.Table:
    hit = store.find(name, key_hash)
    maker = TableMaker(with_keys=False)
    if hit is None or hit.row.expires <= clock.now():
        return maker.finish()
    entry = hit.row.entry(hit.view)
    try:
        whole = whole_table(entry.recipe, entry.data)
    except DatasetError:  # as damaged as an entry whose bytes have changed
        return maker.finish()
    if whole is not None:
        return whole
    maker.add_entry(hit.segment.codec, entry, hit.row.size)
    return maker.finish()


def _live_blocks(
    store: LogStore, *, with_expired: bool = False
) -> Iterator[tuple[Segment, int, npt.NDArray[np.int64]]]:
    """Segment, unit and rows of each block that has some of the entries that can be found."""
    census, current = live(store, with_expired=with_expired)
    for segment, unit, indices in by_block(census, current):
        yield segment, unit, (census.places[indices] & _ROW_MASK).astype(np.int64)


def _is_single(segment: Segment, unit: int) -> bool:
    return segment.codec.count_rows(*segment.blocks.block(unit)) == 1


def _keys(segment: Segment, unit: int, rows: npt.NDArray[np.int64]) -> list[bytes]:
    """The keys of some rows of a block."""
    if _is_single(segment, unit):
        view, row = segment.locate(unit << ROW_BITS)
        return [bytes(view[slice(*row.key)])]
    names = segment.rows(unit)[1].keys()
    return (
        names if len(rows) == len(names) and is_run(rows) else [names[row] for row in rows.tolist()]
    )


def _look_up(
    store: LogStore, segments: Sequence[Segment], hashes: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """int64[n], uint64[n]: number of the segment and place in it for each hash."""
    numbers = np.full(len(hashes), _NOWHERE)
    places = np.zeros(len(hashes), np.uint64)
    for number, segment in enumerate(segments):
        found, where = segment.table.find_many(hashes)
        numbers[found] = np.where(numbers[found] == _NOWHERE, number, _SEVERAL)
        places[found] = where[found]
    for lost in store.segments.unreadable():
        if lost.table is not None:
            numbers[lost.table.find_many(hashes)[0]] = _SEVERAL
    return numbers, places


def _add_rows(
    store: LogStore,
    maker: TableMaker,
    segment: Segment,
    unit: int,
    rows: npt.NDArray[np.int64],
    names: Sequence[bytes],
) -> bool:
    """Add those rows of a block that count; False if it is damaged, or the keys are others."""
    try:
        _, located = segment.rows(unit)
        if rows.max() >= len(located):
            return False
        if is_run(rows):
            are_theirs = located.have_keys(int(rows[0]), names)
        else:
            are_theirs = _keys(segment, unit, rows) == names
        if not are_theirs:
            return False
        counts = ~located.are_tombstones[rows]
        counts &= located.stamps[rows] > store.cleared
        counts &= located.expires[rows] > clock.now()
        if counts.any():
            maker.add_rows(segment, unit, rows[counts])
    except (CorruptShardError, FileNotFoundError):  # `LogStore.find` knows what to do
        return False
    return True


def _add_found(store: LogStore, maker: TableMaker, name: bytes, key_hash: int) -> None:
    hit = store.find(name, key_hash)
    if hit is not None and hit.row.expires > clock.now():
        _add_entry(maker, hit.segment, hit.view, hit.row)


def _add_entry(maker: TableMaker, segment: Segment, view: memoryview, row: Row) -> None:
    maker.add_entry(segment.codec, row.entry(view), row.size)
