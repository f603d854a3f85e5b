"""Blocks of sealed segments: every entry comes back, and damage never passes for an entry."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.log.blocks import Blocks, open_blocks
from easydata.cache.log.decoded import DecodedBlocks
from easydata.cache.log.encoded import CompressedBlocks, ParquetBlocks
from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import seal, walk
from easydata.cache.log.layout import NEVER, EntryLayout
from easydata.cache.log.mapped import MappedBlocks
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import CHECKSUMS_KEY, SealedWriter, SegmentKind, segment_metadata
from easydata.errors import CorruptShardError, FormatVersionError
from easydata.format.codecs import Codec
from easydata.format.stream import END_OF_STREAM
from tests.cache.test_cache_log_message import cases, expected

Format = Literal["ipc", "parquet"]

FILES: list[tuple[str, Format]] = [
    ("none", "ipc"),
    ("lz4", "ipc"),
    ("zstd", "ipc"),
    ("zstd:9", "ipc"),
    ("gzip", "parquet"),
    ("none", "parquet"),
]
DECODED: list[tuple[str, Format]] = [("lz4", "ipc"), ("zstd", "ipc"), ("gzip", "parquet")]
COLUMNS = [("ids", pa.list_(pa.uint16())), ("text", pa.string()), ("n", pa.int64())]


def entry(number: int, items: int = 20) -> Entry:
    """An entry whose content follows from its arguments."""
    ids = np.arange(number, number + items).astype(np.uint16)
    data = (ids, f"текст {number}".encode(), -number)
    return Entry(f"ключ {number}".encode(), number, 1000 + number, NEVER, b"", b"[]", data)


def write(
    folder: Path,
    compression: str,
    shard_format: Format,
    blocks: list[list[Entry]],
    layout: EntryLayout | None = None,
) -> tuple[Path, list[int]]:
    """A sealed segment of these blocks, and their units."""
    codec = EntryCodec(
        layout or EntryLayout(COLUMNS), segment_metadata(SegmentKind(Codec.parse(compression)))
    )
    writer = SealedWriter(folder, "a", codec, Codec.parse(compression), shard_format)
    units = [writer.add(codec.encode_rows(entries)) for entries in blocks]
    writer.finish()
    return folder / ("a.parquet" if shard_format == "parquet" else "a.arrow"), units


def entries_of(blocks: Blocks, unit: int) -> list[Entry]:
    """The entries of a block, as `expected` gives them."""
    view, start = blocks.block(unit)
    assert view.readonly
    rows = blocks.codec.locate_rows(view, start)
    found = []
    for index in range(len(rows)):
        row = rows.row(index)
        if len(rows) == 1:
            assert blocks.codec.locate_row(view, start) == row
        data = [
            bytes(view[slice(*value)]) if column.is_run else value
            for column, value in zip(blocks.codec.layout.columns, row.data, strict=True)
        ]
        key, metadata, recipe = (
            bytes(view[slice(*place)]) for place in (row.key, row.metadata, row.recipe)
        )
        found.append(
            Entry(key, row.key_hash, row.stamp, row.expires, metadata, recipe, tuple(data))
        )
    return found


@settings(max_examples=60)
@given(case=cases(), data=st.data())
@pytest.mark.parametrize(("compression", "shard_format"), FILES)
def test_every_entry_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    compression: str,
    shard_format: Format,
    case: tuple[EntryCodec, list[Entry]],
    data: st.DataObject,
) -> None:
    codec, entries = case
    left = list(entries)
    written = []
    while left:
        size = data.draw(st.integers(1, len(left)))
        written.append(left[:size])
        left = left[size:]
    folder = tmp_path_factory.mktemp("sealed")
    path, units = write(folder, compression, shard_format, written, codec.layout)
    for limit in (0, 1 << 30):
        blocks = open_blocks(path, DecodedBlocks(limit), check=True)
        assert blocks.codec.layout.schema.equals(codec.layout.schema)
        assert (
            blocks.codec.schema_message
            == EntryCodec(
                codec.layout, segment_metadata(SegmentKind(Codec.parse(compression)))
            ).schema_message
        )
        assert list(blocks.units()) == units
        assert blocks.num_bytes == path.stat().st_size
        found = [entries_of(blocks, unit) for unit in reversed(units)]
        assert found == [expected(block) for block in reversed(written)]


@pytest.mark.parametrize(("compression", "shard_format"), FILES)
def test_every_bit_of_a_float_comes_back(
    tmp_path: Path, compression: str, shard_format: Format
) -> None:
    """Zeros with a sign and NaNs with something to say are easily taken for each other."""
    bits = np.array([0, 1 << 63, *(0x7FF8 << 48 | i for i in range(50))] * 3, np.uint64)
    halves = np.array([0, 1 << 15, *(0x7E00 | i for i in range(50))] * 3, np.uint16)
    layout = EntryLayout([("x", pa.list_(pa.float64())), ("h", pa.list_(pa.float16()))])
    data = (bits.view(np.float64), halves.view(np.float16))
    given_entry = Entry(b"k", 1, 2, 3, b"", b"", data)
    path, (unit,) = write(tmp_path, compression, shard_format, [[given_entry]], layout)
    (found,) = entries_of(open_blocks(path, DecodedBlocks(1 << 20), check=True), unit)
    assert found.data == (bits.tobytes(), halves.tobytes())


BLOCKS = [[entry(1)], [entry(2), entry(3)]]


def read_all(path: Path, units: list[int]) -> list[list[Entry] | None]:
    """The entries of each block; None for one that is refused, as are all of a refused file."""
    found: list[list[Entry] | None] = []
    whole: list[int] = []
    messages = []
    try:
        blocks = open_blocks(path, DecodedBlocks(1 << 20), check=True)
        whole = list(blocks.units())
    except (CorruptShardError, FormatVersionError) as error:
        messages.append(str(error))
        found = [None] * len(units)
    for unit in units[len(found) :]:
        try:
            found.append(entries_of(blocks, unit))
        except CorruptShardError as error:
            messages.append(str(error))
            found.append(None)
    assert all(str(path) in message for message in messages)
    assert [unit in whole for unit in units] == [entries is not None for entries in found]
    return found


@pytest.mark.parametrize(
    ("compression", "shard_format", "step"),
    [("none", "ipc", 1), ("lz4", "ipc", 1), ("zstd", "ipc", 1), ("gzip", "parquet", 3)],
)
def test_no_changed_byte_makes_another_value(
    tmp_path: Path, compression: str, shard_format: Format, step: int
) -> None:
    path, units = write(tmp_path, compression, shard_format, BLOCKS)
    good = path.read_bytes()
    right = [expected(block) for block in BLOCKS]
    assert read_all(path, units) == right
    # The schema message of a plain segment has no checksum.
    first = units[0] * 64 if compression == "none" else 0
    refused = [0, 0]
    other = tmp_path / f"b{path.suffix}"
    for position in range(first, len(good), step):
        data = bytearray(good)
        data[position] ^= 1 << position // step % 8
        other.write_bytes(data)
        for index, found in enumerate(read_all(other, units)):
            assert found is None or found == right[index]
            refused[index] += found is None
    # Most changes are in one block and leave the other alone.
    tried = (len(good) - first) // step
    assert all(tried / 5 < count < tried * 4 / 5 for count in refused)


@pytest.mark.parametrize(("compression", "shard_format"), DECODED)
def test_a_file_that_was_cut_off(tmp_path: Path, compression: str, shard_format: Format) -> None:
    path, units = write(tmp_path, compression, shard_format, BLOCKS)
    good = path.read_bytes()
    right = [expected(block) for block in BLOCKS]
    other = tmp_path / f"b{path.suffix}"
    for size in range(0, len(good), 11):
        for tail in (b"", bytes(len(good) - size)):
            other.write_bytes(good[:size] + tail)
            for found, entries in zip(read_all(other, units), right, strict=True):
                assert found is None or found == entries
    if shard_format == "ipc":
        other.write_bytes(good[: units[1] * 64])
        assert read_all(other, units) == [right[0], None]
    else:
        other.write_bytes(good[:-1])
        assert read_all(other, units) == [None, None]


@pytest.mark.parametrize(("compression", "shard_format"), FILES)
def test_a_table_that_leads_astray(tmp_path: Path, compression: str, shard_format: Format) -> None:
    path, units = write(tmp_path, compression, shard_format, BLOCKS)
    blocks = open_blocks(path, DecodedBlocks(1 << 20), check=True)
    wrong = [unit for unit in (0, 1, 2, units[-1] + 1, 10**9, 2**40) if unit not in units]
    for unit in wrong:
        with pytest.raises(CorruptShardError, match="is damaged in"):
            blocks.block(unit)
    for check in (True, False):
        blocks = open_blocks(path, DecodedBlocks(1 << 20), check=check)
        assert [entries_of(blocks, unit) for unit in units] == [expected(b) for b in BLOCKS]


@pytest.mark.parametrize(("compression", "shard_format"), DECODED)
def test_damage_names_the_block(tmp_path: Path, compression: str, shard_format: Format) -> None:
    path, units = write(tmp_path, compression, shard_format, BLOCKS)
    data = bytearray(path.read_bytes())
    if shard_format == "ipc":
        data[units[1] * 64 + 1000] ^= 1
        place = f"the block at byte {units[1] * 64}: its bytes have changed"
    else:
        data[pq.read_metadata(path).row_group(1).column(3).data_page_offset + 60] ^= 1
        place = "row group 1: "
    path.write_bytes(data)
    blocks = open_blocks(path, DecodedBlocks(1 << 20), check=True)
    with pytest.raises(CorruptShardError, match=rf"{path.name} is damaged in {place}.*repair"):
        blocks.block(units[1])
    assert entries_of(blocks, units[0]) == expected(BLOCKS[0])
    assert list(blocks.units()) == units[:1]


def test_parquet_says_the_same_whatever_its_headers_say(tmp_path: Path) -> None:
    """What pages do not protect: here, another file's rows under the checksums of the first."""
    path, units = write(tmp_path, "gzip", "parquet", BLOCKS)
    with pq.ParquetFile(path) as file:
        table, checksums = file.read(), file.metadata.metadata[CHECKSUMS_KEY]
    changed = table.set_column(8, table.schema.field(8), pa.array([-1, -2, -4], pa.int64()))
    renamed = table.rename_columns(["other" if n == "ids" else n for n in table.column_names])
    for found, right in ((table, [0, 1]), (changed, [0]), (renamed, [])):
        metadata = {**table.schema.metadata, CHECKSUMS_KEY: checksums}
        schema = found.schema.with_metadata(metadata)
        with pq.ParquetWriter(path, schema, use_compliant_nested_type=False) as writer:
            for start, stop in ((0, 1), (1, 3)):
                writer.write_table(found.slice(start, stop - start))
        blocks = open_blocks(path, DecodedBlocks(0), check=True)
        assert list(blocks.units()) == right
        unchecked = open_blocks(path, DecodedBlocks(0), check=False)
        assert list(unchecked.units()) == units
    pq.write_table(table, path)
    with pytest.raises(CorruptShardError, match="footer: it has 2 checksums for 1 row groups"):
        open_blocks(path, DecodedBlocks(0), check=True)


def test_a_whole_message_that_is_no_block_is_refused(tmp_path: Path) -> None:
    """Its checksum is right, and it is still not what this segment holds."""
    path, units = write(tmp_path, "zstd", "ipc", BLOCKS)
    other = EntryCodec(EntryLayout([("raw", pa.binary())]))
    strange = Entry(b"k", 1, 2, 3, b"", b"", (b"\xff" * 100,))
    nonsense = bytearray(other.encode_row(strange))
    nonsense[200:240] = b"\xff" * 40
    seal(nonsense)
    for message in (other.encode_row(strange), nonsense):
        data = path.read_bytes()[: -len(END_OF_STREAM)]
        unit = len(data) // 64
        (tmp_path / "b.arrow").write_bytes(data + message)
        blocks = open_blocks(tmp_path / "b.arrow", DecodedBlocks(0), check=True)
        with pytest.raises(CorruptShardError, match=f"the block at byte {64 * unit}"):
            blocks.block(unit)
        assert [entries_of(blocks, unit) for unit in units] == [expected(b) for b in BLOCKS]


def test_the_file_says_how_it_is_read(tmp_path: Path) -> None:
    kinds = {
        ("none", "ipc"): MappedBlocks,
        ("lz4", "ipc"): CompressedBlocks,
        ("gzip", "parquet"): ParquetBlocks,
        ("none", "parquet"): ParquetBlocks,
    }
    for (compression, shard_format), kind in kinds.items():
        path, _ = write(
            tmp_path, compression, "ipc" if shard_format == "ipc" else "parquet", BLOCKS
        )
        blocks = open_blocks(path, DecodedBlocks(0), check=True)
        assert type(blocks) is kind
        assert blocks.is_mapped == (kind is MappedBlocks)


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_another_file_is_no_segment(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError):
        open_blocks(path, DecodedBlocks(0), check=True)
    schema = pa.schema({"x": pa.int64()}).with_metadata(
        segment_metadata(SegmentKind(Codec.parse("none")))
    )
    own = EntryLayout(COLUMNS).schema
    foreign: list[Any] = [schema, schema.remove_metadata(), own]
    for found in foreign:
        if suffix == ".arrow":
            path.write_bytes(found.serialize().to_pybytes())
        else:
            pq.write_table(found.empty_table(), path)
        with pytest.raises(CorruptShardError, match=r"a\..*no segment of a cache"):
            open_blocks(path, DecodedBlocks(0), check=True)
    newer = own.with_metadata({b"easydata": b'{"format": 2, "codec": "none"}'})
    if suffix == ".arrow":
        path.write_bytes(newer.serialize().to_pybytes())
    else:
        pq.write_table(newer.empty_table(), path)
    with pytest.raises(FormatVersionError, match=r"a\..*reads up to 1"):
        open_blocks(path, DecodedBlocks(0), check=True)
    for data in (b"", b"text", bytes(200), b"PAR1" * 30):
        path.write_bytes(data)
        with pytest.raises(CorruptShardError, match=r"a\."):
            open_blocks(path, DecodedBlocks(0), check=True)


@pytest.mark.parametrize(("compression", "shard_format"), FILES)
def test_a_segment_that_is_read_may_be_deleted(
    tmp_path: Path, compression: str, shard_format: Format
) -> None:
    path, units = write(tmp_path, compression, shard_format, BLOCKS)
    before = len(os.listdir("/dev/fd"))
    blocks = open_blocks(path, DecodedBlocks(0), check=True)
    path.unlink()
    assert [entries_of(blocks, unit) for unit in units] == [expected(b) for b in BLOCKS]
    assert len(os.listdir("/dev/fd")) == before


# DecodedBlocks


class Decoder:
    """Makes blocks of a size and counts how often."""

    def __init__(self, cache: DecodedBlocks) -> None:
        self.cache = cache
        self.calls: list[int] = []

    def __call__(self, unit: int, size: int = 100) -> memoryview:
        def decode() -> bytearray:
            self.calls.append(unit)
            return bytearray([unit]) * size

        return self.cache.get("a", unit, decode)


def test_the_blocks_used_last_are_kept() -> None:
    cache = DecodedBlocks(300)
    get = Decoder(cache)
    for unit in (1, 2, 3, 1, 4, 1, 3, 4, 2):
        assert bytes(get(unit)) == bytes([unit]) * 100
        assert cache.num_bytes <= 300
    # 4 took the place of 2, the one that was used the longest ago; then 2 that of 1.
    assert get.calls == [1, 2, 3, 4, 2]
    get(1)
    assert get.calls == [1, 2, 3, 4, 2, 1]


def test_a_large_block_stays_until_the_next() -> None:
    cache = DecodedBlocks(300)
    get = Decoder(cache)
    get(1)
    large = get(2, 1000)
    assert cache.num_bytes == 1000
    assert get(2) is large
    get(3)
    assert cache.num_bytes == 100
    get(2)
    assert get.calls == [1, 2, 3, 2]
    assert bytes(large) == bytes([2]) * 1000


def test_segments_do_not_meet() -> None:
    cache = DecodedBlocks(1000)
    assert bytes(cache.get("a", 1, lambda: bytearray(b"a"))) == b"a"
    assert bytes(cache.get("b", 1, lambda: bytearray(b"b"))) == b"b"
    assert bytes(cache.get("a", 1, lambda: bytearray(b"c"))) == b"a"


def test_nobody_can_change_a_block() -> None:
    view = Decoder(DecodedBlocks(1000))(1)
    with pytest.raises(TypeError):
        view[0] = 1
    assert not np.frombuffer(view, np.uint8).flags.writeable


def test_decoding_is_timed_and_failing_leaves_nothing() -> None:
    cache = DecodedBlocks(1000)
    get = Decoder(cache)

    def fail() -> bytearray:
        raise CorruptShardError("damaged")

    with pytest.raises(CorruptShardError):
        cache.get("a", 1, fail)
    assert cache.num_bytes == cache.decode_seconds == 0
    get(1)
    seconds = cache.decode_seconds
    assert seconds > 0
    get(1)
    assert cache.decode_seconds == seconds


def test_what_is_not_kept_gives_its_memory_back(tmp_path: Path) -> None:
    many = [[entry(number, 50_000)] for number in range(6)]
    path, units = write(tmp_path, "zstd", "ipc", many)
    cache = DecodedBlocks(0)
    blocks = open_blocks(path, cache, check=True)
    before = pa.total_allocated_bytes()
    for unit in units:
        blocks.block(unit)
    gc.collect()
    assert cache.num_bytes < 150_000
    assert pa.total_allocated_bytes() - before < 100_000


@pytest.mark.parametrize(("compression", "shard_format"), DECODED)
def test_threads(tmp_path: Path, compression: str, shard_format: Format) -> None:
    written = [[entry(10 * number + i) for i in range(5)] for number in range(20)]
    path, units = write(tmp_path, compression, shard_format, written)
    right = {unit: expected(block) for unit, block in zip(units, written, strict=True)}
    cache = DecodedBlocks(10_000)  # three of the twenty
    blocks = open_blocks(path, cache, check=True)
    ready = threading.Barrier(4)

    def read(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(units * 5).tolist()
        ready.wait()
        for unit in order:
            assert entries_of(blocks, unit) == right[unit]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    assert cache.num_bytes <= 10_000
    assert cache.num_bytes == sum(map(len, cache._blocks.values()))


def test_a_fork_hangs_on_no_lock(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "zstd", "ipc", BLOCKS)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tests.cache.test_cache_log_blocks import *\n"
        "cache = DecodedBlocks(1000)\n"
        "blocks = open_blocks(Path(sys.argv[1]), cache, check=True)\n"
        "units = list(blocks.units())\n"
        "blocks.block(units[0])\n"
        "cache._lock.acquire()\n"
        "if os.fork() == 0:\n"
        "    found = [entries_of(blocks, unit) for unit in units]\n"
        "    os._exit(0 if found == [expected(block) for block in BLOCKS] else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, path], check=True, timeout=60)


def test_blocks_of_a_compressed_stream_are_found_by_walking(tmp_path: Path) -> None:
    path, units = write(tmp_path, "zstd", "ipc", BLOCKS)
    assert [start // 64 for start, _ in walk(path.read_bytes())] == units
