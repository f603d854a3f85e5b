"""A sealed segment with its table, while it is written."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from easydata.cache.log import pieces
from easydata.cache.log.entry import Entry
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import SealedWriter, SegmentKind, segment_metadata
from easydata.cache.log.segment import ROW_BITS, Segment, units_of
from easydata.cache.log.table import HashTable
from easydata.format.codecs import Codec, ShardFormat

__all__ = ["Output", "large_output"]

_BATCH_ROWS = 1000


def large_output(
    folder: CacheFolder,
    layout: EntryLayout,
    entry: Entry,
    compression: Codec,
    shard_format: ShardFormat,
) -> Output:
    """A segment, to be finished, with one entry.

    Without compression it is one block, of which a map is the value. Otherwise it is compressed
    piece by piece. Neither takes memory for the whole.

    Args:
        folder: where to.
        layout: of its columns.
        entry: what to write.
        compression: of its bytes.
        shard_format: of the file.

    Raises:
        StorageError: it was not written.
    """
    is_mapped = compression.is_zero_copy and shard_format == "ipc"
    rows = [entry] if is_mapped else pieces.cut(layout, entry, pieces.PIECE_BYTES)
    kind = SegmentKind(compression, len(rows), entry.expires)
    output = Output(folder, entry.stamp + 1, layout, kind, shard_format)
    try:
        output.add_pieces(rows)
    except BaseException:  # also Ctrl-C: nothing may be left
        output.abandon()
        raise
    return output


class Output:
    """A sealed segment that is being written."""

    def __init__(
        self,
        folder: CacheFolder,
        stamp: int,
        layout: EntryLayout,
        kind: SegmentKind,
        shard_format: ShardFormat,
    ) -> None:
        """
        Args:
            folder: where to.
            stamp: no entry has it, nor a later one.
            layout: of the columns.
            kind: of the segment.
            shard_format: of the file.

        Raises:
            StorageError: the file cannot be written.
        """
        self._name = folder.new_name("seg", stamp)
        self._table = folder.table(self._name)
        self._codec = EntryCodec(layout, segment_metadata(kind))
        self._writer = SealedWriter(
            folder.path, self._name, self._codec, kind.compression, shard_format
        )
        self._is_mapped = kind.compression.is_zero_copy and shard_format == "ipc"
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._hashes = [np.empty(0, np.uint64)]
        self._places = [np.empty(0, np.uint64)]

    def add(self, entry: Entry, size: int) -> None:
        """Write an entry, together with those that come next."""
        if self._pending_bytes + size > pieces.PIECE_BYTES:
            self._write_pending()
        self._pending.append(entry)
        self._pending_bytes += size
        if len(self._pending) == _BATCH_ROWS:
            self._write_pending()

    def add_rows(self, segment: Segment, places: npt.NDArray[np.uint64]) -> None:
        """Write entries of a segment, one by one; uint64[n]: where in it they are."""
        for place in places.tolist():
            view, row = segment.locate(place)
            self.add(row.entry(view), row.size)

    def add_singles(self, segment: Segment, places: npt.NDArray[np.uint64]) -> None:
        """The same for entries that are messages of their own in a map: five times as fast."""
        for first in range(0, len(places), _BATCH_ROWS):
            some = places[first : first + _BATCH_ROWS]
            _, rows = segment.single_rows(units_of(some))
            if len(rows) == _BATCH_ROWS and rows.sizes.sum() <= pieces.PIECE_BYTES:
                self._write_pending()
                self.copy(memoryview(self._codec.encode_singles(rows)), rows.hashes)
            else:
                self.add_rows(segment, some)

    @property
    def num_bytes(self) -> int:
        """Size of what was written to the file so far."""
        return self._writer.num_bytes

    def copy(self, message: memoryview, hashes: npt.NDArray[np.uint64]) -> None:
        """Write a block as it is."""
        unit = self._writer.add(message)
        self._hashes.append(hashes)
        self._places.append(np.arange(len(hashes), dtype=np.uint64) + np.uint64(unit << ROW_BITS))

    def add_pieces(self, rows: Sequence[Entry]) -> None:
        """Write the only entry of the segment, as `cut` gave it."""
        units = [self._writer.add_entry(row) for row in rows]
        self._hashes.append(np.array([rows[0].key_hash], np.uint64))
        # The unit is 0 where the rows are joined, see `JoinedBlocks`.
        place = units[0] << ROW_BITS if self._is_mapped else 0
        self._places.append(np.array([place], np.uint64))

    def finish(self) -> None:
        """Let the segment appear; if that fails, `abandon` it.

        Raises:
            StorageError: it could not be written.
        """
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
