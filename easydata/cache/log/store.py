"""The log of a cache folder: many segments, of which each process appends to its own.

What was written last for a key is the entry with the greatest stamp in all segments. Deleting is
writing, too: a tombstone. Readers look into the tables of all segments, those that other
processes append to included, so that there is nothing to be told and nothing to be late.

Each set of columns has segments of its own, so that a segment is one Arrow stream.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from easydata._fs import sync_directory
from easydata.cache.clock import deadline
from easydata.cache.log import locks
from easydata.cache.log.census import take_census
from easydata.cache.log.control import Control
from easydata.cache.log.decoded import DecodedBlocks
from easydata.cache.log.entry import Entry
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.growing import Group, Growing
from easydata.cache.log.layout import NEVER, ColumnKinds, EntryLayout
from easydata.cache.log.merge import Merger
from easydata.cache.log.output import large_output
from easydata.cache.log.segment import ROW_BITS, Hit, Segment, newest_possible
from easydata.cache.log.segments import Segments
from easydata.cache.log.upkeep import Upkeep, is_idle
from easydata.errors import CorruptShardError, StorageError
from easydata.format.codecs import Codec, ShardFormat

__all__ = ["Item", "LogStore", "Written"]

Item = tuple[bytes, int, bytes, Sequence[Any]]  # key, its hash, recipe, data; see `Entry`
Written = tuple[int, int]  # stamp and expiry, nanoseconds since 1970


class LogStore:
    """Finds and appends entries. Safe to share between threads, and to use after a fork.

    Attributes:
        folder: where the segments lie.
        control: what all processes share.
        segments: those that are there now.
        corrupt: how many damaged entries this object met.
    """

    def __init__(
        self,
        folder: CacheFolder,
        *,
        readonly: bool,
        compression: Codec,
        shard_format: ShardFormat,
        segment_bytes: int,
        decoded_bytes: int,
        check: bool,
    ) -> None:
        """
        Args:
            folder: where the segments lie.
            readonly: never write.
            compression: of sealed segments.
            shard_format: of sealed segments.
            segment_bytes: when the growing segments of this object are larger, they are sealed.
            decoded_bytes: memory for decoded blocks.
            check: compare checksums.

        Raises:
            StorageError: the folder cannot be used.
        """
        self.folder = folder
        self.control = Control(folder.control, readonly=readonly)
        self.corrupt = 0
        self.decoded = DecodedBlocks(decoded_bytes)
        self.segments = Segments(folder, self.control, self.decoded, check=check)
        self._compression = compression
        self._format: ShardFormat = shard_format
        merger = Merger(folder, self.control, compression, shard_format)
        self._upkeep = Upkeep(folder, self.segments, merger, lambda: self.cleared)
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._growing = Growing(folder, self.control, self.segments, segment_bytes)
        self._large_bytes = 0  # written since the last seal
        self._warned = False
        self._lost: dict[tuple[str, int], int] = {}
        self._cleared = folder.read_cleared()
        # Whoever forgets to close must not keep locks until the process ends.
        weakref.finalize(self, self._growing.close)
        _stores.add(self)
        if not readonly:
            self.control.clear(self._cleared)
            if not self.control.last:  # the file is new, or was lost
                self._find_last()
            if not self._upkeep.is_tidy():
                self.tidy()

    def _find_last(self) -> None:
        segments = self.segments()
        growing = take_census([segment for segment in segments if not segment.is_sealed])
        sealed = [newest_possible(segment.name) for segment in segments if segment.is_sealed]
        self.control.wrote(max([self.cleared, *sealed, int(growing.stamps.max(initial=1))]))

    # Reading

    def find(self, key: bytes, key_hash: int) -> Hit | None:
        """The newest entry of a key, expired or not; None if it has none or was deleted."""
        best: Hit | None = None
        least = 0
        for segment in self.segments():
            try:
                hit = segment.find(key, key_hash)
            except CorruptShardError:
                # What is lost may have been newer than what can be found.
                least = max(least, self._bound_of_lost(segment, key_hash))
                continue
            except FileNotFoundError:  # merged, and so there are other segments now
                self.segments.look_again()
                return self.find(key, key_hash)
            if hit is not None and (best is None or hit.row.stamp > best.row.stamp):
                best = hit
        if best is None:
            return None
        for lost in self.segments.unreadable():
            if lost.table is not None and lost.table.find(key_hash) is not None:
                least = max(least, lost.newest_possible)
        stamp = best.row.stamp
        if stamp < least or stamp <= self.cleared or best.row.is_tombstone:
            return None
        return best

    @property
    def evicted(self) -> int:
        """How many entries this object removed because they were chosen."""
        return self._upkeep.evicted

    @property
    def cleared(self) -> int:
        """Entries with this stamp or an older one do not exist."""
        return max(self.control.cleared, self._cleared)

    def _bound_of_lost(self, segment: Segment, key_hash: int) -> int:
        """A stamp that a damaged entry did not reach; it is counted once."""
        known = self._lost.get((segment.name, key_hash))
        if known is None:
            self.corrupt += 1
            slot = segment.table.find(key_hash)
            assert slot is not None  # it led to the damage
            known = segment.bound(segment.table.place(slot) >> ROW_BITS)
            self._lost[segment.name, key_hash] = known
        return known

    # Writing

    def group(self, columns: ColumnKinds) -> Group | None:
        """The growing segments for these columns; None if there are too many kinds already.

        There is always room for values without columns of their own.
        """
        with self._lock:
            return self._growing.group(columns)

    def append(
        self, group: Group, items: Sequence[Item], metadata: bytes, expiry_seconds: float | None
    ) -> Written:
        """Append entries as one batch.

        Args:
            group: for their columns.
            items: entries of different keys.
            metadata: of all of them.
            expiry_seconds: how long all of them may be used; None for ever.

        Raises:
            StorageError: none was written.
        """
        with self._lock:
            writer = group.writer
            if writer is None or not writer.has_room(len(items)):
                if writer is not None:
                    self._growing.end(group)
                    self.tidy()
                writer = self._growing.begin(group, len(items))
            stamp = self.control.next_stamp()
            expires = deadline(stamp, expiry_seconds)
            before = writer.num_bytes
            writer.put(
                [
                    _new_entry(Entry, (key, key_hash, stamp, expires, metadata, recipe, data))
                    for key, key_hash, recipe, data in items
                ]
            )
            self._growing.num_bytes += writer.num_bytes - before
            self.control.wrote(stamp)
        return stamp, expires

    def append_large(
        self, columns: ColumnKinds, item: Item, metadata: bytes, expiry_seconds: float | None
    ) -> Written:
        """Write an entry to a segment of its own; for the arguments see `append`.

        Raises:
            StorageError: it was not written.
        """
        with self._lock:
            stamp = self.control.next_stamp()
            self.control.wrote(stamp)  # nobody else shall have it
        expires = deadline(stamp, expiry_seconds)
        key, key_hash, recipe, data = item
        entry = Entry(key, key_hash, stamp, expires, metadata, recipe, data)
        output = large_output(
            self.folder, EntryLayout(columns), entry, self._compression, self._format
        )
        try:
            output.finish()
        except BaseException:  # also Ctrl-C: nothing may be left
            output.abandon()
            raise
        with self._lock:
            self.control.change_segments()
            # Again, for those who have looked meanwhile.
            self.control.wrote(self.control.next_stamp())
            self._large_bytes += output.num_bytes
            if self._have_large([key_hash], older_than=stamp):
                self.tidy()
        return stamp, expires

    def remove(self, keys: Sequence[tuple[bytes, int]]) -> None:
        """Delete keys, given with their hashes; those that are not there, too.

        Raises:
            StorageError: none was deleted.
        """
        group = self.group(())
        if keys and group is not None:
            self.append(group, [(key, key_hash, b"", ()) for key, key_hash in keys], b"", None)
            if self._have_large([key_hash for _, key_hash in keys]):
                self.tidy()  # their space is wanted at once

    def clear(self) -> None:
        """Delete everything.

        Raises:
            StorageError: nothing has changed.
        """
        with self._lock, locks.exclusive(self.folder.merging, wait=True):
            stamp = self.control.next_stamp()
            self.folder.write_cleared(stamp)
            self.control.clear(stamp)
            self._end_growing()
            self.folder.remove_damaged()
            gone = [segment.path for segment in self.segments() if is_idle(segment)]
            gone += [lost.path for lost in self.segments.unreadable()]
            self.folder.retire(gone)
            self.control.change_segments()

    def flush(self) -> None:
        """Let everything that was put survive a power failure."""
        with self._lock:
            for writer in self._growing.writers():
                writer.flush()
            sync_directory(self.folder.path)

    def close(self) -> None:
        """Seal what grew. The store can be used on; it then begins another segment.

        If that fails, nothing is lost; one warning.
        """
        if self._growing.writers():
            self.seal()

    def is_overgrown(self) -> bool:
        """True if it is time to seal."""
        return self._growing.num_bytes + self._large_bytes > self._segment_bytes

    def _end_growing(self) -> None:
        self._growing.close()
        self._large_bytes = 0

    def tidy(self) -> None:
        """Seal and merge what is worth it. If that fails, nothing is lost; one warning."""
        try:
            self._upkeep.tidy()
        except StorageError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"What was put is safe, but takes more space than it should: {error}",
                    RuntimeWarning,
                    stacklevel=5,
                )

    def _have_large(self, hashes: Sequence[int], older_than: int = NEVER) -> bool:
        """True if one of these keys has a large entry that was written before."""
        large = [segment for segment in self.segments() if segment.is_large]
        return any(
            segment.table.find(key_hash) is not None and newest_possible(segment.name) <= older_than
            for segment in large
            for key_hash in hashes
        )

    def seal(self) -> None:
        """Seal what this object has appended. If that fails, nothing is lost; one warning."""
        with self._lock:
            self._end_growing()
            self.tidy()

    @contextlib.contextmanager
    def upkeep(self) -> Iterator[Upkeep]:
        """What compacts the folder, while this object does nothing else.

        Its growing segments end here, so that they take part.
        """
        with self._lock:
            self._end_growing()
            yield self._upkeep

    def after_fork(self) -> None:
        """In the child: the growing segments are the parent's, and nobody holds the lock."""
        self._lock = threading.RLock()
        self._end_growing()
        self._growing.after_fork()
        self.control.after_fork()
        self.segments.after_fork()


_new_entry = tuple.__new__  # the constructor of a NamedTuple takes twice as long
_stores: weakref.WeakSet[LogStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
