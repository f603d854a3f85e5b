from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.format.codecs import Codec
from easydata.format.shards import IpcShardWriter
from easydata.format.stream import decode_batch, decode_schema, encode_batch, encode_schema

from .arrow_batches import batch_lists, batches, schemas

CODECS = st.sampled_from(["none", "lz4", "zstd", "zstd:9"]).map(Codec.parse)


def rebuilt(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in memory of their own, with nothing around them."""
    return pa.record_batch(
        [
            pa.array(column.to_pylist(), item.type)
            for item, column in zip(batch.schema, batch.columns, strict=True)
        ],
        schema=batch.schema,
    )


def shard_of(written: list[pa.RecordBatch], codec: Codec) -> bytes:
    file = io.BytesIO()
    writer = IpcShardWriter(file, written[0].schema, {b"key": b"value"}, codec)
    for batch in written:
        writer.write(batch, 0)
    writer.finish("shard")
    return file.getvalue()


def assert_aligned(batch: pa.RecordBatch, base: int, size: int) -> int:
    """Every buffer lies in the file, at a multiple of 64; returns how many there are."""
    count = 0
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None and buffer.size:
                offset = buffer.address - base
                assert 0 <= offset <= size - buffer.size, "the buffer is a copy"
                assert offset % 64 == 0
                count += 1
    return count


@settings(max_examples=150)
@given(batches(), CODECS)
def test_round_trip(batch: pa.RecordBatch, codec: Codec) -> None:
    message = b"".join(encode_batch(batch, codec))
    decoded = decode_batch(pa.py_buffer(message), batch.schema)
    assert decoded.schema == batch.schema
    assert decoded.to_pylist() == batch.to_pylist()
    assert len(message) % 64 == 0


@settings(max_examples=100)
@given(batches(), CODECS)
def test_equal_batches_give_equal_bytes(batch: pa.RecordBatch, codec: Codec) -> None:
    first = b"".join(encode_batch(rebuilt(batch), codec))
    assert b"".join(encode_batch(rebuilt(batch), codec)) == first


@settings(max_examples=150)
@given(batch_lists())
def test_every_buffer_starts_at_a_multiple_of_64(written: list[pa.RecordBatch]) -> None:
    data = pa.py_buffer(shard_of(written, Codec("none")))
    found = list(pa.ipc.open_stream(data))
    assert [batch.to_pylist() for batch in found] == [batch.to_pylist() for batch in written]
    for batch in found:
        batch.validate(full=True)
        assert_aligned(batch, data.address, data.size)


@settings(max_examples=100)
@given(batch_lists(), CODECS)
def test_arrow_reads_the_stream_of_any_codec(written: list[pa.RecordBatch], codec: Codec) -> None:
    reader = pa.ipc.open_stream(shard_of(written, codec))
    assert reader.schema.metadata == {b"key": b"value"}
    assert [b.to_pylist() for b in reader] == [b.to_pylist() for b in written]


@settings(max_examples=50)
@given(schemas(), st.dictionaries(st.binary(max_size=9), st.binary(max_size=99), max_size=3))
def test_schema_round_trip(schema: pa.Schema, metadata: dict[bytes, bytes]) -> None:
    message = encode_schema(schema, metadata)
    assert len(message) % 64 == 0
    decoded = decode_schema(message)
    assert decoded.equals(schema.with_metadata(metadata or None), check_metadata=True)
    assert pa.ipc.open_stream(message).schema == schema


def test_addresses_in_a_memory_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = []
    for rows in (1, 7, 100, 3001):
        lengths = rng.integers(0, 50, rows)
        written.append(
            pa.record_batch(
                {
                    "input_ids": pa.array(
                        [rng.integers(0, 65_536, n).astype("u2") for n in lengths],
                        pa.list_(pa.uint16()),
                    ),
                    "name": pa.array([None if n % 3 else "x" * n for n in lengths.tolist()]),
                    "flag": pa.array((lengths % 2 == 0).tolist()),
                    "score": pa.array(rng.random(rows)),
                }
            )
        )
    path = tmp_path / "shard.arrow"
    path.write_bytes(shard_of(written, Codec("none")))
    with pa.memory_map(str(path)) as mapped:
        whole = mapped.read_buffer()
        mapped.seek(0)
        for batch, original in zip(pa.ipc.open_stream(mapped), written, strict=True):
            assert batch.equals(original)
            assert assert_aligned(batch, whole.address, whole.size) >= 6
            # Maps start at a page, so the addresses themselves are aligned too.
            assert whole.address % 4096 == 0


@pytest.mark.parametrize("rows", [0, 3])
def test_batches_without_a_body(rows: int) -> None:
    schema = pa.schema({"nothing": pa.null()})
    batch = pa.record_batch([pa.nulls(rows)], schema=schema)
    (piece,) = encode_batch(batch, Codec("none"))
    assert len(piece) % 64 == 0
    assert decode_batch(pa.py_buffer(piece), schema).num_rows == rows


def test_a_slice_is_written_without_its_surroundings() -> None:
    batch = pa.record_batch({"a": pa.array(["before" * 1000, "x", "behind" * 1000])})
    message = b"".join(encode_batch(batch.slice(1, 1), Codec("none")))
    assert b"before" not in message
    assert message.count(b"behind") <= 63 // 6  # Arrow fills its padding from what follows
    assert len(message) < 1000


def test_padding_is_zero() -> None:
    batch = pa.record_batch({"a": pa.array([0xFFFF], pa.uint16())})
    header, *body = encode_batch(batch, Codec("none"))
    assert b"".join(body) == b"\xff\xff" + bytes(62)
    assert len(header) % 64 == 0


def test_bytes_that_are_no_batch_are_refused() -> None:
    batch = pa.record_batch({"a": pa.array([[1, 2], [3]], pa.list_(pa.uint16()))})
    message = bytearray(b"".join(encode_batch(batch, Codec("none"))))
    at = len(message) - 128  # the offsets, one block of 64 before the values
    assert message[at : at + 12] == np.array([0, 2, 3], "<i4").tobytes()
    message[at + 8] = 200
    with pytest.raises(pa.ArrowInvalid):
        decode_batch(pa.py_buffer(bytes(message)), batch.schema)
    with pytest.raises(pa.ArrowInvalid):
        decode_schema(b"no schema at all")


def test_ipc_has_no_gzip() -> None:
    with pytest.raises(UsageError, match="format='parquet'"):
        encode_batch(pa.record_batch({"a": [1]}), Codec("gzip"))
