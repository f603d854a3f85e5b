"""Values so large that each has a segment of its own."""

from __future__ import annotations

import gc
import json
import os
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easydata.cache.disk import DiskCache
from easydata.cache.log import locks, output, pieces, writer
from easydata.errors import StorageError
from tests.cache.elsewhere import Elsewhere
from tests.cache.folders import overwrite, segments, value_of
from tests.cache.layers import stopped_clock
from tests.cache.values_strategy import assert_same
from tests.full_disk import full_disk

FORMATS: list[dict[str, Any]] = [
    {},
    {"compression": "lz4"},
    {"compression": "zstd"},
    {"compression": "gzip"},
    {"format": "parquet"},
]
MB = 1 << 20


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here even 2 kB are large."""
    monkeypatch.setattr(pieces, "LARGE_BYTES", 2000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)


@pytest.fixture(params=FORMATS, ids=str)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def large(seed: int = 0, items: int = 1000) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {
        "input_ids": chance.integers(0, 60_000, items).astype(np.uint16),
        "text": "größe · 大 " * (items // 10),
        "number": seed,
        "grid": chance.random((items // 10, 3)),
        "words": [f"word {number}" for number in range(items // 10)],
    }


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.usefixtures("small")
class TestLargeValues:
    @pytest.mark.parametrize(
        "value",
        [
            large(),
            np.arange(3000, dtype=">i4").reshape(3, -1),
            "大" * 3000,
            b"\0\xff" * 3000,
            [{"x": number} for number in range(500)],
            [list(range(100)), "a" * 5000, None],
            pa.table({"x": range(2000), "y": ["a"] * 2000}),
            {f"c{number}": np.full(9, number) for number in range(31)} | {"s": "a" * 2000},
        ],
        ids=["dict", "array", "text", "bytes", "records", "nested", "table", "columns"],
    )
    def test_they_come_back_the_same(
        self, tmp_path: Path, options: dict[str, Any], value: Any
    ) -> None:
        with DiskCache(tmp_path, **options) as cache:
            cache.put("k", value)
            assert len(segments(tmp_path)) == 1
            assert segments(tmp_path, "log") == []
            assert_same(value_of(cache, "k"), value)
        assert_same(value_of(DiskCache(tmp_path), "k"), value)
        assert_same(value_of(DiskCache(tmp_path, verify="open"), "k"), value)
        assert_same(value_of(DiskCache(tmp_path, verify="never"), "k"), value)

    def test_readers_of_arrow_see_them_in_pieces(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        value = large()
        DiskCache(tmp_path, **options).put("k", value)
        (path,) = segments(tmp_path)
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                batches = list(file.iter_batches())
        else:
            batches = list(pa.ipc.open_stream(path.read_bytes()))
        table = pa.Table.from_batches(batches)
        told = json.loads(table.schema.metadata[b"easydata"])["pieces"]
        assert (told == 1) == (not options)
        assert table.num_rows == told
        assert set(table["easydata:key"].to_pylist()) == {"k"}
        assert sum(table["input_ids"].to_pylist(), []) == value["input_ids"].tolist()
        assert "".join(table["text"].to_pylist()) == value["text"]
        table.validate(full=True)

    def test_a_newer_one_takes_the_place_of_an_older_one(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        cache = DiskCache(tmp_path, **options)
        reader = DiskCache(tmp_path)
        cache.put("k", large(0))
        seen = value_of(reader, "k")
        for seed in range(1, 6):
            cache.put("k", large(seed))
            assert_same(value_of(reader, "k"), large(seed))
        cache.close()
        assert len(segments(tmp_path)) == 1
        assert_same(seen, large(0))
        cache.put("k", 1)
        cache.close()
        assert len(segments(tmp_path)) == 1
        assert value_of(reader, "k") == 1
        assert reader.stats["corrupt"] == cache.stats["corrupt"] == 0

    def test_what_is_deleted_leaves_the_disk(self, tmp_path: Path, options: dict[str, Any]) -> None:
        cache = DiskCache(tmp_path, **options)
        for key in "abc":
            cache.put(key, large())
        assert len(segments(tmp_path)) == 3
        cache.invalidate("b")
        assert len(segments(tmp_path)) == 2
        cache.invalidate(prefix="c")
        assert len(segments(tmp_path)) == 1
        assert cache.keys() == ["a"]
        cache.invalidate()
        assert segments(tmp_path) == []

    def test_they_are_not_merged(self, tmp_path: Path, options: dict[str, Any]) -> None:
        cache = DiskCache(tmp_path, **options)
        for seed in range(10):
            cache.put(f"large {seed}", large(seed))
        before = {path: path.stat().st_ino for path in segments(tmp_path)}
        for round_ in range(10):
            cache.put_many({f"{round_} {number}": number for number in range(10)})
            cache.close()
        cache.compact()
        found = segments(tmp_path)
        assert len(found) == 11
        assert {path: path.stat().st_ino for path in found if path in before} == before
        assert len(cache) == 110
        for seed in range(10):
            assert_same(value_of(cache, f"large {seed}"), large(seed))

    def test_they_are_compacted_to_another_compression(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        for seed in range(3):
            DiskCache(tmp_path, "zstd:9").put(f"{seed}", large(seed))
        old = segments(tmp_path)
        with DiskCache(tmp_path, **options) as cache:
            cache.compact()
            new = segments(tmp_path)
            assert len(new) == 3
            assert not set(old) & set(new)
            cache.compact()
            assert segments(tmp_path) == new
            for seed in range(3):
                assert_same(value_of(cache, f"{seed}"), large(seed))
            assert sum(cache.overview().codecs.values()) == len(cache.overview().codecs) * 3

    def test_what_has_expired_is_removed(
        self, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hands = stopped_clock(monkeypatch)
        cache = DiskCache(tmp_path, **options)
        cache.put("k", large(), expiry_seconds=10)
        cache.put("stays", large(1))
        hands.go(11)
        assert cache.get("k") is None
        assert cache.expire() == 1
        assert len(segments(tmp_path)) == 1
        assert_same(value_of(cache, "stays"), large(1))

    def test_the_least_used_go_where_there_is_a_limit(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path, size_limit="1MB")
        for number in range(30):
            cache.put(f"{number}", np.full(12_500, number))  # 100 kB
            assert value_of(cache, f"{number}")[0] == number
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 1_000_000
        assert 5 <= len(cache) <= 10
        assert cache.contains("29")
        with pytest.warns(RuntimeWarning, match="is not kept"):
            cache.put("29", np.zeros(200_000))
        assert not cache.contains("29")

    def test_all_that_looks_at_entries_sees_them(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        cache = DiskCache(tmp_path, **options)
        cache.put_many({"a": {"x": 1}, "b": {"x": np.arange(900)}, "c": {"x": 2}})
        cache.put("t", pa.table({"y": np.arange(900)}))
        assert len(cache) == 4
        assert cache.keys() == ["a", "b", "c", "t"]
        sizes = {entry.key: entry.num_bytes for entry in cache.entries()}
        assert sizes["b"] > 7200
        assert sizes["t"] > 7200
        assert cache.get_table("t") == pa.table({"y": np.arange(900)})
        assert cache.get_table(["c", "b"])["x:list"].to_pylist() == [None, list(range(900))]
        assert sorted(cache.to_table()["key"].to_pylist()) == ["a", "b", "c", "t"]
        assert cache.overview().entries == 4
        assert cache.verify() == []

    def test_the_order_of_writes_holds(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        cache.put_many([("k", large(1)), ("j", 1)])
        cache.put("k", 2)
        assert value_of(cache, "k") == 2
        cache.put("k", large(3))
        assert_same(value_of(cache, "k"), large(3))
        cache.put_many({"k": large(4), "j": large(5)})
        assert_same(value_of(DiskCache(tmp_path), "k"), large(4))
        assert_same(value_of(DiskCache(tmp_path), "j"), large(5))

    def test_a_lost_table_is_made_again(self, tmp_path: Path, options: dict[str, Any]) -> None:
        with DiskCache(tmp_path, **options) as cache:
            cache.put("k", large())
        segments(tmp_path)[0].with_suffix(".table").unlink()
        assert_same(value_of(DiskCache(tmp_path), "k"), large())


@pytest.mark.usefixtures("small")
class TestFaults:
    @pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
    def test_damage_is_never_served(
        self,
        tmp_path: Path,
        options: dict[str, Any],
        place: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(pieces, "PIECE_BYTES", 50_000)  # so that most bytes are data
        with DiskCache(tmp_path, **options) as cache:
            cache.put("k", large(items=30_000))
            cache.put("other", 1)
        path = max(segments(tmp_path), key=lambda path: path.stat().st_size)
        content = path.read_bytes()
        position = int(place * len(content))
        overwrite(path, position, bytes([content[position] ^ 4]))
        cache = DiskCache(tmp_path)
        assert cache.get("k") is None
        assert cache.stats["corrupt"] == 1
        assert len(cache.verify()) == 1
        cache.verify(repair=True)
        assert cache.verify() == []
        assert cache.keys() == ["other"]
        assert len(list(tmp_path.glob("damaged-*"))) == 1
        cache.put("k", large(1))
        assert_same(value_of(cache, "k"), large(1))

    @pytest.mark.parametrize("compression", ["none", "lz4"])
    def test_missing_pieces_are_noticed(self, tmp_path: Path, compression: str) -> None:
        with DiskCache(tmp_path, compression) as cache:
            cache.put("k", large())
        (path,) = segments(tmp_path)
        content = path.read_bytes()
        starts = [0]
        stream = pa.ipc.MessageReader.open_stream(pa.BufferReader(content))
        for message in stream:
            starts.append(starts[-1] + len(message.serialize()))
        for end in starts[1:-1]:
            path.unlink()
            path.write_bytes(content[:end])
            cache = DiskCache(tmp_path)
            assert cache.get("k") is None
            assert len(cache.verify()) == 1

    def test_a_full_disk_changes_nothing(self, tmp_path: Path, options: dict[str, Any]) -> None:
        cache = DiskCache(tmp_path, **options)
        cache.put("k", large(1))
        before = files(tmp_path)
        noise = np.random.default_rng(0).integers(0, 2**63, 100_000)
        with full_disk(200_000), pytest.raises(StorageError, match="full"):
            cache.put("k", noise)
        assert files(tmp_path) == before
        assert_same(value_of(cache, "k"), large(1))

    @pytest.mark.parametrize("step", ["add_pieces", "finish"])
    def test_an_interrupted_write_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", large(1))
        before = files(tmp_path)
        original = getattr(output.Output, step)

        def interrupted(*args: Any) -> None:
            original(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(output.Output, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.put("k", large(2))
        assert files(tmp_path) == before
        assert_same(value_of(cache, "k"), large(1))

    def test_others_do_not_take_an_unfinished_file_for_litter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        other = Elsewhere(DiskCache, str(tmp_path))
        original = output.Output.finish

        def finish(self: output.Output) -> None:
            assert other.call("get", "k") is None
            other.call("put", "small", 1)
            other.call("compact")
            monkeypatch.undo()
            original(self)
            other.call("compact")

        cache = DiskCache(tmp_path, **options)
        value = large(2, items=10_000)
        monkeypatch.setattr(pieces, "LARGE_BYTES", 2000)
        monkeypatch.setattr(output.Output, "finish", finish)
        cache.put("k", value)
        assert_same(other.call("get", "k")[0], value)
        assert_same(value_of(cache, "k"), value)
        other.kill()

    def test_what_began_first_is_older(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A put or invalidate that begins and ends while a large value is written is newer."""
        cache, other = DiskCache(tmp_path), DiskCache(tmp_path)
        original = output.Output.finish

        def finish(self: output.Output) -> None:
            monkeypatch.undo()
            other.put("k", "newer")
            other.invalidate("gone")
            original(self)

        monkeypatch.setattr(output.Output, "finish", finish)
        monkeypatch.setattr(pieces, "LARGE_BYTES", 2000)
        cache.put("k", large())
        assert value_of(cache, "k") == value_of(other, "k") == "newer"


def test_a_batch_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = writer.SegmentWriter.put

    def put(self: writer.SegmentWriter, entries: Any) -> None:
        sizes.append(len(entries))
        original(self, entries)

    monkeypatch.setattr(writer.SegmentWriter, "put", put)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)
    cache = DiskCache(tmp_path)
    items = {f"{number}": np.full(250, number) for number in range(17)}
    cache.put_many(items | {"small": 1, "medium": b"a" * 12_000})
    assert sizes == [4, 4, 4, 4, 1, 1, 1]  # 2 kB and a recipe each; columns of their own
    assert len(cache) == 19
    assert all(value_of(cache, key)[0] == int(key) for key in items)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_writing_and_reading_take_little_memory(tmp_path: Path, compression: str) -> None:
    value = {"ids": np.arange(30 * MB, dtype=np.uint32) % 60_000}  # 120 MB
    cache = DiskCache(tmp_path, compression)
    cache.put("small", 1)
    pool = pa.default_memory_pool()
    gc.collect()
    before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        cache.put("k", value)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        found = value_of(cache, "k")["ids"]
        _, read_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (3 if compression == "none" else 120) * MB
    assert read_peak < (3 if compression == "none" else 200) * MB
    assert pool.bytes_allocated() - before < MB
    assert np.array_equal(found, value["ids"])
    assert not found.flags.writeable


@pytest.mark.usefixtures("small")
class TestUpkeep:
    def test_a_large_key_with_a_small_value_is_tidied_once(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        cache = DiskCache(tmp_path, **options)
        for number in range(6):
            cache.put("k" * 3000 + str(number), number)
            cache.close()
        before = segments(tmp_path)
        cache.compact()
        assert segments(tmp_path) == before
        assert len(cache) == 6

    def test_what_has_expired_goes_with_the_next_sealing(
        self, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hands = stopped_clock(monkeypatch)
        with DiskCache(tmp_path, expiry_seconds=10, **options) as cache:
            for number in range(5):
                cache.put(f"{number}", large(number))
            hands.go(11)
            cache.put("new", 1)
        assert len(segments(tmp_path)) == 1

    def test_what_was_cleared_while_it_was_written_goes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, other = DiskCache(tmp_path), DiskCache(tmp_path)
        original = output.Output.finish

        def finish(self: output.Output) -> None:
            other.invalidate()
            original(self)

        monkeypatch.setattr(output.Output, "finish", finish)
        cache.put("k", large())
        monkeypatch.setattr(output.Output, "finish", original)
        assert cache.get("k") is None
        other.put("small", 1)
        other.close()
        assert len(segments(tmp_path)) == 1

    @pytest.mark.parametrize("spoiled", ["gone", "cleared"])
    def test_damage_beside_a_damaged_table(
        self, tmp_path: Path, options: dict[str, Any], spoiled: str
    ) -> None:
        with DiskCache(tmp_path, **options) as cache:
            cache.put("k", np.random.default_rng(0).integers(0, 2**60, 1000))
        (path,) = segments(tmp_path)
        position = path.stat().st_size // 3
        overwrite(path, position, bytes([path.read_bytes()[position] ^ 4]))
        if spoiled == "gone":
            path.with_suffix(".table").unlink()
        else:
            overwrite(path.with_suffix(".table"), 16, bytes(64))
        cache = DiskCache(tmp_path, **options)
        assert cache.get("k") is None
        assert len(cache.verify()) == 1
        cache.put("s", 1)
        cache.put("k", large(1))
        cache.close()
        cache.verify(repair=True)
        assert cache.verify() == []
        assert_same(value_of(cache, "k"), large(1))
        assert cache.keys() == ["k", "s"]

    def test_many_are_compacted_with_few_open_files(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        for number in range(60):
            cache.put(f"{number}", np.arange(1000) + number)
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 30, limits[1]))
        try:
            DiskCache(tmp_path, "lz4").compact()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [value_of(cache, f"{number}")[0] for number in range(60)] == list(range(60))


def test_nobody_deletes_the_file_of_a_living_writer(tmp_path: Path) -> None:
    path = tmp_path / ".tmp-x"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    locks.lock(descriptor)
    locks.delete_unlocked(path)
    assert path.exists()
    locks.unlock(descriptor)
    locks.delete_unlocked(path)
    assert not path.exists()
