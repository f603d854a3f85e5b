"""Sealed segments: whole or not there, and readable without easydata."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from easydata._fs import is_temporary
from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import is_intact, walk
from easydata.cache.log.layout import NEVER, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import (
    SealedWriter,
    SegmentKind,
    content_checksum,
    segment_kind,
    segment_metadata,
)
from easydata.errors import CorruptShardError, FormatVersionError, StorageError, UsageError
from easydata.format.codecs import Codec
from easydata.format.stream import END_OF_STREAM
from tests.full_disk import full_disk

Format = Literal["ipc", "parquet"]

STREAMS: list[tuple[str, Format]] = [(name, "ipc") for name in ("none", "lz4", "zstd", "zstd:9")]
PARQUETS: list[tuple[str, Format]] = [
    (name, "parquet") for name in ("none", "lz4", "zstd", "zstd:9", "gzip")
]
LAYOUT = EntryLayout(
    [
        ("ids", pa.list_(pa.uint16())),
        ("half", pa.list_(pa.float16())),
        ("text", pa.string()),
        ("raw", pa.binary()),
        ("n", pa.int64()),
        ("x", pa.float64()),
        ("flag", pa.uint8()),
    ]
)


def entry(number: int, items: int = 40) -> Entry:
    """An entry whose content follows from its number."""
    key = f"ключ {number}".encode()
    ids = np.arange(number, number + items).astype(np.uint16)
    halves = np.linspace(-number, number, items).astype(np.float16)
    data = (ids, halves, f"текст {number}".encode(), bytes([number % 256, 255]), -number, 0.5, 1)
    return Entry(key, xxhash.xxh3_64_intdigest(key), 10**18 + number, NEVER, b"{}", b"[1]", data)


def codec_for(compression: str, layout: EntryLayout = LAYOUT) -> EntryCodec:
    return EntryCodec(layout, segment_metadata(SegmentKind(Codec.parse(compression))))


def writer_for(folder: Path, compression: str, shard_format: Format) -> SealedWriter:
    codec = codec_for(compression)
    return SealedWriter(folder, "a", codec, Codec.parse(compression), shard_format)


def blocks_of(compression: str) -> list[bytes]:
    """Plain messages of 1, 3 and 700 rows."""
    codec = codec_for(compression)
    numbers = iter(range(10_000))
    return [
        bytes(codec.encode_rows([entry(next(numbers)) for _ in range(rows)]))
        for rows in (1, 3, 700)
    ]


def write(folder: Path, compression: str, shard_format: Format) -> tuple[Path, list[int]]:
    """The file with `blocks_of`, and their units."""
    writer = writer_for(folder, compression, shard_format)
    units = [writer.add(block) for block in blocks_of(compression)]
    writer.finish()
    return folder / f"a.{'parquet' if shard_format == 'parquet' else 'arrow'}", units


def assert_plain_readers_find_all(table: pa.Table) -> None:
    table.validate(full=True)
    assert table.schema.equals(LAYOUT.schema)
    assert [str(item.type) for item in table.schema] == [str(item.type) for item in LAYOUT.schema]
    entries = [entry(number) for number in range(704)]
    assert table["easydata:hash"].to_pylist() == [item.key_hash for item in entries]
    assert table["easydata:key"].to_pylist() == [item.key.decode() for item in entries]
    assert table["easydata:stamp"].cast(pa.int64()).to_pylist() == [item.stamp for item in entries]
    assert table["easydata:expires"].cast(pa.int64()).to_pylist() == [NEVER] * 704
    assert table["ids"].to_pylist() == [item.data[0].tolist() for item in entries]
    assert table["half"].to_pylist() == [item.data[1].tolist() for item in entries]
    assert table["raw"].to_pylist() == [item.data[3] for item in entries]
    assert table["n"].to_pylist() == [-number for number in range(704)]


@pytest.mark.parametrize(("compression", "shard_format"), STREAMS)
def test_an_arrow_stream(tmp_path: Path, compression: str, shard_format: Format) -> None:
    path, units = write(tmp_path, compression, shard_format)
    assert path.name == "a.arrow"
    with pa.ipc.open_stream(path) as stream:
        batches = list(stream)
        assert segment_kind(stream.schema).compression == Codec.parse(compression)
    assert [batch.num_rows for batch in batches] == [1, 3, 700]
    assert_plain_readers_find_all(pa.Table.from_batches(batches))
    data = path.read_bytes()
    # Blocks are found by walking, and each knows whether it is whole.
    places = list(walk(data))
    assert [start // 64 for start, _ in places] == units
    assert all(start % 64 == size % 64 == 0 for start, size in places)
    assert all(is_intact(data, start, size) for start, size in places)
    assert sum(places[-1]) == len(data) - len(END_OF_STREAM)
    assert data.endswith(END_OF_STREAM)


@pytest.mark.parametrize(("compression", "shard_format"), STREAMS)
def test_other_libraries_read_a_stream(
    tmp_path: Path, compression: str, shard_format: Format
) -> None:
    path, _ = write(tmp_path, compression, shard_format)
    frame = polars.read_ipc_stream(io.BytesIO(path.read_bytes()))
    assert frame["n"].to_list() == [-number for number in range(704)]
    assert frame["ids"].to_list()[703] == entry(703).data[0].tolist()
    pandas = pa.ipc.open_stream(path).read_pandas()
    assert pandas["text"].tolist() == [f"текст {number}" for number in range(704)]
    rows = datasets.Dataset.from_file(str(path))
    assert rows["easydata:key"][-1] == "ключ 703"


def test_a_plain_stream_holds_the_messages_as_they_are(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "none", "ipc")
    whole = [codec_for("none").schema_message, *blocks_of("none"), END_OF_STREAM]
    assert path.read_bytes() == b"".join(whole)


def test_compression_compresses(tmp_path: Path) -> None:
    sizes = {}
    for compression, shard_format in [*STREAMS, ("gzip", "parquet")]:
        path, _ = write(tmp_path, compression, shard_format)
        sizes[compression] = path.stat().st_size
    assert max(sizes["lz4"], sizes["zstd"], sizes["gzip"]) < 0.6 * sizes["none"]
    assert sizes["zstd:9"] < sizes["zstd"]


@pytest.mark.parametrize(("compression", "shard_format"), PARQUETS)
def test_a_parquet_file(tmp_path: Path, compression: str, shard_format: Format) -> None:
    path, units = write(tmp_path, compression, shard_format)
    assert path.name == "a.parquet"
    assert units == [0, 1, 2]
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        footer = file.metadata
        assert [footer.row_group(unit).num_rows for unit in units] == [1, 3, 700]
        expected = {"none": "UNCOMPRESSED"}.get(compression, compression.partition(":")[0].upper())
        assert footer.row_group(0).column(0).compression == expected
        assert segment_kind(file.schema_arrow).compression == Codec.parse(compression)
        assert_plain_readers_find_all(file.read())
    assert polars.read_parquet(path)["n"].to_list() == [-number for number in range(704)]


def test_pages_of_parquet_have_checksums(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "none", "parquet")
    data = bytearray(path.read_bytes())
    data[data.index("ключ 1".encode())] ^= 1
    path.write_bytes(data)
    with (
        pq.ParquetFile(path, page_checksum_verification=True) as file,
        pytest.raises(OSError, match="CRC checksum"),
    ):
        file.read()


@pytest.mark.parametrize(("compression", "shard_format"), STREAMS + PARQUETS)
def test_num_bytes_is_the_size(tmp_path: Path, compression: str, shard_format: Format) -> None:
    writer = writer_for(tmp_path, compression, shard_format)
    sizes = [writer.num_bytes]
    for block in blocks_of(compression):
        writer.add(block)
        sizes.append(writer.num_bytes)
    assert sizes == sorted(set(sizes))
    writer.finish()
    (path,) = tmp_path.iterdir()
    footer = 20_000 if shard_format == "parquet" else 8
    assert sizes[-1] < path.stat().st_size <= sizes[-1] + footer
    assert shard_format == "parquet" or writer.num_bytes == path.stat().st_size


@pytest.mark.parametrize(("compression", "shard_format"), [STREAMS[0], STREAMS[2], PARQUETS[2]])
def test_the_file_appears_at_the_end(
    tmp_path: Path, compression: str, shard_format: Format
) -> None:
    writer = writer_for(tmp_path, compression, shard_format)
    writer.add(blocks_of(compression)[2])
    assert all(is_temporary(path.name) for path in tmp_path.iterdir())
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    writer.abandon()
    path, _ = write(tmp_path, compression, shard_format)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("compression", "shard_format"), [STREAMS[1], PARQUETS[0]])
def test_a_finished_file_stays(tmp_path: Path, compression: str, shard_format: Format) -> None:
    writer = writer_for(tmp_path, compression, shard_format)
    writer.add(blocks_of(compression)[0])
    writer.finish()
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    writer.abandon()
    with pytest.raises(ValueError, match="is finished or was abandoned"):
        writer.add(blocks_of(compression)[0])
    with pytest.raises(ValueError, match="is finished or was abandoned"):
        writer.finish()
    assert path.read_bytes() == data


@pytest.mark.parametrize(("compression", "shard_format"), [STREAMS[0], STREAMS[2], PARQUETS[2]])
def test_a_full_disk_leaves_nothing(tmp_path: Path, compression: str, shard_format: Format) -> None:
    writer = writer_for(tmp_path, compression, shard_format)
    block = blocks_of(compression)[2]

    def fill() -> None:
        for _ in range(10):
            writer.add(block)
        writer.finish()

    with (
        full_disk(16 << 10),
        pytest.raises(StorageError, match=r"Cannot write .*a\.(arrow|parquet): .*full"),
    ):
        fill()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="is finished or was abandoned"):
        writer.add(block)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Cannot write"):
        writer_for(tmp_path / "missing", "zstd", "ipc")


@pytest.mark.parametrize(("compression", "shard_format"), [STREAMS[0], STREAMS[2], PARQUETS[2]])
def test_what_is_no_message_is_refused(
    tmp_path: Path, compression: str, shard_format: Format
) -> None:
    block = blocks_of(compression)[0]
    damaged = bytearray(block)
    damaged[-100] ^= 1
    for wrong in (b"", block[:-64], block + bytes(64), damaged, codec_for("none").schema_message):
        writer = writer_for(tmp_path, compression, shard_format)
        writer.add(block)
        with pytest.raises(ValueError, match="no whole message"):
            writer.add(wrong)
        assert list(tmp_path.iterdir()) == []


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no gzip"):
        writer_for(tmp_path, "gzip", "ipc")
    with pytest.raises(ValueError, match="do not tell of compression lz4"):
        SealedWriter(tmp_path, "a", codec_for("zstd"), Codec.parse("lz4"), "ipc")
    assert list(tmp_path.iterdir()) == []


def schema_with(text: str) -> pa.Schema:
    return LAYOUT.schema.with_metadata({b"easydata": text.encode()})


@pytest.mark.parametrize("name", ["none", "lz4", "zstd", "zstd:9", "gzip"])
def test_metadata_tell_the_compression(name: str) -> None:
    metadata = segment_metadata(SegmentKind(Codec.parse(name)))
    assert json.loads(metadata[b"easydata"]) == {"format": 1, "codec": name}
    schema = LAYOUT.schema.with_metadata(metadata)
    assert segment_kind(schema).compression == Codec.parse(name)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "1", "{}", '{"format": 1}', '{"codec": "none"}',
        '{"format": 0, "codec": "none"}', '{"format": "1", "codec": "none"}',
        '{"format": 1, "codec": "zip"}', '{"format": 1, "codec": 3}',
    ],
)  # fmt: skip
def test_other_metadata_are_refused(text: str) -> None:
    with pytest.raises(CorruptShardError, match="no segment of a cache"):
        segment_kind(schema_with(text))


def test_a_schema_without_metadata_is_refused() -> None:
    with pytest.raises(CorruptShardError, match="no metadata of easydata"):
        segment_kind(LAYOUT.schema)


def test_a_newer_format_is_told() -> None:
    with pytest.raises(FormatVersionError, match="has format 2; this easydata reads up to 1"):
        segment_kind(schema_with('{"format": 2, "codec": {"name": "new"}}'))


def test_the_checksum_of_a_block_does_not_change_silently() -> None:
    layout = EntryLayout([("ids", pa.list_(pa.uint16())), ("n", pa.int64())])
    codec = codec_for("gzip", layout)
    key = Entry(b"key", 7, 8, 9, b"{}", b"[]", (np.arange(3, dtype=np.uint16), -1))
    found = content_checksum(codec, codec.encode_row(key))
    columns = xxhash.xxh3_64_intdigest(b'[["ids", "uint16"], ["n", "int64"]]')
    body = bytes(codec.encode_row(key))[codec.header_bytes : -8]
    assert found == xxhash.xxh3_64_intdigest(body, columns)
    renamed = EntryLayout([("idz", pa.list_(pa.uint16())), ("n", pa.int64())])
    other = EntryLayout([("ids", pa.list_(pa.int16())), ("n", pa.int64())])
    for layout in (renamed, other):
        codec = codec_for("gzip", layout)
        assert content_checksum(codec, codec.encode_row(key)) != found
