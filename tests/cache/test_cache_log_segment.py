"""A segment that grows: what was put is found, by its writer and by others, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.log.blocks import open_blocks
from easydata.cache.log.decoded import DecodedBlocks
from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import walk
from easydata.cache.log.layout import NEVER, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import SegmentKind, segment_metadata
from easydata.cache.log.segment import ROW_BITS, Segment
from easydata.cache.log.table import HashTable
from easydata.cache.log.writer import SegmentWriter
from easydata.errors import CorruptShardError, StorageError
from easydata.format.codecs import Codec
from tests.full_disk import full_disk

CODEC = EntryCodec(
    EntryLayout([("ids", pa.list_(pa.uint16())), ("n", pa.int64())]),
    segment_metadata(SegmentKind(Codec("none"))),
)


def read(folder: Path, name: str) -> Segment:
    """A segment, opened anew."""
    path = folder / f"{name}.arrow"
    blocks = open_blocks(path, DecodedBlocks(0), check=True)
    return Segment(name, path, blocks, HashTable(folder / f"{name}.table"))


def view_of(segment: Segment) -> memoryview:
    """The map of a whole segment."""
    view, _ = segment.blocks.block(len(CODEC.schema_message) // 64)
    return view


def entry(key: str, number: int, *, items: int = 5, key_hash: int | None = None) -> Entry:
    """An entry whose content follows from its arguments."""
    name = key.encode()
    ids = np.arange(number, number + items).astype(np.uint16)
    found = xxhash.xxh3_64_intdigest(name) if key_hash is None else key_hash
    return Entry(name, found, 1000 + number, NEVER, b"", b"[]", (ids, number))


def number_of(segment: Segment, given: Entry) -> int | None:
    """The number put last for a key, its ids checked; None if it is not there."""
    hit = segment.find(given.key, given.key_hash)
    if hit is None:
        return None
    (start, stop), number = hit.row.data
    ids = np.frombuffer(hit.view, np.uint16, (stop - start) // 2, start)
    assert ids.tolist() == [(number + i) % 65536 for i in range(len(ids))]
    assert bytes(hit.view[slice(*hit.row.key)]) == given.key
    return int(number)


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(tmp_path, "a", CODEC, capacity=4096)


puts = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 60_000)), min_size=1, max_size=5),
    max_size=12,
)


@settings(max_examples=60)
@given(puts=puts, collide=st.booleans())
def test_a_segment_is_a_dict(
    tmp_path_factory: pytest.TempPathFactory, puts: list[list[tuple[int, int]]], collide: bool
) -> None:
    folder = tmp_path_factory.mktemp("segment")
    writer = SegmentWriter(folder, "a", CODEC, capacity=256)
    reader = read(folder, "a")
    known: dict[str, int] = {}
    for group in puts:
        # Keys of one hash, and of neighbouring ones.
        entries = [entry(f"ключ {k}", n, key_hash=k % 3 if collide else None) for k, n in group]
        writer.put(entries)
        known |= {f"ключ {k}": n for k, n in group}
        for segment in (writer.segment, reader):
            for k in range(13):
                wanted = entry(f"ключ {k}", 0, key_hash=k % 3 if collide else None)
                assert number_of(segment, wanted) == known.get(f"ключ {k}")
    assert len(writer.segment.table) == len(known)


def test_a_segment_grows_under_its_readers(tmp_path: Path, writer: SegmentWriter) -> None:
    reader = read(tmp_path, "a")
    first = entry("first", 1)
    writer.put([first])
    hit = reader.find(first.key, first.key_hash)
    assert hit is not None
    kept = np.frombuffer(hit.view, np.uint16, 5, hit.row.data[0][0])
    for number in range(30):
        writer.put([entry(f"large {number}", number, items=50_000)])
        assert number_of(reader, entry(f"large {number}", 0)) == number
    assert writer.num_bytes > 2_000_000
    assert view_of(reader) is not hit.view
    assert kept.tolist() == [1, 2, 3, 4, 5]
    assert number_of(reader, first) == 1


def test_plain_arrow_reads_a_growing_segment(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.put([entry("a", 1)])
    writer.put([entry("b", 2), entry("c", 3)])
    table = pa.ipc.open_stream(tmp_path / "a.arrow").read_all()
    table.validate(full=True)
    assert table["easydata:key"].to_pylist() == ["a", "b", "c"]
    assert table["n"].to_pylist() == [1, 2, 3]


def test_a_killed_writer_loses_nothing_that_it_put(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tests.cache.test_cache_log_segment import *\n"
        "writer = SegmentWriter(Path(sys.argv[1]), 'a', CODEC, capacity=100_000)\n"
        "for number in range(10**6):\n"
        "    writer.put([entry(f'key {number}', number)])\n"
        "    os.write(1, number.to_bytes(8, 'little'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=-1) as process:
        assert process.stdout is not None
        for _ in range(2000):
            process.stdout.read(8)
        process.kill()
        told = process.stdout.read()
    last = int.from_bytes(told[len(told) // 8 * 8 - 8 :][:8], "little") if len(told) >= 8 else 1999
    reader = read(tmp_path, "a")
    for number in range(last + 1):
        assert number_of(reader, entry(f"key {number}", 0)) == number
    assert number_of(reader, entry(f"key {last + 2}", 0)) is None
    # And without the table: every message is found by walking.
    starts = [start for start, _ in walk(view_of(reader))]
    assert len(starts) in (last + 1, last + 2)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "a", CODEC, capacity=64)
    writer.put([entry("before", 1)])
    with full_disk(2 << 20), pytest.raises(StorageError, match="full"):
        writer.put([entry("large", 2, items=2_000_000)])
    reader = read(tmp_path, "a")
    assert number_of(reader, entry("large", 0)) is None
    writer.put([entry("after", 3)])
    for segment in (writer.segment, reader):
        assert number_of(segment, entry("before", 0)) == 1
        assert number_of(segment, entry("after", 0)) == 3
        assert number_of(segment, entry("large", 0)) is None


def test_damage_is_told_and_loses_no_other_entry(tmp_path: Path, writer: SegmentWriter) -> None:
    entries = [entry(f"key {number}", number) for number in range(20)]
    for each in entries:
        writer.put([each])
    hit = writer.segment.find(entries[7].key, entries[7].key_hash)
    assert hit is not None
    row = hit.row
    writer.close()
    path = tmp_path / "a.arrow"
    for position in (row.data[0][0], row.key[0] - 300):  # its data, its header
        data = bytearray(path.read_bytes())
        data[position] ^= 4
        (tmp_path / "b.arrow").write_bytes(data)
        (tmp_path / "b.table").write_bytes((tmp_path / "a.table").read_bytes())
        reader = read(tmp_path, "b")
        with pytest.raises(CorruptShardError, match=r"b\.arrow is damaged in the entry at byte"):
            reader.find(entries[7].key, entries[7].key_hash)
        found = [reader.locate(unit << ROW_BITS)[1].data[1] for unit in reader.units()]
        assert found == [n for n in range(20) if n != 7]
        for number in range(20):
            if number != 7:
                assert number_of(reader, entries[number]) == number


def test_a_table_that_leads_astray_is_noticed(tmp_path: Path, writer: SegmentWriter) -> None:
    one, two = entry("one", 1), entry("two", 2)
    writer.put([one, two])
    hit = writer.segment.find(one.key, one.key_hash)
    assert hit is not None
    slot = hit.slot
    good = writer.segment.table.place(slot)
    for place in (good + 5, good + (1 << 24), good + (1 << 44), 0):
        writer.segment.table.replace(slot, place)
        with pytest.raises(CorruptShardError, match=r"damaged in the entry|has no row 5 in block"):
            read(tmp_path, "a").find(one.key, one.key_hash)
    writer.segment.table.replace(slot, good + 1)  # the entry of another key
    assert read(tmp_path, "a").find(one.key, one.key_hash) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"text", bytes(200), pa.schema([("x", pa.int64())]).serialize().to_pybytes()],
    ids=["empty", "text", "zeros", "another schema"],
)
def test_another_file_is_no_segment(tmp_path: Path, writer: SegmentWriter, data: bytes) -> None:
    (tmp_path / "a.arrow").unlink()
    (tmp_path / "a.arrow").write_bytes(data)
    with pytest.raises(CorruptShardError, match="is no segment of a cache"):
        read(tmp_path, "a")


def test_an_existing_segment_is_never_written_over(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.put([entry("a", 1)])
    with pytest.raises(StorageError):
        SegmentWriter(tmp_path, "a", CODEC, capacity=64)
    assert number_of(read(tmp_path, "a"), entry("a", 0)) == 1


def test_a_closed_segment_takes_nothing_more(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.put([entry("a", 1)])
    writer.flush()
    writer.close()
    writer.close()
    with pytest.raises(StorageError):
        writer.put([entry("b", 2)])
    assert number_of(read(tmp_path, "a"), entry("a", 0)) == 1
    assert os.path.getsize(tmp_path / "a.arrow") >= writer.num_bytes
