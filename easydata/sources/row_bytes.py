"""Where the content of each row lies in the buffers of an Arrow column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.sources.marks import record_marks

__all__ = ["ByteRuns", "byte_runs", "runs_marks"]

_MIX = np.uint64(0x9E3779B97F4A7C15)

Places = npt.NDArray[np.int64]


class ByteRuns(NamedTuple):
    """A run of bytes for each row, one after the other in a buffer.

    Attributes:
        data: the buffer.
        starts: int64[rows], first byte of each run.
        stops: int64[rows], one past its last byte.
    """

    data: pa.Buffer
    starts: Places
    stops: Places


def byte_runs(column: pa.Array) -> Iterator[ByteRuns]:
    """The text, bytes, numbers and times in each row of a column, at any depth of it.

    Truth values, which are bits, are left out, and so are types that nobody nests text in.
    """
    starts = np.arange(len(column), dtype=np.int64)
    stops = starts + 1
    if column.null_count:
        # Arrow allows bytes behind a null; they are no content.
        stops = np.where(column.is_valid().to_numpy(zero_copy_only=False), stops, starts)
    yield from _runs(column, starts, stops)


def runs_marks(runs: Sequence[ByteRuns], num_rows: int) -> npt.NDArray[np.uint64]:
    """uint64[num_rows]: a hash of each row, a function of the bytes of its runs alone."""
    marks = np.zeros(num_rows, np.uint64)
    for data, starts, stops in runs:
        if num_rows:
            base, end = int(starts[0]), int(stops[-1])
            found = record_marks(memoryview(data)[base:end], starts - base, stops - base)
            marks = marks * _MIX ^ found
    return marks


def _runs(array: pa.Array, starts: Places, stops: Places) -> Iterator[ByteRuns]:
    """The runs of elements `starts` to `stops` of `array`."""
    kind = array.type
    types = pa.types
    buffers = array.buffers()
    if types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _runs(array.field(index), starts, stops)
    elif types.is_fixed_size_list(kind):
        size, first = kind.list_size, array.offset
        yield from _runs(array.values, (starts + first) * size, (stops + first) * size)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        width = np.int64 if types.is_large_list(kind) else np.int32
        ends = _offsets(array, width)
        yield from _runs(array.values, ends[starts], ends[stops])
    elif _is_bytes(kind):
        is_large = types.is_large_string(kind) or types.is_large_binary(kind)
        ends = _offsets(array, np.int64 if is_large else np.int32)
        yield ByteRuns(buffers[2] or pa.py_buffer(b""), ends[starts], ends[stops])
    elif types.is_primitive(kind) or types.is_fixed_size_binary(kind) or types.is_decimal(kind):
        width, odd = divmod(kind.bit_width, 8)
        if not odd:
            first = array.offset
            yield ByteRuns(buffers[1], (starts + first) * width, (stops + first) * width)


def _offsets(array: pa.Array, width: type[np.int32 | np.int64]) -> Places:
    """int64[len(array) + 1]: where elements begin, and where the last one ends."""
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array) + 1, np.int64)
    item_bytes = np.dtype(width).itemsize
    found = np.frombuffer(buffer, width, len(array) + 1, item_bytes * array.offset)
    return found.astype(np.int64, copy=False)


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )
