from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easydata.format.checksums import block_checksums
from easydata.format.codecs import Codec
from easydata.format.ledger import ShardEntry
from easydata.format.shards import ParquetShardWriter

CODECS = ["none", "lz4", "zstd", "zstd:9", "gzip"]
SCHEMA = pa.schema({"input_ids": pa.list_(pa.uint16()), "name": pa.string()})


def some_batches(sizes: list[int]) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(1)
    return [
        pa.record_batch(
            [
                pa.array(
                    [rng.integers(0, 300, n).astype("u2") for n in rng.integers(0, 90, rows)],
                    SCHEMA.field(0).type,
                ),
                pa.array([None if i % 3 else f"row {i % 7}" for i in range(rows)]),
            ],
            schema=SCHEMA,
        )
        for rows in sizes
    ]


def write(batches: list[pa.RecordBatch], codec: str) -> tuple[bytes, ShardEntry]:
    file = io.BytesIO()
    writer = ParquetShardWriter(file, batches[0].schema, {b"easydata": b"{}"}, Codec.parse(codec))
    for batch in batches:
        writer.write(batch, len(batch[0].flatten()))
    entry = writer.finish("a.parquet")
    return file.getvalue(), entry


@pytest.mark.parametrize("codec", CODECS)
def test_one_row_group_for_each_batch(codec: str) -> None:
    batches = some_batches([5, 1, 2000, 30])
    data, entry = write(batches, codec)
    file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    assert file.num_row_groups == len(batches)
    for index, batch in enumerate(batches):
        assert file.read_row_group(index).to_pylist() == batch.to_pylist()
    assert file.schema_arrow.metadata[b"easydata"] == b"{}"
    assert file.schema_arrow.field("input_ids").type == SCHEMA.field(0).type
    expected = {"none": "UNCOMPRESSED", "lz4": "LZ4"}.get(codec, codec.partition(":")[0].upper())
    assert file.metadata.row_group(0).column(0).compression == expected
    assert entry.batches[:, 2].tolist() == [5, 1, 2000, 30]
    assert entry.batches[:, 3].tolist() == [len(batch[0].flatten()) for batch in batches]


@pytest.mark.parametrize("codec", CODECS)
def test_regions_cover_every_byte(codec: str) -> None:
    data, entry = write(some_batches([100, 3, 70]), codec)
    assert entry.nbytes == len(data)
    starts, sizes = entry.batches[:, 0].tolist(), entry.batches[:, 1].tolist()
    edges = [0, *starts, starts[-1] + sizes[-1], len(data)]
    assert edges == sorted(edges)
    assert edges[1:-2] + edges[-2:-1] == [
        start + size for start, size in zip([0, *starts], [4, *sizes], strict=True)
    ]
    regions = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert b"".join(regions) == data
    assert entry.checksums.tolist() == [
        int(checksum) for region in regions for checksum in block_checksums([region])
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_pages_carry_checksums(codec: str) -> None:
    data, entry = write(some_batches([400]), codec)
    offset, size = entry.batches[0, :2].tolist()
    found = 0
    for at in range(offset + size // 4, offset + size, max(1, size // 40)):
        broken = bytearray(data)
        broken[at] ^= 0x10
        try:
            pq.read_table(io.BytesIO(broken), page_checksum_verification=True)
        except OSError as error:
            found += "CRC checksum verification failed" in str(error)
    assert found > 20  # the others hit page headers


def test_an_empty_shard_has_one_empty_batch() -> None:
    data, entry = write(some_batches([0]), "zstd")
    assert entry.batches[:, 2:].tolist() == [[0, 0]]
    assert pq.read_table(io.BytesIO(data)).num_rows == 0
    assert entry.nbytes == len(data)


def test_more_rows_than_one_row_group_has_by_default() -> None:
    rows = (1 << 20) + 1
    offsets = pa.array(np.zeros(rows + 1, np.int32))
    column: Any = pa.ListArray.from_arrays(offsets, pa.array([], pa.uint16()))
    _, entry = write([pa.record_batch({"input_ids": column})], "zstd")
    assert entry.batches[:, 2].tolist() == [rows]


def test_bytes_follow_from_the_rows() -> None:
    first, _ = write(some_batches([50, 60]), "zstd")
    again, _ = write(some_batches([50, 60]), "zstd")
    assert first == again
