"""Segments into fewer, better ones.

Sealing a growing segment, compaction, expiry and eviction are one operation: of some segments the
entries that still count are written to new ones, about 1,000 to a block, with the codec of the
cache; then the old ones are deleted. Nothing changes in place: readers that have mapped an old
segment read on, and find the new ones at their next look.

What is gone must not come back. Where an entry that is deleted, expired or evicted is dropped, and
a segment that is not merged has its key too, a tombstone with its stamp takes its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easydata._fs import sync_directory
from easydata.cache.log.census import (
    Census,
    Lost,
    are_in,
    by_block,
    join_lost,
    lost_entries,
    may_be_stale,
    newest,
    take_census,
)
from easydata.cache.log.control import Control
from easydata.cache.log.entry import Entry
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.layout import NEVER, ColumnLayout, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import SealedWriter, segment_metadata
from easydata.cache.log.segment import ROW_BITS, Segment
from easydata.cache.log.segments import Unreadable
from easydata.cache.log.table import HashTable
from easydata.format.codecs import Codec, ShardFormat

__all__ = ["Choose", "Merger", "Outcome", "tombstone"]

_BATCH_ROWS = 1000
_BATCH_BYTES = 32 << 20
# A block with as many rows or bytes, all of which count, is copied as it is.
_WHOLE_ROWS = 500
_WHOLE_BYTES = 4 << 20

# Of a census and int64[m], the entries in it that count, bool[m]: those to drop.
Choose = Callable[[Census, npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


class Outcome(NamedTuple):
    """What a merge did.

    Attributes:
        expired: entries dropped because their time was over.
        dropped: entries dropped because they were chosen.
        damaged: entries that were lost because their bytes had changed.
    """

    expired: int = 0
    dropped: int = 0
    damaged: int = 0


def tombstone(key: bytes, key_hash: int, stamp: int) -> Entry:
    """An entry that says that a key has no value from `stamp` on."""
    return Entry(key, key_hash, stamp, NEVER, b"", b"", ())


class Merger:
    """Merges segments of one folder. Use it only while holding `CacheFolder.merging`."""

    def __init__(
        self, folder: CacheFolder, control: Control, compression: Codec, shard_format: ShardFormat
    ) -> None:
        self._folder = folder
        self._control = control
        self._compression = compression
        self._format: ShardFormat = shard_format

    def merge(
        self,
        sources: Sequence[Segment],
        others: Sequence[Segment],
        unreadable: Collection[Unreadable],
        *,
        now: int,
        cleared: int,
        choose: Choose | None = None,
    ) -> Outcome:
        """Put new segments in the place of `sources`.

        Args:
            sources: segments that nobody appends to.
            others: all other segments.
            unreadable: segments to put aside, of which nothing can be kept.
            now: entries that expire earlier are dropped.
            cleared: entries up to this stamp are dropped.
            choose: further ones to drop.

        Raises:
            StorageError: nothing has changed.
        """
        census = take_census(sources)
        lost_of_each = [lost_entries([source], ()) for source in sources]
        lost = join_lost([*lost_of_each, lost_entries((), unreadable)])
        current = newest(census, others)
        current = current[~may_be_stale(census, current, lost)]
        stamps = census.stamps[current]
        is_expired = (census.expires[current] <= now) & ~census.is_tombstone[current]
        gone = census.is_tombstone[current] | is_expired | (stamps <= cleared)
        chosen = np.zeros(len(current), np.bool_)
        if choose is not None:
            chosen[~gone] = choose(census, current[~gone])
        gone |= chosen
        graves = current[gone & (stamps > cleared)]
        graves = graves[are_in(others, census.hashes[graves])]
        self._write(census, current[~gone], graves, _buried(lost, others))
        is_damaged = [len(each.hashes) > 0 for each in lost_of_each]
        aside = [s.path for s, bad in zip(sources, is_damaged, strict=True) if bad]
        whole = [s.path for s, bad in zip(sources, is_damaged, strict=True) if not bad]
        self._folder.retire(whole, aside=[*aside, *(found.path for found in unreadable)])
        self._control.change_segments()
        return Outcome(int(is_expired.sum()), int(chosen.sum()), len(lost.hashes))

    def _write(
        self,
        census: Census,
        kept: npt.NDArray[np.int64],
        graves: npt.NDArray[np.int64],
        buried: Sequence[Entry],
    ) -> None:
        outputs: dict[tuple[ColumnLayout, ...], _Output] = {}

        def output(layout: EntryLayout) -> _Output:
            if layout.columns not in outputs:
                stamp = self._control.next_stamp()
                outputs[layout.columns] = _Output(
                    self._folder, stamp, layout, self._compression, self._format
                )
            return outputs[layout.columns]

        try:
            for segment, unit, indices in by_block(census, kept):
                view, start = segment.blocks.block(unit)
                target = output(segment.codec.layout)
                rows = segment.codec.count_rows(view, start)
                size = segment.codec.message_bytes(view, start)
                if len(indices) == rows and (rows >= _WHOLE_ROWS or size >= _WHOLE_BYTES):
                    target.copy(view[start : start + size], census.hashes[indices])
                    continue
                for index in indices.tolist():
                    _, row = segment.locate(int(census.places[index]))
                    target.add(row.entry(view), row.size)
            for index in graves.tolist():
                entry = tombstone(
                    census.key(index), int(census.hashes[index]), int(census.stamps[index])
                )
                output(EntryLayout(())).add(entry, len(entry.key))
            for entry in buried:
                output(EntryLayout(())).add(entry, 0)
            for made in outputs.values():
                made.finish()
        except BaseException:  # nobody has been told of the new segments: leave none
            for made in outputs.values():
                made.abandon()
            raise
        sync_directory(self._folder.path)
        self._control.change_segments()


class _Output:
    """A sealed segment that is being written."""

    def __init__(
        self,
        folder: CacheFolder,
        stamp: int,
        layout: EntryLayout,
        compression: Codec,
        shard_format: ShardFormat,
    ) -> None:
        self._name = folder.new_name("seg", stamp)
        self._table = folder.table(self._name)
        self._codec = EntryCodec(layout, segment_metadata(compression))
        self._writer = SealedWriter(folder.path, self._name, self._codec, compression, shard_format)
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._hashes = [np.empty(0, np.uint64)]
        self._places = [np.empty(0, np.uint64)]

    def add(self, entry: Entry, size: int) -> None:
        """Write an entry, together with those that come next."""
        if self._pending_bytes + size > _BATCH_BYTES:
            self._write_pending()
        self._pending.append(entry)
        self._pending_bytes += size
        if len(self._pending) == _BATCH_ROWS:
            self._write_pending()

    def copy(self, message: memoryview, hashes: npt.NDArray[np.uint64]) -> None:
        """Write a block as it is."""
        unit = self._writer.add(message)
        self._hashes.append(hashes)
        self._places.append(np.arange(len(hashes), dtype=np.uint64) + np.uint64(unit << ROW_BITS))

    def finish(self) -> None:
        """Let the segment appear."""
        self._write_pending()
        # Before the data, as nobody looks for a table alone.
        HashTable.build(self._table, np.concatenate(self._hashes), np.concatenate(self._places))
        self._writer.finish()

    def abandon(self) -> None:
        """Leave nothing, also of a segment that has appeared."""
        self._writer.abandon()
        for path in (self._writer.path, self._table):
            with contextlib.suppress(OSError):
                path.unlink()

    def _write_pending(self) -> None:
        if self._pending:
            hashes = np.array([entry.key_hash for entry in self._pending], np.uint64)
            self.copy(memoryview(self._codec.encode_rows(self._pending)), hashes)
        self._pending, self._pending_bytes = [], 0


def _buried(lost: Lost, others: Sequence[Segment]) -> list[Entry]:
    """Tombstones in the place of entries that are lost, where an older one is left.

    Their keys are not known: they are for every key with this hash.
    """
    left = are_in(others, lost.hashes)
    return [
        tombstone(b"", key_hash, bound - 1)
        for key_hash, bound in zip(
            lost.hashes[left].tolist(), lost.bounds[left].tolist(), strict=True
        )
    ]
