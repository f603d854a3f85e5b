"""Entries to the bytes of an Arrow message and back, without Arrow; `layout` has the rule."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.cache.log.framing import Bytes, seal
from easydata.cache.log.layout import CHECKSUM_BYTES, NUM_OWN_RUNS, EntryLayout, body_bytes
from easydata.cache.log.rows import LocatedRows, Row
from easydata.format.alignment import align_header, find_fields, message_header_bytes

__all__ = ["Entry", "EntryCodec"]

_I64 = struct.Struct("<q")
_TWO_I64 = struct.Struct("<qq")
_NUMBERS = {
    pa.int64(): "q",
    pa.float64(): "d",
    pa.uint8(): "B7x",
}


class Entry(NamedTuple):
    """A key, its value as its codec gives it, and what the cache records.

    Attributes:
        key: UTF-8.
        key_hash: XXH3-64 of `key`.
        stamp: nanoseconds since 1970; later entries of a key have greater ones.
        expires: nanoseconds since 1970, or `NEVER`.
        metadata: UTF-8; empty if there is none.
        recipe: UTF-8; how the value is made from its columns.
        data: for each column that has offsets its bytes, for each other column its number.
    """

    key: bytes
    key_hash: int
    stamp: int
    expires: int
    metadata: bytes
    recipe: bytes
    data: Sequence[Any]


class EntryCodec:
    """Writes and reads the messages of one layout. Safe to share between threads.

    Attributes:
        layout: the columns.
        schema_message: what a segment starts with; its size is a multiple of 64.
    """

    def __init__(self, layout: EntryLayout, metadata: dict[bytes, bytes] | None = None) -> None:
        """
        Args:
            layout: the columns.
            metadata: schema metadata of the segment.
        """
        self.layout = layout
        self.schema_message = align_header(
            memoryview(layout.schema.with_metadata(metadata or {}).serialize())
        )
        # Of a message with one row: it has every field that FlatBuffers leaves out when 0.
        message = memoryview(_one_row(layout.schema).serialize())
        header = align_header(message[: message_header_bytes(message)])
        self._header = header
        self._fields = find_fields(header)
        self._runs = [column for column in layout.columns if column.is_run]
        self._fixed_bytes = layout.fixed_bytes(1)
        self._fixed = struct.Struct(
            "<Qqq6i" + "".join("2i" if c.is_run else _NUMBERS[c.kind] for c in layout.columns)
        )
        # In a message with one row only few places of the header change.
        self._row_header = bytes(self._patched_header(1, [0] * (NUM_OWN_RUNS + len(self._runs))))
        self._own_slots, self._slots = self._find_slots()
        places = accumulate((2 if c.is_run else 1 for c in layout.columns), initial=9)
        # Where in the fixed part's values the number of each column is: its items, or itself.
        self._fixed_places = [
            (column, place + column.is_run)
            for column, place in zip(layout.columns, places, strict=False)
        ]

    @property
    def header_bytes(self) -> int:
        """Size of a message without its body."""
        return len(self._header)

    def encode_row(self, entry: Entry) -> bytearray:
        """The message of one entry; all bytes are copied."""
        # This is `layout` by hand: calls and lists would take most of the time.
        key, key_hash, stamp, expires, metadata, recipe, data = entry
        key_bytes, metadata_bytes, recipe_bytes = len(key), len(metadata), len(recipe)
        key_at = self._fixed_bytes
        metadata_at = key_at + (key_bytes + 7 & -8)
        recipe_at = metadata_at + (metadata_bytes + 7 & -8)
        end = recipe_at + (recipe_bytes + 7 & -8)
        fixed = [key_hash, stamp, expires, 0, key_bytes, 0, metadata_bytes, 0, recipe_bytes]
        runs = []
        for column, value in zip(self.layout.columns, data, strict=True):
            if column.is_run:
                piece = value.tobytes() if isinstance(value, np.ndarray) else value
                size = len(piece)
                start = end + 63 & -64
                end = start + (size + 7 & -8)
                fixed += (0, size // column.item_bytes)
                runs.append((start, size, piece))
            else:
                fixed.append(value)
        total_body = end + (CHECKSUM_BYTES + 63) & -64
        body = len(self._row_header)
        message = bytearray(body + total_body)
        message[:body] = self._row_header
        _I64.pack_into(message, self._fields.body_bytes, total_body)
        key_slot, metadata_slot, recipe_slot = self._own_slots
        _TWO_I64.pack_into(message, key_slot, key_at, key_bytes)
        _TWO_I64.pack_into(message, metadata_slot, metadata_at, metadata_bytes)
        _TWO_I64.pack_into(message, recipe_slot, recipe_at, recipe_bytes)
        self._fixed.pack_into(message, body, *fixed)
        at = body + key_at
        message[at : at + key_bytes] = key
        at = body + metadata_at
        message[at : at + metadata_bytes] = metadata
        at = body + recipe_at
        message[at : at + recipe_bytes] = recipe
        for (slot, child, item_bytes), (start, size, piece) in zip(self._slots, runs, strict=True):
            _TWO_I64.pack_into(message, slot, start, size)
            if child:
                _I64.pack_into(message, child, size // item_bytes)
            at = body + start
            message[at : at + size] = piece
        seal(message)
        return message

    def encode_rows(self, entries: Sequence[Entry]) -> bytearray:
        """The message of several entries, in order; all bytes are copied.

        Raises:
            OverflowError: more items in one column than int32 offsets can count.
        """
        rows = len(entries)
        keys, hashes, stamps, expires, metadata, recipes, data = zip(*entries, strict=True)
        runs: list[Sequence[Any]] = [keys, metadata, recipes]
        fixed: list[npt.NDArray[Any]] = [
            np.array(hashes, np.uint64),
            np.array(stamps, np.int64),
            np.array(expires, np.int64),
            *(_offsets([len(value) for value in run]) for run in runs),
        ]
        for column, values in zip(self.layout.columns, zip(*data, strict=True), strict=True):
            if column.is_run:
                fixed.append(_offsets([_size(value) // column.item_bytes for value in values]))
                runs.append(values)
            else:
                fixed.append(np.array(values, column.kind.to_pandas_dtype()))
        pieces = [b"".join(run) for run in runs]
        fixed_starts = self.layout.fixed_starts(rows)
        starts = self.layout.data_starts(fixed_starts[-1], [len(piece) for piece in pieces])
        message = self._patched_header(rows, [len(piece) for piece in pieces])
        body = len(message)
        message.extend(bytes(body_bytes(starts[-1])))
        for start, run in zip(fixed_starts, fixed, strict=False):
            message[body + start : body + start + run.nbytes] = run.data.cast("B")
        for start, piece in zip(starts, pieces, strict=False):
            message[body + start : body + start + len(piece)] = piece
        seal(message)
        return message

    def count_rows(self, view: Bytes, start: int) -> int:
        """Rows in the message at `start` of a segment."""
        rows: int = _I64.unpack_from(view, start + self._fields.rows)[0]
        return rows

    def locate_row(self, view: Bytes, start: int) -> Row:
        """The entry in the message of one row at `start` of a segment."""
        body = start + len(self._header)
        fixed = self._fixed.unpack_from(view, body)
        key_hash, stamp, expires, _, key_bytes, _, metadata_bytes, _, recipe_bytes = fixed[:9]
        key_at = body + self._fixed_bytes
        metadata_at = key_at + (key_bytes + 7 & -8)
        recipe_at = metadata_at + (metadata_bytes + 7 & -8)
        end = recipe_at + (recipe_bytes + 7 & -8)
        data: list[Any] = []
        for column, position in self._fixed_places:
            value = fixed[position]
            if column.is_run:
                size = value * column.item_bytes
                at = end + 63 & -64
                end = at + (size + 7 & -8)
                data.append((at, at + size))
            else:
                data.append(value)
        return Row(
            key_hash,
            stamp,
            expires,
            (key_at, key_at + key_bytes),
            (metadata_at, metadata_at + metadata_bytes),
            (recipe_at, recipe_at + recipe_bytes),
            data,
        )

    def locate_rows(self, view: Bytes, start: int) -> LocatedRows:
        """The entries in the message at `start` of a segment, as arrays; `view` is kept."""
        return LocatedRows(
            self.layout, view, start + len(self._header), self.count_rows(view, start)
        )

    def _find_slots(self) -> tuple[list[int], list[tuple[int, int, int]]]:
        """Positions in the header: of the buffers of key, metadata and recipe; and for each
        column with offsets of its buffer, of its child's length (or 0), and its item size.
        """
        fields = self._fields
        own = [fields.buffers + 16 * buffer for buffer in (8, 11, 14)]
        slots = []
        buffer, node = 15, 6
        for column in self.layout.columns:
            is_list = pa.types.is_list(column.kind)
            buffer += 4 if is_list else 3 if column.is_run else 2
            node += 2 if is_list else 1
            if column.is_run:
                child = fields.nodes + 16 * (node - 1) if is_list else 0
                slots.append((fields.buffers + 16 * (buffer - 1), child, column.item_bytes))
        return own, slots

    def _patched_header(self, rows: int, sizes: Sequence[int]) -> bytearray:
        """The header of a message with this many rows, and bytes in each run."""
        layout = self.layout
        fixed_starts = layout.fixed_starts(rows)
        starts = layout.data_starts(fixed_starts[-1], sizes)
        offset_bytes = 4 * (rows + 1)
        nodes: list[tuple[int, int]] = [(rows, 0)] * 3
        buffers: list[tuple[int, int]] = []
        for start in fixed_starts[:3]:
            buffers += [(0, 0), (start, 8 * rows)]
        run = 0
        for index, column in enumerate((None, None, None, *layout.columns), start=3):
            nodes.append((rows, 0))
            if column is not None and not column.is_run:
                buffers += [(0, 0), (fixed_starts[index], column.item_bytes * rows)]
                continue
            buffers += [(0, 0), (fixed_starts[index], offset_bytes)]
            if column is not None and pa.types.is_list(column.kind):
                nodes.append((sizes[run] // column.item_bytes, 0))
                buffers.append((0, 0))
            buffers.append((starts[run], sizes[run]))
            run += 1
        header = bytearray(self._header)
        fields = self._fields
        _I64.pack_into(header, fields.body_bytes, body_bytes(starts[-1]))
        _I64.pack_into(header, fields.rows, rows)
        for position, table in ((fields.nodes, nodes), (fields.buffers, buffers)):
            array = np.array(table, "<i8")
            header[position : position + array.nbytes] = array.tobytes()
        return header


def _one_row(schema: pa.Schema) -> pa.RecordBatch:
    """A batch of one row, whatever it holds."""
    return pa.RecordBatch.from_arrays([_one_value(item.type) for item in schema], schema=schema)


def _one_value(kind: pa.DataType) -> pa.Array:
    zeros = pa.py_buffer(bytes(16))
    if pa.types.is_list(kind):
        child = pa.Array.from_buffers(kind.value_type, 0, [None, zeros])
        return pa.Array.from_buffers(kind, 1, [None, zeros], children=[child])
    is_run = pa.types.is_string(kind) or pa.types.is_binary(kind)
    return pa.Array.from_buffers(kind, 1, [None, zeros, zeros] if is_run else [None, zeros])


def _size(value: Any) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else len(value)


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int32]:
    """int32[n + 1]: where each of n runs starts, then the end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{offsets[-1]} items in one column of a batch")
    return offsets.astype(np.int32)
