"""The one low-level trick of the format: IPC messages whose buffers start at multiples of 64.

pyarrow aligns the buffers of a record batch to 8 bytes. A memory map then hands out addresses
that JAX and vector units cannot use without copying. Arrow's format itself allows any multiple
of 8, so a serialized message can be laid out again:

* the message's header is padded with zeros to a multiple of 64 bytes;
* each buffer of the body moves to the next multiple of 64;
* the buffer table in the header, a vector of fixed-size (offset, length) pairs, and the
  `bodyLength` field are patched in place.

No header changes its size or its structure, so nothing has to be understood beyond the path to
those fields: a FlatBuffers table starts with a signed offset back to its vtable, whose
16-bit entries say where each field lies (0: absent).

The header's layout is that of `Message.fbs` and `Schema.fbs` of the Arrow columnar format,
version 5: Message {0: version, 1: header_type, 2: header, 3: bodyLength, 4: custom_metadata},
RecordBatch {0: length, 1: nodes, 2: buffers, 3: compression, 4: variadicBufferCounts}.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

__all__ = [
    "ALIGNMENT",
    "HeaderFields",
    "align_header",
    "align_record_batch",
    "find_fields",
    "message_header_bytes",
]

ALIGNMENT = 64
_PREFIX_BYTES = 8  # continuation mark 0xFFFFFFFF, then the header's size
_I32 = struct.Struct("<i")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")
_ZEROS = bytes(ALIGNMENT)


def _aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def message_header_bytes(message: bytes | memoryview) -> int:
    """Size of the header that a message starts with; its body comes next."""
    size: int = _I32.unpack_from(message, 4)[0]
    return _PREFIX_BYTES + size


def align_header(message: bytes | memoryview) -> bytes:
    """A message without a body (a schema), padded to a multiple of 64 bytes."""
    header = bytearray(message)
    header.extend(bytes(_aligned(len(header)) - len(header)))
    _I32.pack_into(header, 4, len(header) - _PREFIX_BYTES)
    return bytes(header)


def align_record_batch(message: memoryview) -> list[bytes | memoryview]:
    """A record batch message laid out again, as pieces to be written one after another.

    Args:
        message: the bytes of `RecordBatch.serialize()`. Pieces of the result are views of it.

    Returns:
        Pieces whose total size is a multiple of 64. If the first one is written at a multiple
        of 64 in a file, so is every buffer.
    """
    header_end = message_header_bytes(message)
    header = bytearray(message[:header_end])
    header.extend(bytes(_aligned(header_end) - header_end))
    _I32.pack_into(header, 4, len(header) - _PREFIX_BYTES)

    fields = find_fields(header)
    if not fields.body_bytes:
        # FlatBuffers omits a field with its default value: the body is empty.
        return [bytes(header)]
    count = fields.num_buffers
    table = np.frombuffer(header, "<i8", 2 * count, fields.buffers).reshape(count, 2)

    lengths = table[:, 1]
    padded = -(-lengths // ALIGNMENT) * ALIGNMENT
    ends = np.cumsum(padded)
    old_offsets = table[:, 0].copy()
    table[:, 0] = ends - padded
    _I64.pack_into(header, fields.body_bytes, int(ends[-1]) if count else 0)

    pieces: list[bytes | memoryview] = [bytes(header)]
    for offset, length in zip(old_offsets.tolist(), lengths.tolist(), strict=True):
        if length:
            start = header_end + offset
            pieces.append(message[start : start + length])
            pieces.append(_ZEROS[: _aligned(length) - length])
    return pieces


class HeaderFields(NamedTuple):
    """Where the fields of a record batch message lie that change from batch to batch.

    Attributes:
        body_bytes: position of the body's size: int64; 0 if the body is empty.
        rows: position of the number of rows: int64; 0 if there are none.
        nodes: position of int64[num_nodes, 2]: length and number of nulls of each array.
        num_nodes: how many arrays, children included.
        buffers: position of int64[num_buffers, 2]: offset in the body and size of each buffer.
        num_buffers: how many buffers.
    """

    body_bytes: int
    rows: int
    nodes: int
    num_nodes: int
    buffers: int
    num_buffers: int


def find_fields(header: bytes | bytearray | memoryview) -> HeaderFields:
    """The fields of a message that starts with this header."""
    root = _PREFIX_BYTES + _U32.unpack_from(header, _PREFIX_BYTES)[0]
    record_batch = _follow(header, _field(header, root, 2))
    nodes = _follow(header, _field(header, record_batch, 1))
    buffers = _follow(header, _field(header, record_batch, 2))
    return HeaderFields(
        body_bytes=_field(header, root, 3),
        rows=_field(header, record_batch, 0),
        nodes=nodes + 4,
        num_nodes=_U32.unpack_from(header, nodes)[0],
        buffers=buffers + 4,
        num_buffers=_U32.unpack_from(header, buffers)[0],
    )


def _field(buffer: bytes | bytearray | memoryview, table: int, index: int) -> int:
    """Position of a table's field, or 0 if it is absent."""
    vtable = table - _I32.unpack_from(buffer, table)[0]
    slot = 4 + 2 * index
    if slot >= _U16.unpack_from(buffer, vtable)[0]:
        return 0
    offset = _U16.unpack_from(buffer, vtable + slot)[0]
    return table + offset if offset else 0


def _follow(buffer: bytes | bytearray | memoryview, position: int) -> int:
    """Where the reference at `position` points to."""
    target: int = position + _U32.unpack_from(buffer, position)[0]
    return target
