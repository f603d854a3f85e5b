"""From an Arrow record batch back to the bytes of a plain message; `layout` has the rule.

Blocks of sealed segments are compressed, by Arrow or Parquet. Once decoded they become plain
messages again, so that entries are found in them as in a segment that grows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.cache.log.framing import seal
from easydata.cache.log.layout import body_bytes
from easydata.cache.log.message import EntryCodec

__all__ = ["plain_message"]


def plain_message(codec: EntryCodec, batch: pa.RecordBatch) -> bytearray:
    """The message that `EntryCodec.encode_rows` makes of the same rows; all bytes are copied.

    Args:
        codec: of the segment.
        batch: one or more rows of the segment's schema, validated by Arrow. It may be a slice.

    Raises:
        ValueError: the batch has no rows, another schema or a null, as no segment has.
    """
    if not batch.num_rows:
        raise ValueError("a block without rows")
    if not batch.schema.equals(codec.layout.schema):
        raise ValueError("a block whose columns are not those of its segment")
    fixed: list[npt.NDArray[Any]] = []
    runs: list[npt.NDArray[np.uint8]] = []
    for array in batch.columns:
        if pa.types.is_list(array.type):
            offsets = _offsets(array)
            fixed.append(offsets - offsets[0])
            runs.append(_items(array.flatten()))
        elif pa.types.is_string(array.type) or pa.types.is_binary(array.type):
            offsets = _offsets(array)
            first, last = int(offsets[0]), int(offsets[-1])
            fixed.append(offsets - offsets[0])
            runs.append(_bytes(array.buffers()[2], first, last - first))
        else:
            fixed.append(_items(array))
    sizes = [len(run) for run in runs]
    fixed_starts = codec.layout.fixed_starts(batch.num_rows)
    starts = codec.layout.data_starts(fixed_starts[-1], sizes)
    message = codec.header(batch.num_rows, sizes)
    body = len(message)
    message.extend(bytes(body_bytes(starts[-1])))
    places = np.frombuffer(message, np.uint8)[body:]
    for start, piece in zip([*fixed_starts[:-1], *starts[:-1]], [*fixed, *runs], strict=True):
        places[start : start + piece.nbytes] = piece.view(np.uint8)
    seal(message)
    return message


def _items(array: pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of an array of numbers."""
    _refuse_nulls(array)
    width = array.type.bit_width // 8
    return _bytes(array.buffers()[1], array.offset * width, len(array) * width)


def _offsets(array: pa.Array) -> npt.NDArray[np.int32]:
    """int32[n + 1]: where each row's items start in the array's buffers, then the end."""
    _refuse_nulls(array)
    return np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, 4 * array.offset)


def _bytes(buffer: pa.Buffer, start: int, size: int) -> npt.NDArray[np.uint8]:
    # Where there are no items, Arrow may leave out the buffer.
    return np.frombuffer(buffer, np.uint8, size, start) if size else np.empty(0, np.uint8)


def _refuse_nulls(array: pa.Array) -> None:
    if array.null_count:
        raise ValueError("a block with nulls")
