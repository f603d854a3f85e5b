"""SPEC.md of the cache folder says what the code does: its reader, its tables, its names."""

from __future__ import annotations

import json
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

import easydata as ed
from easydata.cache.log import pieces
from easydata.cache.log.folder import FORMAT, CacheFolder
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.segment import ROW_BITS
from easydata.cache.log.store import LogStore

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "easydata" / "cache" / "log" / "SPEC.md").read_text(encoding="utf-8")


@lru_cache
def page_code() -> dict[str, Any]:
    """What the Python block of the page defines. It must not need easydata."""
    namespace: dict[str, Any] = {}
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert "easydata" not in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    exec(compile(code, "SPEC.md", "exec"), namespace)
    return namespace


def rows_of(section: str) -> list[list[str]]:
    """The rows of the tables of a section, without their heads."""
    text = PAGE.split(f"## {section}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [row.split(" | ") for row in rows if "`" in row.split(" | ")[0]]


VALUES = {f"doc/{i}": {"ids": np.arange(i, dtype=np.uint16), "n": i} for i in range(40)}


def fill(cache: ed.DiskCache) -> dict[str, Any]:
    """Put, replace, delete and let expire; what is left."""
    cache.put_many(VALUES, ed.CacheMetadata(source_hash="abc"))
    cache.put("doc/1", {"ids": np.arange(3, dtype=np.uint16), "n": -1})
    cache.put("gone", {"ids": np.arange(3, dtype=np.uint16), "n": 0})
    cache.invalidate("gone")
    cache.put("expired", {"ids": np.arange(3, dtype=np.uint16), "n": 0}, expiry_seconds=1e-9)
    return VALUES | {"doc/1": {"ids": np.arange(3, dtype=np.uint16), "n": -1}}


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:3", "gzip"])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_the_reader_of_the_page_reads_what_the_code_writes(
    compression: str, is_sealed: bool, tmp_path: Path
) -> None:
    cache = ed.DiskCache(tmp_path, compression)
    cache.put("cleared", 1)
    cache.invalidate()
    expected = fill(cache)
    if is_sealed:
        cache.close()
    found = page_code()["read_cache"](tmp_path)
    assert found.keys() == expected.keys() == set(cache.keys())
    for key, entry in found.items():
        assert entry["columns"] == {"ids": expected[key]["ids"].tolist(), "n": expected[key]["n"]}
        assert entry["hash"] == xxhash.xxh3_64_intdigest(key.encode())
        metadata = cache.get_metadata(key)
        assert (entry["metadata"] == "") == (metadata is None)
        if metadata is not None:
            assert json.loads(entry["metadata"])["source_hash"] == metadata.source_hash
        assert entry["expires"] == 2**63 - 1
        assert entry["stamp"] == pytest.approx(cache.stamp(key))


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_the_reader_of_the_page_joins_pieces(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 2000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)
    value = {"ids": np.arange(2000), "text": "größe " * 200, "raw": b"ab" * 300, "n": 3, "x": 0.5}
    with ed.DiskCache(tmp_path, compression) as cache:
        cache.put_many({"large": value, "small": 1})
    found = page_code()["read_cache"](tmp_path)
    assert found.keys() == {"large", "small"}
    assert found["large"]["columns"] == value | {"ids": value["ids"].tolist()}
    assert json.loads(found["large"]["recipe"])


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_reader_of_the_page_loses_only_what_is_damaged(
    compression: str, tmp_path: Path
) -> None:
    with ed.DiskCache(tmp_path, compression) as cache:
        for block in range(3):
            keys = map(str, range(800 * block, 800 * block + 800))
            cache.put_many({key: {"ids": np.full(50, int(key))} for key in keys})
    (path,) = tmp_path.glob("seg-*.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = page_code()["read_cache"](tmp_path)
    cache = ed.DiskCache(tmp_path, compression, readonly=True)
    assert len(found) == 1600
    assert sorted(found) == cache.keys()


def test_the_columns_of_the_page_are_those_of_a_segment() -> None:
    rows = [row for row in rows_of("2. Entries") if row[0].startswith("`easydata:")]
    expected = [(f"`{item.name}`", f"`{item.type}`") for item in EntryLayout(()).schema]
    assert [(name, kind) for name, kind, _ in rows] == expected


def test_the_names_of_the_page_are_those_in_a_folder(tmp_path: Path) -> None:
    with ed.DiskCache(tmp_path, size_limit="1MB") as cache:
        fill(cache)
    with ed.DiskCache(tmp_path, "gzip") as cache:
        cache.put("other", [1.5])
    cache.put("late", 1)
    cache.get_or_compute("computed", lambda: 1)
    named = " ".join(row[0] for row in rows_of("1. Files"))
    for path in tmp_path.iterdir():
        pattern = re.sub(r"[0-9a-f]{16}-[0-9a-f]{16}", "STAMP-ID", path.name)
        assert pattern in named or pattern.replace(".parquet", ".arrow") in named, path.name
    marker = json.loads((tmp_path / "easydata-cache.json").read_text())
    assert [row[0] for row in rows_of("1. Files")[-3:]] == [f"`{name}`" for name in marker]
    assert marker["format"] == FORMAT == 1
    assert marker["checksum"] == xxhash.xxh3_64_hexdigest(str(marker["cleared"]).encode())


def test_the_table_is_as_the_page_says(tmp_path: Path) -> None:
    with ed.DiskCache(tmp_path) as cache:
        cache.put_many(VALUES)
    (path,) = tmp_path.glob("seg-*.table")
    data = path.read_bytes()
    magic, capacity, used = struct.unpack_from("<8sQQ", data)
    assert (magic, used) == (b"edtable1", len(VALUES))
    assert data[24:64] == struct.pack("<Q", xxhash.xxh3_64_intdigest(data[64:], used)) + bytes(32)
    slots = np.frombuffer(data, "<u8", offset=64).reshape(-1, 2)
    assert len(slots) == capacity
    stream = next(tmp_path.glob("seg-*.arrow")).read_bytes()
    schema = pa.ipc.read_schema(pa.py_buffer(stream))
    for key in VALUES:
        key_hash = xxhash.xxh3_64_intdigest(key.encode())
        slot = key_hash % capacity
        while slots[slot, 0] != key_hash:
            assert slots[slot, 0]
            slot = (slot + 1) % capacity
        unit, row = divmod(int(slots[slot, 1]), 1 << ROW_BITS)
        message = pa.ipc.read_message(pa.py_buffer(stream).slice(64 * unit))
        batch = pa.ipc.read_record_batch(message, schema)
        assert batch.column("easydata:key")[row].as_py() == key
    assert ROW_BITS == 24


def test_the_control_words_are_as_the_page_says(tmp_path: Path) -> None:
    cache = ed.DiskCache(tmp_path)

    def words() -> tuple[int, ...]:
        data = (tmp_path / "easydata-cache.control").read_bytes()
        assert len(data) == 64
        return struct.unpack("<8Q", data)

    cache.put("a", 1)
    first = words()
    assert first[0] >= (cache.stamp("a") or 0) > 0
    cache.put("a", 2)
    second = words()
    assert second[0] > first[0]
    assert second[1] == first[1], "no segment came"
    cache.invalidate()
    third = words()
    assert third[1] != second[1]
    assert third[2] == json.loads((tmp_path / "easydata-cache.json").read_text())["cleared"]
    assert second[0] < third[2] <= third[0]
    assert third[3] == third[2] ^ 2**64 - 1
    assert third[4:] == (0,) * 4


def test_every_message_has_the_checksum_of_the_page(tmp_path: Path) -> None:
    growing = ed.DiskCache(tmp_path)
    for compression in ("none", "zstd"):
        with ed.DiskCache(tmp_path, compression) as cache:
            cache.put_many({f"{compression}/{key}": value for key, value in VALUES.items()})
    growing.put("late", 1)
    paths = list(tmp_path.glob("*.arrow"))
    assert len(paths) == 3
    for path in paths:
        data = path.read_bytes()
        size = 8 + int.from_bytes(data[4:8], "little")
        assert size % 64 == 0
        assert xxhash.xxh3_64_intdigest(data[: size - 8]) == int.from_bytes(
            data[size - 8 : size], "little"
        )
        batches = list(page_code()["blocks"](path))
        assert sum(batch.num_rows for batch in batches) == (1 if "log-" in path.name else 40)


def test_segments_that_are_being_deleted_do_not_count(tmp_path: Path) -> None:
    with ed.DiskCache(tmp_path) as cache:
        cache.put_many(VALUES)
    (path,) = tmp_path.glob("seg-*.arrow")
    (tmp_path / "easydata-cache.retired-0123.json").write_text(json.dumps([path.name]))
    assert page_code()["read_cache"](tmp_path) == {}
    assert ed.DiskCache(tmp_path, readonly=True).keys() == []


def test_the_checksums_of_parquet_are_made_as_the_page_says(tmp_path: Path) -> None:
    with ed.DiskCache(tmp_path / "pq", "gzip") as cache:
        cache.put_many(VALUES)
    with ed.DiskCache(tmp_path / "plain") as cache:
        cache.put_many(VALUES)
    (path,) = (tmp_path / "pq").glob("seg-*.parquet")
    metadata = pa.parquet.read_metadata(path).metadata
    assert json.loads(metadata[b"easydata"]) == {"format": 1, "codec": "gzip"}
    folder = CacheFolder(tmp_path / "pq", readonly=True)
    columns = json.dumps([["ids", "uint16"], ["n", "int64"]]).encode()
    store: LogStore = ed.DiskCache(folder.path, readonly=True)._store
    (segment,) = store.segments()
    view, start = segment.blocks.block(0)
    body = bytes(view)[start:]
    header = 8 + int.from_bytes(body[4:8], "little")
    expected = xxhash.xxh3_64_intdigest(body[header:-8], xxhash.xxh3_64_intdigest(columns))
    assert metadata[b"easydata:checksums"].decode() == f"{expected:016x}"
