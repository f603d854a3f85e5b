"""The growing segment of one process.

The writer reserves size ahead (a hole, which costs nothing) so that maps need not be renewed for
every entry, writes a message, and then enters it into the table: that is when it exists. What a
killed writer left behind its last entry is in no table; what power loss took from the table is
found again by walking the messages and their checksums.

As long as the writer lives it holds a lock on the file. A fork does not end that: the child
closes its descriptor, and the lock belongs to the file as the parent opened it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from easydata._fs import storage_errors, temporary_path
from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import Bytes
from easydata.cache.log.locks import lock, unlock
from easydata.cache.log.mapped import MappedBlocks
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.segment import MAX_ROWS, ROW_BITS, Segment
from easydata.cache.log.table import HashTable
from easydata.errors import CorruptShardError
from easydata.format.alignment import ALIGNMENT

__all__ = ["SegmentWriter"]

_FIRST_BYTES = 1 << 20  # what a new segment reserves; doubled when it is used up


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
        self._path, self._descriptor = _create(path)
        self._reserved = 0
        self.num_bytes = 0
        try:
            self._append(codec.schema_message)
            table = HashTable.create(folder / f"{name}.table", capacity)
            # Whoever sees the segment finds its schema and its table.
            with storage_errors(path):
                self._path.rename(path)
        except BaseException:  # nobody has seen it: leave nothing
            with contextlib.suppress(OSError):
                self._path.unlink()
            self.close()
            raise
        self._path = path
        self.segment = Segment(name, path, MappedBlocks(path, codec), table)

    def has_room(self, entries: int) -> bool:
        """True if so many more entries leave the table quick to look into."""
        return self.segment.table.has_room(entries)

    def put(self, entries: Sequence[Entry]) -> None:
        """Append entries as one batch; readers see them when this returns.

        Raises:
            StorageError: they could not be written, and none of them exists; of more than a
                batch can hold some may.
        """
        if len(entries) == 1:
            start = self._append(self._codec.encode_row(entries[0]))
            self._enter(entries[0], start // ALIGNMENT << ROW_BITS)
            return
        try:
            if len(entries) > MAX_ROWS:
                raise OverflowError
            message = self._codec.encode_rows(entries)
        except OverflowError:  # more than a batch can hold
            half = len(entries) // 2
            self.put(entries[:half])
            self.put(entries[half:])
            return
        place = self._append(message) // ALIGNMENT << ROW_BITS
        for row, entry in enumerate(entries):
            self._enter(entry, place | row)

    def flush(self) -> None:
        """Wait until the entries are on the disk."""
        with storage_errors(self._path, "flush"):
            os.fsync(self._descriptor)
            self.segment.table.flush()

    def close(self) -> None:
        """Give back the descriptor, and with it the lock."""
        unlock(self._descriptor)
        self._descriptor = -1

    def _enter(self, entry: Entry, place: int) -> None:
        table = self.segment.table
        if not table.add_new(entry.key_hash, place):
            try:
                hit = self.segment.find(entry.key, entry.key_hash)
                slot = None if hit is None else hit.slot
            except CorruptShardError:
                slot = table.find(entry.key_hash)
            if slot is None:  # another key of the same hash
                table.add(entry.key_hash, place)
            else:
                table.replace(slot, place)

    def _append(self, message: Bytes) -> int:
        start, end = self.num_bytes, self.num_bytes + len(message)
        try:
            if end > self._reserved:
                self._reserved = max(2 * self._reserved, _FIRST_BYTES, 1 << (end - 1).bit_length())
                os.ftruncate(self._descriptor, self._reserved)
            written = os.pwrite(self._descriptor, message, start)
            if written < len(message):  # a disk that fills up takes a part
                view = memoryview(message)
                while written < len(view):
                    written += os.pwrite(self._descriptor, view[written:], start + written)
        except OSError as error:
            with storage_errors(self._path):
                raise error
        self.num_bytes = end
        return start


def _create(path: Path) -> tuple[Path, int]:
    """A new file under a temporary name, locked; its path and descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with storage_errors(path):
        while True:
            temporary = temporary_path(path)
            descriptor = os.open(temporary, flags, 0o666)
            lock(descriptor)
            # Before it was locked somebody may have taken it for litter.
            if temporary.exists():
                return temporary, descriptor
            unlock(descriptor)
