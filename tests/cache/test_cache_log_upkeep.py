"""Sealing and merging: what is written, in which order, and what others see meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from easydata.cache.disk import DiskCache
from easydata.cache.log import folder, locks, merge, output, pieces, upkeep
from easydata.cache.log.census import take_census
from easydata.cache.log.entry import Entry
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.pieces import cut
from easydata.cache.log.segment import newest_possible
from easydata.cache.log.table import HashTable
from easydata.cache.values import encode
from easydata.cache.writing import _size
from easydata.errors import CorruptShardError
from tests.cache.folders import NEW, OLD, overwrite, segments, spoil, value_of
from tests.cache.layers import stopped_clock
from tests.cache.test_cache_log_pieces import CODEC, ENTRY

Patch = pytest.MonkeyPatch


@pytest.fixture
def small(monkeypatch: Patch) -> None:
    """Here even 2 kB are large."""
    monkeypatch.setattr(pieces, "LARGE_BYTES", 2000)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)


def batches(path: Path) -> list[int]:
    """Rows of each block of the only segment."""
    (segment,) = segments(path)
    return [batch.num_rows for batch in pa.ipc.open_stream(segment.read_bytes())]


class TestWhatIsWritten:
    def test_only_what_counts_of_a_block(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        cache.put_many({f"{number}": number for number in range(600)})
        cache.close()
        cache.put("0", -1)
        cache.compact()
        assert [value_of(cache, f"{number}") for number in range(600)] == [-1, *range(1, 600)]

    def test_blocks_have_at_most_so_many_bytes(self, tmp_path: Path, monkeypatch: Patch) -> None:
        monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
        with DiskCache(tmp_path) as cache:
            for number in range(10):
                cache.put(f"{number}", bytes(300))
        assert batches(tmp_path) == [3, 3, 3, 1]

    def test_also_blocks_of_a_thousand_rows(self, tmp_path: Path, monkeypatch: Patch) -> None:
        monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)
        with DiskCache(tmp_path) as cache:
            for number in range(1000):
                cache.put(f"{number}", bytes(100))
        assert max(batches(tmp_path)) < 100

    def test_entries_stay_in_order(self, tmp_path: Path) -> None:
        with DiskCache(tmp_path) as cache:
            cache.put_many({"a": 1, "b": 2})
            for number in range(1000):
                cache.put(f"{number}", number)
            cache.put_many({"c": 1, "d": 2})
        keys = DiskCache(tmp_path).to_table()["key"].to_pylist()
        assert keys == ["a", "b", *map(str, range(1000)), "c", "d"]

    def test_single_entries_and_batches_stay_in_order(self, tmp_path: Path) -> None:
        with DiskCache(tmp_path) as cache:
            cache.put("a", 1)
            cache.put_many({"b": 2, "c": 3})
            cache.put("d", 4)
        assert DiskCache(tmp_path).to_table()["key"].to_pylist() == list("abcd")

    def test_an_entry_that_is_not_large_has_no_segment_of_its_own(
        self, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        monkeypatch.setattr(pieces, "PIECE_BYTES", 500)
        with DiskCache(tmp_path) as cache:
            cache.put("a", bytes(900))
            cache.put("b", bytes(900))
        assert len(segments(tmp_path)) == 1

    @pytest.mark.usefixtures("small")
    def test_another_format_is_reason_enough_to_write_a_large_entry(self, tmp_path: Path) -> None:
        DiskCache(tmp_path, "zstd").put("k", bytes(9000))
        DiskCache(tmp_path, "zstd", format="parquet").compact()
        assert [path.suffix for path in segments(tmp_path)] == [".parquet"]

    @pytest.mark.usefixtures("small")
    def test_a_large_entry_is_older_than_its_segment(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", bytes(3000))
        (segment,) = cache._store.segments()
        assert take_census([segment]).stamps[0] < newest_possible(segment.name)

    @pytest.mark.usefixtures("small")
    def test_a_joined_entry_has_one_block(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path, "lz4")
        cache.put("k", bytes(3000))
        (segment,) = cache._store.segments()
        with pytest.raises(CorruptShardError, match="has no block 1"):
            segment.locate(1 << 24)

    def test_a_value_just_as_large_as_the_limit_is_kept(self, tmp_path: Path) -> None:
        value = bytes(1_000_000 - _size(encode(b"")))
        assert _size(encode(value)) == 1_000_000
        cache = DiskCache(tmp_path, size_limit=1_000_000)
        cache.put("k", value)
        assert cache.contains("k")


class TestPieces:
    @pytest.mark.parametrize("max_bytes", range(16, 21))
    def test_recipes_are_cut_between_characters(self, max_bytes: int) -> None:
        entry = ENTRY._replace(recipe="größe·大".encode() * 9)
        for row in cut(CODEC.layout, entry, max_bytes):
            row.recipe.decode()

    def test_bytes_are_cut_anywhere(self) -> None:
        entry = Entry(b"k", 1, 2, 3, b"", b"[]", (b"a\x80\x80\x80" * 10,))
        rows = cut(EntryLayout([("b", pa.binary())]), entry, 16)
        assert [len(row.data[0]) for row in rows] == [14, 16, 10]


class TestWhenToMerge:
    def test_four_of_one_size_become_one(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        counts = []
        for number in range(4):
            cache.put(f"{number}", number)
            cache.close()
            counts.append(len(segments(tmp_path)))
        assert counts == [1, 2, 3, 1]

    def test_the_largest_stay_as_they_are(self, tmp_path: Path, monkeypatch: Patch) -> None:
        monkeypatch.setattr(upkeep, "_LARGEST", 1000)
        cache = DiskCache(tmp_path)
        for number in range(6):
            cache.put(f"{number}", bytes(2000))
            cache.close()
        assert len(segments(tmp_path)) == 6

    def test_nobody_merges_while_another_does(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", 1)
        with locks.exclusive(tmp_path / "easydata-cache.merging", wait=False):
            cache.close()
            assert len(segments(tmp_path, "log")) == 1
        assert DiskCache(tmp_path).keys() == ["k"]
        assert segments(tmp_path, "log") == []

    def test_what_a_killed_process_left_is_swept(self, tmp_path: Path) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", 1)
        left = tmp_path / ".tmp-0123456789abcdef-seg-1-2.arrow"
        left.write_bytes(b"x")
        cache.close()
        assert not left.exists()

    def test_segments_that_grow_are_left_alone(self, tmp_path: Path) -> None:
        caches = [DiskCache(tmp_path) for _ in range(4)]
        for number, cache in enumerate(caches):
            cache.put(f"{number}", number)
        with DiskCache(tmp_path) as last:
            last.put("last", 1)
        assert len(segments(tmp_path, "log")) == 4
        for number, cache in enumerate(caches):
            cache.put(f"again {number}", number)
        assert len(DiskCache(tmp_path)) == 9


class TestOrderOfSteps:
    def test_a_table_is_there_before_its_segment(self, tmp_path: Path, monkeypatch: Patch) -> None:
        build = HashTable.build

        def first(*args: Any) -> HashTable:
            assert not segments(tmp_path)
            return build(*args)

        cache = DiskCache(tmp_path)
        cache.put("k", 1)
        monkeypatch.setattr(output.HashTable, "build", first)
        cache.close()
        assert len(segments(tmp_path)) == 1

    def test_new_names_are_on_the_disk_before_old_files_go(
        self, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", 1)
        done: list[Any] = []
        retire, sync = folder.CacheFolder.retire, merge.sync_directory

        def synced(path: Path) -> None:
            done.append(len(segments(path)))
            sync(path)

        def retired(*args: Any, **kwargs: Any) -> None:
            done.append("retire")
            retire(*args, **kwargs)

        monkeypatch.setattr(merge, "sync_directory", synced)
        monkeypatch.setattr(folder.CacheFolder, "retire", retired)
        cache.close()
        assert done == [1, "retire"]

    def test_a_reader_between_the_new_and_the_end_of_the_old(
        self, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        cache, reader = DiskCache(tmp_path), DiskCache(tmp_path)
        for value in (OLD, NEW):
            cache.put("k", value)
            cache.close()
        retire = folder.CacheFolder.retire

        def look(*args: Any, **kwargs: Any) -> None:
            assert value_of(reader, "k") == NEW
            retire(*args, **kwargs)

        monkeypatch.setattr(folder.CacheFolder, "retire", look)
        cache.compact()
        assert len(reader._store.segments()) == 1

    def test_a_file_is_locked_until_it_has_its_name(
        self, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", 1)
        replace, seen = os.replace, []

        def look(old: Path, new: Path) -> None:
            if "-seg-" in str(old):
                seen.append(locks.is_locked(old))
            replace(old, new)

        monkeypatch.setattr(os, "replace", look)
        cache.close()
        assert seen
        assert all(seen)

    def test_a_file_that_was_swept_before_it_was_locked_is_made_again(
        self, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", 1)
        lock = locks.lock

        def swept(descriptor: int) -> None:
            monkeypatch.undo()
            for path in tmp_path.glob(".tmp-*"):
                path.unlink()
            lock(descriptor)

        monkeypatch.setattr(locks, "lock", swept)
        cache.close()
        assert len(segments(tmp_path)) == 1
        assert segments(tmp_path, "log") == []

    @pytest.mark.usefixtures("small")
    def test_what_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: Patch) -> None:
        with DiskCache(tmp_path, "zstd") as cache:
            cache.put("k", bytes(3000))
            cache.put("small", b"")
        before = sorted(os.listdir(tmp_path))
        cache = DiskCache(tmp_path)

        def fail(_: output.Output) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(output.Output, "finish", fail)
        with pytest.raises(ZeroDivisionError):
            cache.compact()
        assert sorted(os.listdir(tmp_path)) == before

    @pytest.mark.usefixtures("small")
    def test_a_stamp_is_nobody_elses(self, tmp_path: Path, monkeypatch: Patch) -> None:
        """The clock stands still, and another puts while a large value is written."""
        stopped_clock(monkeypatch)
        cache, other = DiskCache(tmp_path), DiskCache(tmp_path)
        other.put("x", "y")
        cache._store.control._tick, other._store.control._tick = 9, 8
        finish, done = output.Output.finish, []

        def meanwhile(self: output.Output) -> None:
            if not done:
                done.append(1)
                other.put("k", "newer")
            finish(self)

        monkeypatch.setattr(output.Output, "finish", meanwhile)
        cache.put("k", bytes(3000))
        assert value_of(cache, "k") == value_of(other, "k") == "newer"


class TestDamage:
    @pytest.mark.usefixtures("small")
    def test_a_damaged_small_entry_does_not_keep_a_large_one_out(
        self, tmp_path: Path, monkeypatch: Patch
    ) -> None:
        cache = DiskCache(tmp_path)
        cache.put("k", bytes(3000))
        other = DiskCache(tmp_path)
        other.put("k", OLD)
        (log,) = segments(tmp_path, "log")
        spoil(tmp_path, OLD)
        os.utime(log, ns=(1, 1))  # what comes now is newer than anything that was lost
        cache = DiskCache(tmp_path)
        cache.put("k", bytes(4000))
        assert value_of(cache, "k") == bytes(4000)

    def test_the_bound_of_what_is_lost_allows_for_the_times_of_files(self, tmp_path: Path) -> None:
        one, two = DiskCache(tmp_path), DiskCache(tmp_path)
        one.put("a", 1)
        two.put("a", 1)
        one.put("k", OLD)
        two.put("k", NEW)
        (log,) = [path for path in segments(tmp_path, "log") if NEW in path.read_bytes()]
        at = log.stat().st_mtime_ns
        spoil(tmp_path, NEW)
        os.utime(log, ns=(at, at))
        assert DiskCache(tmp_path, readonly=True).get("k") is None

    def test_bytes_inside_a_damaged_value_are_no_entries(self, tmp_path: Path) -> None:
        """Of the last entry of a segment that grows, which is a file of another cache."""
        with DiskCache(tmp_path / "inner") as inner:
            inner.put("secret", "of the inner cache")
        (file,) = segments(tmp_path / "inner")
        outer = DiskCache(tmp_path / "outer")
        outer.put("first", b"first")
        outer.put("file", file.read_bytes())
        spoil(tmp_path / "outer", b"file")
        assert DiskCache(tmp_path / "outer", readonly=True).keys() == ["first"]
        outer.close()
        reader = DiskCache(tmp_path / "outer")
        assert reader.keys() == ["first"]
        assert reader.get("secret") is None

    def test_nor_do_they_say_how_old_it_was(self, tmp_path: Path) -> None:
        with DiskCache(tmp_path / "inner") as inner:
            inner.put("any", 1)
        (file,) = segments(tmp_path / "inner")
        cache = DiskCache(tmp_path / "outer")
        cache.put("k", b"older")
        cache.close()
        cache.put("k", file.read_bytes())
        (log,) = segments(tmp_path / "outer", "log")
        overwrite(log, log.read_bytes().index(file.read_bytes()) + 100, b"\x55")
        assert DiskCache(tmp_path / "outer", readonly=True).get("k") is None


def test_a_small_value_of_a_compressed_block_does_not_keep_the_block(tmp_path: Path) -> None:
    with DiskCache(tmp_path, "lz4") as cache:
        cache.put_many({f"{number}": {"ids": np.arange(100)} for number in range(100)})
    found = value_of(DiskCache(tmp_path), "5")["ids"]
    assert not found.flags.writeable
    while isinstance(found.base, np.ndarray):
        found = found.base
    assert found.base is None
