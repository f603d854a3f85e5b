"""A cache folder in which bytes were changed: never a wrong answer."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

import numpy as np
import pytest

from easydata.cache.disk import DiskCache
from easydata.cache.log.folder import CacheFolder
from easydata.errors import FormatVersionError
from tests.cache.folders import (
    NEW,
    OLD,
    in_another_process,
    overwrite,
    segments,
    spoil,
    two_versions,
    value_of,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def wait_until_later(folder: Path) -> None:
    """Until what is put has a stamp that no damaged entry of a growing segment can have."""
    newest = max(path.stat().st_mtime_ns for path in folder.glob("log-*.arrow"))
    while time.time_ns() < newest + 25_000_000:
        pass


class TestDamagedSegments:
    def test_a_damaged_newest_version_is_a_miss(self, folder: Path) -> None:
        two_versions(folder)
        spoil(folder, NEW)
        cache = DiskCache(folder)
        assert cache.get("k") is None
        assert not cache.contains("k")
        assert cache.stats["corrupt"] == 1
        assert cache.keys() == ["gone"]
        assert len(cache) == 1
        assert cache.to_table().column("key").to_pylist() == ["gone"]
        cache.compact()
        assert cache.get("k") is None
        assert value_of(cache, "gone") == OLD

    @pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
    def test_nor_if_the_whole_segment_is_unreadable(self, folder: Path, compression: str) -> None:
        newer = two_versions(folder, compression=compression)
        for position in (0, 20, newer.stat().st_size - 6):
            data = newer.read_bytes()
            overwrite(newer, position, bytes([data[position] ^ 255]))
        assert DiskCache(folder, readonly=True).get("k") is None
        cache = DiskCache(folder)
        assert cache.get("k") is None
        cache.compact()
        assert cache.get("k") is None

    def test_a_deleted_key_stays_deleted_when_its_deletion_is_unreadable(
        self, folder: Path
    ) -> None:
        cache = DiskCache(folder)
        cache.put("k", OLD)
        cache.close()
        with DiskCache(folder) as other:  # keeps the tombstone from being merged away
            other.put("k", OLD)
            cache.invalidate("k")
            cache.close()
            for path in segments(folder)[1:]:
                overwrite(path, 20, b"\xff")
            assert DiskCache(folder, readonly=True).get("k") is None

    def test_nor_does_a_growing_segment_bring_the_older_one_back(self, folder: Path) -> None:
        other = DiskCache(folder)
        other.put("k", OLD)
        with DiskCache(folder) as cache:
            cache.put("k", NEW)
        spoil(folder, NEW)
        cache = DiskCache(folder)
        assert cache.get("k") is None
        cache.compact()
        assert cache.get("k") is None
        assert other.get("k") is None
        other.close()
        assert DiskCache(folder).get("k") is None

    @pytest.mark.parametrize("seen", [True, False])
    def test_what_is_put_again_is_served(self, folder: Path, seen: bool) -> None:
        cache = DiskCache(folder)
        cache.put("k", OLD)
        spoil(folder, OLD)
        if seen:
            assert cache.get("k") is None
        cache.put("k", NEW)
        assert value_of(cache, "k") == NEW
        assert value_of(DiskCache(folder), "k") == NEW
        cache.close()
        assert value_of(cache, "k") == NEW
        assert value_of(DiskCache(folder), "k") == NEW

    def test_also_by_processes_that_come_later(self, folder: Path) -> None:
        first = DiskCache(folder)
        first.put("k", OLD)
        spoil(folder, OLD)
        second = DiskCache(folder)
        assert second.get("k") is None
        wait_until_later(folder)
        second.put("k", NEW)
        assert value_of(second, "k") == NEW
        assert value_of(DiskCache(folder), "k") == NEW
        assert value_of(first, "k") == NEW
        first.close()
        second.close()
        second.compact()
        assert value_of(DiskCache(folder), "k") == NEW

    def test_also_when_both_writers_died(self, folder: Path) -> None:
        in_another_process(folder, f"cache.put('k', {OLD!r})")
        spoil(folder, OLD)
        wait_until_later(folder)
        # Nobody merges, as another process seems to be at it.
        with CacheFolder(folder, readonly=True).merging.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            in_another_process(folder, f"cache.put('k', {NEW!r}); assert cache.get('k')")
        assert value_of(DiskCache(folder, readonly=True), "k") == NEW
        assert value_of(DiskCache(folder), "k") == NEW

    def test_every_bit_of_a_schema(self, folder: Path) -> None:
        value = {"ids": np.arange(10, dtype="<u2"), "name": "abc", "n": 3}
        with DiskCache(folder) as cache:
            cache.put("k", value)
        (path,) = segments(folder)
        data = path.read_bytes()
        wrong = []
        for position in range(data.index(b"\xff\xff\xff\xff", 8)):
            for bit in range(0, 8, 3):
                overwrite(path, position, bytes([data[position] ^ 1 << bit]))
                try:
                    found = DiskCache(folder, readonly=True).get("k")
                except FormatVersionError:
                    found = None
                if found is not None and repr(found[0]) != repr(value):
                    wrong.append((position, bit, found[0]))
            overwrite(path, position, data[position : position + 1])
        assert not wrong

    def test_bytes_inside_a_damaged_value_are_no_entries(self, folder: Path) -> None:
        with DiskCache(folder / "inner") as inner:
            inner.put("secret", "of the inner cache")
        (file,) = segments(folder / "inner")
        with DiskCache(folder / "outer") as outer:
            outer.put("file", file.read_bytes())
        spoil(folder / "outer", b"file")
        cache = DiskCache(folder / "outer")
        assert cache.keys() == []
        cache.compact()
        assert cache.get("secret") is None

    def test_repair_leaves_nothing_to_repair(self, folder: Path) -> None:
        newer = two_versions(folder)
        overwrite(newer, 20, b"\xff")
        cache = DiskCache(folder)
        assert len(cache.verify()) == 1
        assert len(cache.verify(repair=True)) == 1
        assert cache.verify() == []
        assert DiskCache(folder, verify="open").get("k") is None
        assert len(list(folder.glob("damaged-*"))) == 1

    def test_what_was_set_aside_does_not_hide_that_it_is_a_cache(self, folder: Path) -> None:
        two_versions(folder)
        spoil(folder, NEW)
        DiskCache(folder).verify(repair=True)
        (folder / "easydata-cache.json").unlink()
        assert DiskCache(folder).keys() == ["gone"]


class TestDamagedTables:
    def test_no_bit_of_it_brings_an_older_version_back(self, folder: Path) -> None:
        table = two_versions(folder).with_suffix(".table")
        data = table.read_bytes()
        for position in range(len(data)):
            for bit in (0, 4, 7):
                overwrite(table, position, bytes([data[position] ^ 1 << bit]))
                assert value_of(DiskCache(folder, readonly=True), "k") in (None, NEW)
            overwrite(table, position, data[position : position + 1])

    @pytest.mark.parametrize("data", [b"", b"text", bytes(96)])
    def test_another_file_in_its_place_is_not_believed(self, folder: Path, data: bytes) -> None:
        table = two_versions(folder).with_suffix(".table")
        table.write_bytes(data)
        assert value_of(DiskCache(folder), "k") == NEW
