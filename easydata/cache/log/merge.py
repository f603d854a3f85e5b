"""Segments into fewer, better ones.

Sealing a growing segment, compaction, expiry and eviction are one operation: of some segments the
entries that still count are written to new ones, about 1,000 to a block, with the codec of the
cache; then the old ones are deleted. Nothing changes in place: readers that have mapped an old
segment read on, and find the new ones at their next look.

What is gone must not come back. Where an entry that is deleted, expired or evicted is dropped, and
a segment that is not merged has its key too, a tombstone with its stamp takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easydata._fs import sync_directory
from easydata.cache.log import pieces
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
from easydata.cache.log.output import Output, large_output
from easydata.cache.log.sealed import SegmentKind
from easydata.cache.log.segment import Segment
from easydata.cache.log.segments import Unreadable
from easydata.format.codecs import Codec, ShardFormat

__all__ = ["Choose", "Merger", "Outcome", "tombstone"]

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
        kept, staying = self._leave_large(census, current[~gone])
        self._write(census, kept, graves, _buried(lost, others))
        retired: list[Path] = []
        aside = [found.path for found in unreadable]
        for source, lost_of_source in zip(sources, lost_of_each, strict=True):
            if source not in staying:
                (aside if len(lost_of_source.hashes) else retired).append(source.path)
        self._folder.retire(retired, aside=aside)
        self._control.change_segments()
        return Outcome(int(is_expired.sum()), int(chosen.sum()), len(lost.hashes))

    def _leave_large(
        self, census: Census, kept: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], list[Segment]]:
        """Those entries that are to be written, and the segments of those that stay as they are."""
        staying = [
            number
            for number in np.unique(census.segment[kept]).tolist()
            if self._is_as_wanted(census.segments[number])
        ]
        is_written = ~np.isin(census.segment[kept], staying)
        return kept[is_written], [census.segments[number] for number in staying]

    def _is_as_wanted(self, segment: Segment) -> bool:
        """True for a large entry that would be written as it is."""
        file_format = "parquet" if segment.path.suffix == ".parquet" else "ipc"
        is_alike = file_format == self._format and segment.kind.compression == self._compression
        return segment.is_large and is_alike

    def _write(
        self,
        census: Census,
        kept: npt.NDArray[np.int64],
        graves: npt.NDArray[np.int64],
        buried: Sequence[Entry],
    ) -> None:
        outputs: dict[tuple[ColumnLayout, ...], Output] = {}
        large: list[Output] = []

        def output(layout: EntryLayout) -> Output:
            if layout.columns not in outputs:
                stamp = self._control.next_stamp()
                kind = SegmentKind(self._compression)
                outputs[layout.columns] = Output(self._folder, stamp, layout, kind, self._format)
            return outputs[layout.columns]

        try:
            is_large = census.sizes[kept] > pieces.LARGE_BYTES
            for index in kept[is_large].tolist():
                large.append(self._large_output(census, index))
                large[-1].finish()  # one at a time is open
            for segment, unit, indices in by_block(census, kept[~is_large], join_singles=True):
                target = output(segment.codec.layout)
                if census.is_single[indices[0]]:
                    target.add_singles(segment, census.places[indices])
                    continue
                view, start = segment.blocks.block(unit)
                rows = segment.codec.count_rows(view, start)
                size = segment.codec.message_bytes(view, start)
                if len(indices) == rows and (rows >= _WHOLE_ROWS or size >= _WHOLE_BYTES):
                    target.copy(view[start : start + size], census.hashes[indices])
                else:
                    target.add_rows(segment, census.places[indices])
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
            for made in (*large, *outputs.values()):
                made.abandon()
            raise
        sync_directory(self._folder.path)
        self._control.change_segments()

    def _large_output(self, census: Census, index: int) -> Output:
        layout = census.segments[census.segment[index]].codec.layout
        view, row = census.locate(index)
        entry = row.entry(view)
        return large_output(self._folder, layout, entry, self._compression, self._format)


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
