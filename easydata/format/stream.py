"""Arrow IPC stream messages: encode with aligned buffers, decode with everything checked.

A shard is: a schema message, record batch messages, an end-of-stream mark. Each message is
independent of the others, so encoded batches can be copied between shards as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from easydata.format.alignment import align_header, align_record_batch, message_header_bytes
from easydata.format.codecs import Codec

__all__ = [
    "END_OF_STREAM",
    "decode_batch",
    "decode_schema",
    "encode_batch",
    "encode_schema",
    "places_beside",
]

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def encode_schema(schema: pa.Schema, metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """The message a shard starts with; its size is a multiple of 64 bytes."""
    return align_header(memoryview(schema.with_metadata(metadata).serialize()))


def decode_schema(message: bytes | pa.Buffer) -> pa.Schema:
    """The inverse of `encode_schema`.

    Raises:
        pyarrow.ArrowInvalid: the bytes are no schema message.
    """
    return pa.ipc.read_schema(pa.py_buffer(message))


def encode_batch(batch: pa.RecordBatch, codec: Codec) -> list[bytes | memoryview]:
    """A record batch as pieces to write one after another, each buffer 64-byte aligned.

    Equal batches give equal bytes if they were made in the same way. A slice is written without
    what lies around it, but Arrow pads its buffers with up to 63 bytes of what follows.
    """
    if codec.is_zero_copy:
        return align_record_batch(memoryview(batch.serialize()))
    # `serialize` knows no compression; a stream writer does, and writes more around the batch.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=codec.ipc_options()) as writer:
        writer.write_batch(batch)
    stream = memoryview(sink.getvalue())
    schema_bytes = message_header_bytes(stream)
    return align_record_batch(stream[schema_bytes : -len(END_OF_STREAM)])


def decode_batch(message: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    """The record batch in `message`: a view of an uncompressed one, a copy of a compressed one.

    The result has passed Arrow's full validation: its offsets lie inside its buffers, its text
    is UTF-8, and so views of its buffers are safe whatever the bytes said.

    Raises:
        pyarrow.ArrowInvalid: the bytes are no valid record batch of this schema.
        OSError: a compressed buffer does not decompress.
    """
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), schema)
    batch.validate(full=True)
    return batch


def places_beside(
    message: pa.Buffer, schema: pa.Schema, list_column: str
) -> Iterator[tuple[int, int]]:
    """From where to where in an uncompressed `message` its buffers lie, but for the items of the
    lists of one column. What the buffers hold is not looked at.
    """
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), schema)
    for item, column in zip(batch.schema, batch.columns, strict=True):
        buffers = column.buffers()
        for buffer in buffers[:-1] if item.name == list_column else buffers:
            if buffer is not None and buffer.size:
                start = buffer.address - message.address
                yield start, start + buffer.size
