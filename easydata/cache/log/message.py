"""Entries to the bytes of an Arrow message and back, without Arrow; `layout` has the rule."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import Bytes, seal
from easydata.cache.log.layout import CHECKSUM_BYTES, NUM_OWN_RUNS, EntryLayout, body_bytes
from easydata.cache.log.rows import LocatedRows, Row, SingleRows
from easydata.cache.log.single import RowCodec
from easydata.format.alignment import align_header, find_fields, message_header_bytes

__all__ = ["EntryCodec"]

_I64 = struct.Struct("<q")


class EntryCodec:
    """Writes and reads the messages of one layout. Safe to share between threads.

    Attributes:
        layout: the columns.
        schema_message: what a segment starts with, sealed; its size is a multiple of 64.
        header_bytes: size of a message without its body.
        rows_place: where in a message its number of rows stands.
        encode_row: the message of one entry; all bytes are copied.
        row_parts: the same in parts that are not copied, without the checksum at the end.
        locate_row: the entry in the message of one row at a position of a segment.
    """

    def __init__(self, layout: EntryLayout, metadata: dict[bytes, bytes] | None = None) -> None:
        """
        Args:
            layout: the columns.
            metadata: schema metadata of the segment.
        """
        self.layout = layout
        self.schema_message = _sealed(layout.schema.with_metadata(metadata or {}).serialize())
        # Of a message with one row: it has every field that FlatBuffers leaves out when 0.
        message = memoryview(_one_row(layout.schema).serialize())
        header = align_header(message[: message_header_bytes(message)])
        self._header = header
        self.header_bytes = len(header)
        self._fields = find_fields(header)
        self.rows_place = self._fields.rows
        num_runs = NUM_OWN_RUNS + sum(column.is_run for column in layout.columns)
        row_header = bytes(self.header(1, [0] * num_runs))
        single = RowCodec(layout, row_header, self._fields)
        self.encode_row: Callable[[Entry], bytes] = single.encode
        self.row_parts: Callable[[Entry], list[Any]] = single.parts
        self.locate_row: Callable[[Bytes, int], Row] = single.locate

    def header(self, rows: int, sizes: Sequence[int]) -> bytearray:
        """The header of a message.

        Args:
            rows: how many there are.
            sizes: bytes of all keys, all metadata, all recipes, then of each column with offsets.
        """
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

    def encode_rows(self, entries: Sequence[Entry]) -> bytearray:
        """The message of several entries, in order; all bytes are copied.

        Raises:
            OverflowError: more items in one column than int32 offsets can count.
        """
        keys, hashes, stamps, expires, metadata, recipes, data = zip(*entries, strict=True)
        times = [np.array(hashes, np.uint64)]
        times += [np.array(stamps, np.int64), np.array(expires, np.int64)]
        runs: list[Sequence[Any]] = [keys, metadata, recipes]
        numbers: list[npt.NDArray[Any] | None] = []
        for column, values in zip(self.layout.columns, zip(*data, strict=True), strict=True):
            if column.is_run:
                runs.append(values)
                numbers.append(None)
            else:
                numbers.append(np.array(values, column.kind.to_pandas_dtype()))
        return self._encode(times, runs, numbers)

    def encode_singles(self, singles: SingleRows) -> bytearray:
        """The message of several entries that are messages of their own, in order.

        Raises:
            OverflowError: as `encode_rows`.
        """
        times = [singles.hashes, singles.stamps, singles.expires]
        return self._encode(times, singles.runs(), singles.numbers)

    def _encode(
        self,
        times: Sequence[npt.NDArray[Any]],
        runs: Sequence[Sequence[Any]],
        numbers: Sequence[npt.NDArray[Any] | None],
    ) -> bytearray:
        rows = len(times[0])
        fixed = [*times, *(_offsets(list(map(len, run))) for run in runs[:NUM_OWN_RUNS])]
        following = iter(runs[NUM_OWN_RUNS:])
        for column, array in zip(self.layout.columns, numbers, strict=True):
            if array is None:
                sizes = [_size(value) // column.item_bytes for value in next(following)]
                fixed.append(_offsets(sizes))
            else:
                fixed.append(array)
        pieces = [b"".join(run) for run in runs]
        fixed_starts = self.layout.fixed_starts(rows)
        starts = self.layout.data_starts(fixed_starts[-1], [len(piece) for piece in pieces])
        message = self.header(rows, [len(piece) for piece in pieces])
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

    def message_bytes(self, view: Bytes, start: int) -> int:
        """Size of the message at `start` of a segment."""
        body: int = _I64.unpack_from(view, start + self._fields.body_bytes)[0]
        return self.header_bytes + body

    def locate_rows(self, view: Bytes, start: int) -> LocatedRows:
        """The entries in the message at `start` of a segment, as arrays; `view` is kept."""
        return LocatedRows(
            self.layout, view, start + len(self._header), self.count_rows(view, start)
        )


def _sealed(schema: pa.Buffer) -> bytes:
    """A message without a body, extended by its checksum."""
    message = bytearray(align_header(schema.to_pybytes() + bytes(CHECKSUM_BYTES)))
    seal(message)
    return bytes(message)


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
