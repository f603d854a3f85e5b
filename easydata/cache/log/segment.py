"""A segment: blocks of entries, and the table that leads to them.

    NAME.arrow    an Arrow stream of entries (or NAME.parquet, once it is sealed)
    NAME.table    which place each key's hash leads to

A place is `unit << 24 | row`: which block, and which row of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from easydata.cache.log.blocks import Blocks
from easydata.cache.log.framing import message_bytes
from easydata.cache.log.mapped import MappedBlocks
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.rows import LocatedRows, Row, SingleRows
from easydata.cache.log.sealed import SegmentKind, segment_kind
from easydata.cache.log.table import HashTable
from easydata.errors import CorruptShardError
from easydata.format.alignment import ALIGNMENT, message_header_bytes
from easydata.format.stream import decode_schema

__all__ = ["MAX_ROWS", "ROW_BITS", "Hit", "Segment", "newest_possible", "units_of"]

ROW_BITS = 24
MAX_ROWS = 1 << ROW_BITS
_KEPT_BATCHES = 4096
_CLOCK_TICK = 20_000_000  # nanoseconds that the times of files may lag behind


def newest_possible(name: str) -> int:
    """A stamp that no entry of a segment has, nor a later one: sealed ones bear it in the name."""
    return int(name.split("-")[1], 16) if name.startswith("seg-") else 2**63 - 1


def units_of(places: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """int64[n]: the units of some places."""
    return (places >> np.uint64(ROW_BITS)).astype(np.int64)


class Hit(NamedTuple):
    """An entry that was found.

    Attributes:
        segment: where.
        slot: of its table.
        view: what the positions in `row` refer to; holding it keeps the bytes.
        row: where its parts lie.
    """

    segment: Segment
    slot: int
    view: memoryview
    row: Row


class Segment:
    """Finds entries. Safe to share between threads.

    Attributes:
        name: file name without extension.
        path: of the file with the entries.
        blocks: what holds the entries.
        codec: of the entries.
        table: what leads to them.
    """

    def __init__(self, name: str, path: Path, blocks: Blocks, table: HashTable) -> None:
        self.name = name
        self.path = path
        self.blocks = blocks
        self.codec: EntryCodec = blocks.codec
        self.table = table
        self._batches: dict[int, tuple[memoryview, LocatedRows]] = {}

    def find(self, key: bytes, key_hash: int) -> Hit | None:
        """The newest entry of this segment for a key, or None.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        table = self.table
        slot = table.find(key_hash)
        while slot is not None:
            view, row = self.locate(table.place(slot))
            start, stop = row.key
            if view[start:stop] == key or (start == stop and row.is_tombstone):
                return _new_hit(Hit, (self, slot, view, row))
            slot = table.find(key_hash, after=slot)
        return None

    def locate(self, place: int) -> tuple[memoryview, Row]:
        """A view, and where an entry lies in it.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        unit = place >> ROW_BITS
        batch = self._batches.get(unit)
        if batch is None:
            view, start = self.blocks.block(unit)
            if self.codec.count_rows(view, start) == 1:
                return view, self.codec.locate_row(view, start)
            batch = self.rows(unit)
        view, rows = batch
        index = place & (MAX_ROWS - 1)
        if index >= len(rows):
            raise CorruptShardError(f"{self.path} has no row {index} in block {unit}.")
        return view, rows.row(index)

    def rows(self, unit: int) -> tuple[memoryview, LocatedRows]:
        """A view, and all entries of a block.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        found = self._batches.get(unit)
        if found is None:
            view, start = self.blocks.block(unit)
            found = view, self.codec.locate_rows(view, start)
            # What is decoded must be free to leave memory; what is mapped costs none.
            if self.blocks.is_mapped:
                if len(self._batches) >= _KEPT_BATCHES:
                    self._batches.clear()
                self._batches[unit] = found
        return found

    def single_rows(self, units: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], SingleRows]:
        """bool[n]: which of some blocks lie in a map and have one row; and these rows.

        Args:
            units: int64[n], of blocks that are whole.
        """
        codec, starts = self.codec, units * ALIGNMENT
        are = np.zeros(len(units), np.bool_)
        view = memoryview(b"")
        if isinstance(self.blocks, MappedBlocks):
            view = self.blocks.view
            words = np.frombuffer(view, "<i8", len(view) // 8)
            are = words[(starts + codec.rows_place) // 8] == 1
        return are, SingleRows(codec.layout, codec.header_bytes, view, starts[are])

    @property
    def is_sealed(self) -> bool:
        """True if nothing will be appended any more."""
        return self.name.startswith("seg-")

    @property
    def is_large(self) -> bool:
        """True if one large entry has it alone; such a segment is not merged with others."""
        return self.kind.pieces > 0

    @functools.cached_property
    def kind(self) -> SegmentKind:
        """What its schema says of it."""
        return segment_kind(decode_schema(self.codec.schema_message))

    def units(self) -> Iterator[int]:
        """Every block that has entries and whose bytes are those that were written, in order."""
        # The table's blocks, not those that can be found by looking for messages: the bytes of a
        # damaged value may look like some. Behind them may be what it lost with the power.
        _, places = self.table.entries()
        last = 0
        for unit in np.unique(units_of(places)).tolist():
            last = unit
            try:  # `suppress` takes longer than looking
                self.blocks.block(unit)
            except CorruptShardError:
                continue
            yield unit
        if not self.is_sealed:
            behind = self._behind(last)
            yield from () if behind is None else self.blocks.units(behind)

    def _behind(self, unit: int) -> int | None:
        """The unit behind a block of a growing segment, whole or damaged; None if it cannot be
        told. What looks like a block inside of one is a value.
        """
        assert isinstance(self.blocks, MappedBlocks)
        view, start = self.blocks.view, unit * ALIGNMENT
        size = message_bytes(view, start) if unit else message_header_bytes(view[:8])
        return None if size is None or start + size > len(view) else (start + size) // ALIGNMENT

    def bound(self, unit: int) -> int:
        """A stamp that no entry of a damaged block has, nor a later one."""
        if self.is_sealed:
            return newest_possible(self.name)
        # A growing segment is in the order of stamps, and its last one not younger than the file.
        behind = self._behind(unit)
        for later in () if behind is None else self.blocks.units(behind):
            view, start = self.blocks.block(later)
            return int(self.codec.locate_rows(view, start).stamps[0])
        try:
            return self.path.stat().st_mtime_ns + _CLOCK_TICK
        except FileNotFoundError:
            return newest_possible(self.name)


_new_hit = tuple.__new__  # the constructor of a NamedTuple takes twice as long
