"""When segments are merged, and which: sealing, compaction, expiry, eviction."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Sequence
from typing import Any

from easydata.cache import clock
from easydata.cache.log import locks
from easydata.cache.log.census import take_census
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.merge import Choose, Merger, Outcome
from easydata.cache.log.segment import Segment, newest_possible
from easydata.cache.log.segments import Segments, Unreadable
from easydata.errors import CorruptShardError, StorageError

__all__ = ["Upkeep", "is_idle"]

_FAN_IN = 4  # so many segments of one size become one
_FIRST_TIER = 1 << 20
_LARGEST = 1 << 30  # larger segments are merged on request only


class Upkeep:
    """Merges segments of a folder, one process at a time.

    Attributes:
        evicted: how many entries it removed because they were chosen.
    """

    def __init__(
        self, folder: CacheFolder, segments: Segments, merger: Merger, cleared: Callable[[], int]
    ) -> None:
        """
        Args:
            folder: where the segments lie.
            segments: those that are there now.
            merger: what does it.
            cleared: tells up to which stamp entries do not exist.
        """
        self.evicted = 0
        self._folder = folder
        self._segments = segments
        self._merger = merger
        self._cleared = cleared

    def tidy(self) -> None:
        """Seal segments that nobody appends to any more, and merge those of like size.

        Does nothing while another process is at it.

        Raises:
            StorageError: some are left as they were.
        """
        with locks.exclusive(self._folder.merging, wait=False) as taken:
            if taken:
                self._folder.sweep()
                for segment in filter(self._is_dead, self._segments()):
                    self._merge([segment])
                while sources := self._worth_merging():
                    self._merge(sources)

    def is_tidy(self) -> bool:
        """True if every segment is sealed, or grows."""
        return not any(map(is_idle_log, self._segments()))

    def compact(self) -> Outcome:
        """Merge all segments that nobody appends to into as few as possible.

        Raises:
            StorageError: nothing has changed.
        """
        return self._rewrite(lambda _: True)

    def expire(self) -> Outcome:
        """Remove entries whose time is over, also from the disk."""
        now = clock.now()
        return self._rewrite(lambda segment: bool((take_census([segment]).expires <= now).any()))

    def drop(self, choose: Choose) -> Outcome:
        """Compact, and leave out what `choose` chooses."""
        return self._rewrite(lambda _: True, choose)

    def _rewrite(self, wanted: Callable[[Segment], bool], choose: Choose | None = None) -> Outcome:
        with locks.exclusive(self._folder.merging, wait=True) as taken:
            if not taken:
                raise StorageError(
                    errno.ENOLCK,
                    f"{self._folder.path} cannot be compacted: its file system has no locks. "
                    "Copy it to a local disk.",
                )
            self._folder.sweep()
            idle = [segment for segment in self._segments() if is_idle(segment)]
            idle = [segment for segment in idle if wanted(segment)]
            unreadable = self._segments.unreadable()
            return self._merge(idle, unreadable, choose) if idle or unreadable else Outcome()

    def _merge(
        self,
        sources: Sequence[Segment],
        unreadable: Collection[Unreadable] = (),
        choose: Choose | None = None,
    ) -> Outcome:
        outcome = self._merger.merge(
            sources,
            [segment for segment in self._segments() if segment not in sources],
            unreadable,
            now=clock.now(),
            cleared=self._cleared(),
            choose=choose,
        )
        self.evicted += outcome.dropped
        return outcome

    def _is_dead(self, segment: Segment) -> bool:
        """True for a large entry that can never be found again: its space is wanted at once."""
        if not segment.is_large:
            return False
        bound = newest_possible(segment.name)
        if segment.kind.expires <= clock.now() or bound - 1 <= self._cleared():
            return True
        key_hash = int(segment.table.entries()[0][0])
        for other in self._segments():
            slot = other.table.find(key_hash)
            if slot is None or other is segment:
                continue
            if other.is_large and newest_possible(other.name) > bound:
                return True
            with contextlib.suppress(CorruptShardError, FileNotFoundError):
                if not other.is_large and other.locate(other.table.place(slot))[1].stamp >= bound:
                    return True
        return False

    def _worth_merging(self) -> list[Segment]:
        segments = self._segments()
        logs = [segment for segment in segments if is_idle_log(segment)]
        if logs:
            return logs
        tiers: dict[Any, list[Segment]] = {}
        for segment in segments:
            if not segment.is_large and segment.is_sealed and segment.blocks.num_bytes < _LARGEST:
                tier = max(segment.blocks.num_bytes // _FIRST_TIER, 1).bit_length() // 2
                tiers.setdefault((segment.codec.layout.columns, tier), []).append(segment)
        return next((tier for tier in tiers.values() if len(tier) >= _FAN_IN), [])


def is_idle(segment: Segment) -> bool:
    """True if nobody appends to a segment, now or later."""
    return segment.is_sealed or is_idle_log(segment)


def is_idle_log(segment: Segment) -> bool:
    """True if a growing segment has been left by its writer."""
    try:
        return not segment.is_sealed and not locks.is_locked(segment.path)
    except FileNotFoundError:
        return False
