"""A segment: an Arrow stream of entries that grows, and its table.

    NAME.arrow   the schema message, then messages; while it grows, zeros up to its size
    NAME.table   which place each key's hash leads to

The writer reserves size ahead (a hole, which costs nothing) so that maps need not be renewed for
every entry, writes a message, and then enters it into the table: that is when it exists. What a
killed writer left behind its last entry is in no table; what power loss took from the table is
found again by walking the messages and their checksums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from easydata._fs import storage_errors
from easydata.cache.log.framing import Bytes, is_intact, message_bytes
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.message import Entry, EntryCodec
from easydata.cache.log.rows import LocatedRows, Row
from easydata.cache.log.table import HashTable
from easydata.errors import CorruptShardError
from easydata.format.alignment import ALIGNMENT, message_header_bytes
from easydata.format.mapping import map_file

__all__ = ["Segment", "SegmentWriter", "walk"]

_ROW_BITS = 24
_MAX_ROWS = 1 << _ROW_BITS
_FIRST_BYTES = 1 << 20  # what a new segment reserves; doubled when it is used up
_KEPT_BATCHES = 4096


class Segment:
    """Reads a segment, which may be growing. Safe to share between threads.

    Attributes:
        name: file name without extension.
        codec: of its messages.
        table: what leads to its entries.
    """

    def __init__(self, folder: Path, name: str, table: HashTable | None = None) -> None:
        """Map the segment.

        Args:
            folder: where it lies.
            name: file name without extension.
            table: its table, if it is at hand.

        Raises:
            FileNotFoundError: it is not there (any more).
            CorruptShardError: the file does not start like a segment.
        """
        self.name = name
        self._path = folder / f"{name}.arrow"
        self.table = HashTable(folder / f"{name}.table") if table is None else table
        self._map()
        self.codec = _codec_of(self._path, self.view)
        self._batches: dict[int, LocatedRows] = {}

    def find(self, key: bytes, key_hash: int) -> Row | None:
        """Where the newest entry of this segment for a key lies in `view`, or None.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        slot = self.find_slot(key, key_hash)
        return None if slot is None else self.locate(self.table.place(slot))

    def find_slot(self, key: bytes, key_hash: int) -> int | None:
        """The slot of the table that leads to a key, or None."""
        table = self.table
        slot = table.find(key_hash)
        while slot is not None:
            row = self.locate(table.place(slot))
            if self.view[row.key[0] : row.key[1]] == key:
                return slot
            slot = table.find(key_hash, after=slot)
        return None

    def locate(self, place: int) -> Row:
        """Where an entry lies in `view`; the message that holds it is checked at first touch.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        start = (place >> _ROW_BITS) * ALIGNMENT
        unit = start // ALIGNMENT
        if unit >= len(self._checked) or not self._checked[unit]:
            self._check(start)
        if self.codec.count_rows(self.view, start) == 1:
            return self.codec.locate_row(self.view, start)
        rows = self._batches.get(start)
        if rows is None:
            rows = self.codec.locate_rows(self.view, start)
            if len(self._batches) >= _KEPT_BATCHES:
                self._batches.clear()
            self._batches[start] = rows
        index = place & (_MAX_ROWS - 1)
        if index >= len(rows):
            raise self._damage(start)
        return rows.row(index)

    def _check(self, start: int) -> None:
        size = message_bytes(self.view, start)
        if size is None:
            self._map()  # it may have grown
            size = message_bytes(self.view, start)
        if size is None or not is_intact(self.view, start, size):
            raise self._damage(start)
        self._checked[start // ALIGNMENT] = 1

    def _map(self) -> None:
        # Views of the old map stay valid as long as somebody holds them.
        self.view = memoryview(map_file(self._path))
        # Writers only append: what was checked in the old map is the same in the new one.
        checked = bytearray(len(self.view) // ALIGNMENT + 1)
        known = getattr(self, "_checked", b"")
        checked[: len(known)] = known
        self._checked = checked

    def _damage(self, start: int) -> CorruptShardError:
        return CorruptShardError(f"{self._path} is damaged in the entry at byte {start}.")


class SegmentWriter:
    """Makes a segment and appends to it. One owner, one thread at a time.

    Attributes:
        segment: reads what was written.
        num_bytes: size of what was written.
    """

    def __init__(self, folder: Path, name: str, codec: EntryCodec, *, capacity: int) -> None:
        """Make the files.

        Args:
            folder: where to.
            name: file name without extension; no such files may exist.
            codec: of the entries.
            capacity: how many entries there is room for in the table, about.

        Raises:
            StorageError: they cannot be written.
        """
        path = folder / f"{name}.arrow"
        self._codec = codec
        with storage_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags, 0o666)
        self._path = path
        self._reserved = 0
        self.num_bytes = 0
        table = HashTable.create(folder / f"{name}.table", capacity)
        self._append(codec.schema_message)
        self.segment = Segment(folder, name, table)

    @property
    def is_full(self) -> bool:
        """True if the next entries belong into another segment."""
        return self.segment.table.is_full

    def put(self, entry: Entry) -> None:
        """Append an entry; readers see it when this returns.

        Raises:
            StorageError: it could not be written, and does not exist.
        """
        start = self._append(self._codec.encode_row(entry))
        self._enter(entry, start, 0)

    def put_many(self, entries: Sequence[Entry]) -> None:
        """Append several entries as one batch.

        Raises:
            StorageError: they could not be written, and none of them exists.
        """
        for first in range(0, len(entries), _MAX_ROWS):
            some = entries[first : first + _MAX_ROWS]
            start = self._append(self._codec.encode_rows(some))
            for row, entry in enumerate(some):
                self._enter(entry, start, row)

    def flush(self) -> None:
        """Wait until the entries are on the disk."""
        with storage_errors(self._path, "flush"):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Give back what was reserved and not used, and the descriptor.

        Readers that have mapped the file touch nothing behind the last entry.
        """
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _enter(self, entry: Entry, start: int, row: int) -> None:
        place = (start // ALIGNMENT) << _ROW_BITS | row
        table = self.segment.table
        slot = self.segment.find_slot(entry.key, entry.key_hash)
        if slot is None:
            table.add(entry.key_hash, place)
        else:
            table.replace(slot, place)

    def _append(self, message: Bytes) -> int:
        start, end = self.num_bytes, self.num_bytes + len(message)
        with storage_errors(self._path):
            if end > self._reserved:
                self._reserved = max(2 * self._reserved, _FIRST_BYTES, 1 << (end - 1).bit_length())
                os.ftruncate(self._descriptor, self._reserved)
            view = memoryview(message)
            written = 0
            while written < len(view):  # a disk that fills up takes a part
                written += os.pwrite(self._descriptor, view[written:], start + written)
        self.num_bytes = end
        return start


def walk(view: Bytes) -> Iterator[tuple[int, int]]:
    """Start and size of every whole message of a segment after its schema.

    Whatever is not a message is passed over, 64 bytes at a time: one damaged message loses no
    other.
    """
    start = message_header_bytes(memoryview(view)[:8])
    while start < len(view):
        size = message_bytes(view, start)
        if size is not None and is_intact(view, start, size):
            yield start, size
            start += size
        else:
            start = _next_start(view, start + ALIGNMENT)


def _next_start(view: Bytes, start: int) -> int:
    """The first multiple of 64 from `start` on where a message may begin, or the end."""
    usable = (len(view) - start) // ALIGNMENT
    if usable <= 0:
        return len(view)
    words = np.frombuffer(view, "<u4", usable * (ALIGNMENT // 4), start)[:: ALIGNMENT // 4]
    found = np.flatnonzero(words == 0xFFFFFFFF)
    return start + int(found[0]) * ALIGNMENT if len(found) else len(view)


def _codec_of(path: Path, view: memoryview) -> EntryCodec:
    """The codec of the segment that starts with this schema message."""
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(view))
        return EntryCodec(EntryLayout.from_schema(schema), schema.metadata)
    except (pa.ArrowInvalid, ValueError) as error:
        raise CorruptShardError(f"{path} is no segment of a cache: {error}") from error
