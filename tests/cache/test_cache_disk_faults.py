"""A cache folder whose bytes are lost, strange, or cannot be written: never a wrong answer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import re
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.cache import opening
from easydata.cache.disk import DiskCache
from easydata.cache.log import framing, locks, mapped, writer
from easydata.errors import (
    EasyDataError,
    FormatVersionError,
    NotADatasetError,
    StorageError,
    UsageError,
)
from tests.cache.folders import NEW, OLD, in_another_process, two_versions, value_of
from tests.cache.layers import Clock, stopped_clock
from tests.full_disk import full_disk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stopped_clock(monkeypatch)


class TestControlAndMarker:
    def test_a_lost_control_file_and_a_clock_that_steps_back(
        self, folder: Path, hands: Clock
    ) -> None:
        with DiskCache(folder) as cache:
            cache.put("k", OLD)
            cache.invalidate()
            cache.put("k", NEW)
        del cache
        gc.collect()
        (folder / "easydata-cache.control").unlink()
        hands.go(-3600)
        cache = DiskCache(folder)
        assert value_of(cache, "k") == NEW
        cache.put("k", "newest")
        cache.put("another", 1)
        assert value_of(cache, "k") == "newest"
        assert value_of(cache, "another") == 1

    @pytest.mark.parametrize("byte", [1, 64, 255])
    @pytest.mark.parametrize("position", [7, 15, 23, slice(0, 64)])
    def test_whatever_is_in_the_control_file_nothing_is_lost(
        self, folder: Path, position: int | slice, byte: int
    ) -> None:
        two_versions(folder)
        control = folder / "easydata-cache.control"
        data = np.fromfile(control, np.uint8)
        data[position] ^= byte
        control.write_bytes(data.tobytes())
        cache = DiskCache(folder)
        assert value_of(cache, "k") == NEW
        cache.put("k", "newest")
        cache.compact()
        assert value_of(cache, "k") == "newest"
        assert value_of(cache, "gone") == OLD

    def test_a_digit_of_the_marker_does_not_delete_everything(self, folder: Path) -> None:
        cache = DiskCache(folder)
        cache.invalidate()
        cache.put("k", NEW)
        cache.close()
        marker = folder / "easydata-cache.json"
        spoilt = re.sub(rb'("cleared": )\d', rb"\g<1>8", marker.read_bytes())
        assert spoilt != marker.read_bytes()
        marker.write_bytes(spoilt)
        with contextlib.suppress(NotADatasetError):
            assert value_of(DiskCache(folder), "k") == NEW

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            '{"format": 1}',
            '{"format": 0, "cleared": 0}',
            '{"format": true, "cleared": 0}',
            '{"format": 1, "cleared": "x"}',
            '{"format": 1, "cleared": null}',
            '{"format": 1, "cleared": -1}',
            '{"format": 1, "cleared": 1e300}',
            f'{{"format": 1, "cleared": {10**30}}}',
        ],
    )
    def test_a_garbage_marker(self, folder: Path, text: str) -> None:
        DiskCache(folder)
        (folder / "easydata-cache.json").write_text(text)
        with pytest.raises(NotADatasetError, match="is not the marker of a cache"):
            DiskCache(folder)

    def test_a_newer_format(self, folder: Path) -> None:
        DiskCache(folder)
        (folder / "easydata-cache.json").write_text('{"format": 2, "cleared": 0, "new": 1}')
        for readonly in (True, False):
            with pytest.raises(FormatVersionError, match="Upgrade easydata"):
                DiskCache(folder, readonly=readonly)

    @pytest.mark.parametrize("data", [b"12345", b"\xff" * 4096])
    def test_garbage_among_the_times_of_use(self, folder: Path, data: bytes) -> None:
        DiskCache(folder, size_limit="1MB").put("k", OLD)
        (folder / "easydata-cache.uses").write_bytes(data)
        cache = DiskCache(folder, size_limit="1MB")
        cache.put("k", NEW)
        assert value_of(cache, "k") == NEW


class TestNothingComesBack:
    @pytest.mark.parametrize("raises", [True, False])
    @pytest.mark.parametrize("moment", range(8))
    def test_whenever_a_merge_stops_to_delete_its_sources(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int, raises: bool
    ) -> None:
        """For a reader that looks between two deletions, and for one that comes after a kill."""
        cache = DiskCache(folder)
        cache.put("k", OLD)
        cache.close()
        cache.put("k", NEW)
        cache.close()
        cache.invalidate("k")
        reader = DiskCache(folder)
        unlink = Path.unlink
        deleted = []

        def stop(path: Path, missing_ok: bool = False) -> None:
            if len(deleted) == moment:
                if raises:
                    raise OSError(errno.EIO, "input/output error")
                look()
            deleted.append(path)
            unlink(path, missing_ok=missing_ok)

        def look() -> None:
            assert value_of(DiskCache(folder, readonly=True), "k") is None
            assert value_of(reader, "k") is None

        monkeypatch.setattr(Path, "unlink", stop)
        with contextlib.suppress(StorageError):
            cache.compact()
        monkeypatch.undo()
        look()
        for again in (DiskCache(folder), cache):
            assert again.get("k") is None
            again.compact()
            assert again.get("k") is None
        look()
        assert not list(folder.glob("*retired*"))

    def test_a_segment_that_is_seen_before_its_first_entry(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, other = DiskCache(folder), DiskCache(folder)
        put = writer.SegmentWriter.put

        def look_before(self: writer.SegmentWriter, entries: Any) -> None:
            assert other.get("k") is None
            put(self, entries)

        monkeypatch.setattr(writer.SegmentWriter, "put", look_before)
        cache.put("k", OLD)
        monkeypatch.undo()
        assert value_of(other, "k") == OLD
        cache.put("k", NEW)
        assert value_of(other, "k") == NEW

    def test_a_reader_between_a_look_and_a_merge(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, reader = DiskCache(folder), DiskCache(folder)
        cache.put("k", OLD)
        assert value_of(reader, "k") == OLD
        cache.put("other", 1)
        find = type(reader._store.segments()[0]).find

        def merge_before(*args: Any) -> Any:
            monkeypatch.undo()
            cache.put("large", bytes(3 << 20))
            cache.put("k", NEW)
            cache.close()
            return find(*args)

        monkeypatch.setattr(type(reader._store.segments()[0]), "find", merge_before)
        assert value_of(reader, "k") in (OLD, NEW)
        assert value_of(reader, "k") == NEW


class TestLocks:
    def test_a_new_segment_is_locked_even_if_somebody_probes_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever sweeps the folder holds a shared lock for a moment, perhaps just this one."""
        cache = DiskCache(folder)

        def lock_while_probed(descriptor: int) -> None:
            probe = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
            fcntl.flock(probe, fcntl.LOCK_SH)
            timer = threading.Timer(0.05, os.close, [probe])
            timer.start()
            locks.lock(descriptor)
            timer.join()

        monkeypatch.setattr(writer, "lock", lock_while_probed)
        cache.put("k", OLD)
        other = DiskCache(folder)
        cache.put("k", NEW)
        assert value_of(other, "k") == NEW
        assert value_of(DiskCache(folder), "k") == NEW

    def test_a_segment_that_is_being_made_is_not_swept(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, other = DiskCache(folder), DiskCache(folder)

        def sweep_before(descriptor: int) -> None:
            monkeypatch.undo()
            other.put("other", 1)
            other.compact()
            locks.lock(descriptor)

        monkeypatch.setattr(writer, "lock", sweep_before)
        cache.put("k", NEW)
        assert value_of(cache, "k") == NEW
        assert value_of(DiskCache(folder), "k") == NEW


class TestBounds:
    @pytest.mark.parametrize("share", [0.01, 0.5, 0.85, 0.95])
    def test_the_entry_just_written_stays(self, folder: Path, share: float) -> None:
        limit = 1_000_000
        cache = DiskCache(folder, size_limit=limit)
        for number in range(5):
            cache.put(f"k{number}", bytes(int(limit * share)))
            assert cache.contains(f"k{number}")

    def test_to_read_only_means_not_to_evict(self, folder: Path) -> None:
        with DiskCache(folder) as cache:
            cache.put_many({f"k{number}": bytes(100_000) for number in range(100)})
        before = sorted(os.listdir(folder))
        with DiskCache(folder, readonly=True, size_limit=10**6) as reader:
            assert len(reader) == 100
        assert sorted(os.listdir(folder)) == before

    def test_decoded_blocks_leave_the_memory(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "_DECODED_BYTES", 1 << 20)
        cache = DiskCache(folder, "zstd")
        for block in range(20):
            cache.put_many({f"{block}-{row}": bytes(1000) for row in range(1000)})
        cache.compact()
        tracemalloc.start()
        try:
            for block in range(20):
                assert cache.contains(f"{block}-0")
            assert tracemalloc.get_traced_memory()[0] < 5 << 20
        finally:
            tracemalloc.stop()

    def test_more_items_than_arrow_can_count_in_a_column(self, folder: Path) -> None:
        large = np.zeros(1 << 30, np.uint8)
        large[-1] = 7
        with DiskCache(folder) as cache:
            cache.put_many({"a": {"ids": large}, "b": {"ids": large}})
            for key in "ab":
                assert value_of(cache, key)["ids"][-1] == 7


class TestFullDisk:
    def test_what_is_there_can_be_read(self, folder: Path) -> None:
        in_another_process(folder, "cache.put('k', bytes(200_000))")
        with full_disk(100_000), pytest.warns(RuntimeWarning, match="What was put is safe"):
            assert value_of(DiskCache(folder), "k") == bytes(200_000)

    def test_closing_only_warns(self, folder: Path) -> None:
        cache = DiskCache(folder)
        cache.put("k", bytes(200_000))
        with full_disk(100_000), pytest.warns(RuntimeWarning, match="What was put is safe"):
            cache.close()
        assert value_of(DiskCache(folder), "k") == bytes(200_000)

    @pytest.mark.parametrize("act", [DiskCache.compact, DiskCache.expire])
    def test_nothing_is_lost(self, folder: Path, act: Callable[[DiskCache], object]) -> None:
        cache = DiskCache(folder)
        cache.put("k", bytes(200_000))
        cache.put("short", OLD, expiry_seconds=1e-9)
        with full_disk(100_000):
            with pytest.raises(StorageError, match="full"):
                act(cache)
            assert value_of(cache, "k") == bytes(200_000)
        assert value_of(DiskCache(folder), "k") == bytes(200_000)
        cache.put("k", NEW)
        cache.close()
        assert value_of(DiskCache(folder), "k") == NEW
        assert not list(folder.glob(".tmp-*"))

    def test_a_put_that_fails_changes_nothing(self, folder: Path) -> None:
        cache = DiskCache(folder)
        cache.put("k", OLD)
        with full_disk(2 << 20):
            for _ in range(2):
                with pytest.raises(StorageError, match="full"):
                    cache.put("k", bytes(3 << 20))
                assert value_of(cache, "k") == OLD
            cache.put("k", NEW)
        assert value_of(cache, "k") == NEW
        cache.close()
        assert value_of(DiskCache(folder), "k") == NEW


class TestFolders:
    def test_a_folder_that_is_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        for readonly in (True, False):
            with pytest.raises(NotADatasetError, match="is not a cache"):
                DiskCache(tmp_path, readonly=readonly)
        assert os.listdir(tmp_path) == ["notes.txt"]

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        for path in (tmp_path / "file", tmp_path / "file" / "cache"):
            with pytest.raises(EasyDataError, match="is a file"):
                DiskCache(path)
        assert (tmp_path / "file").read_text() == "mine"


class TestPaths:
    def test_the_process_may_go_elsewhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        cache = DiskCache("here")
        cache.put("k", OLD)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert value_of(cache, "k") == OLD
        cache.put("k", NEW)
        cache.close()
        assert value_of(DiskCache(tmp_path / "here"), "k") == NEW
        assert list(Path.cwd().iterdir()) == []

    def test_a_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        DiskCache("~/cache").put("k", 1)
        assert DiskCache(tmp_path / "cache").keys() == ["k"]

    @pytest.mark.parametrize("path", ["", "s3://bucket/x", "file:///x", "a\0b", None, b"x", 3])
    def test_what_is_no_folder_here(self, path: Any, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cache_dir is "):
            DiskCache(path)

    def test_a_folder_that_is_gone_is_told(self, folder: Path) -> None:
        cache = DiskCache(folder)
        cache.put("k", OLD)
        cache.close()
        shutil.rmtree(folder)
        for ask in (lambda: cache.stats, lambda: cache.put("j", 1), cache.compact):
            with pytest.raises(StorageError, match=re.escape(str(folder))):
                ask()

    def test_a_folder_of_folders_is_not_taken_for_an_empty_one(self, tmp_path: Path) -> None:
        (tmp_path / "src").mkdir()
        with pytest.raises(NotADatasetError, match="it holds 'src'"):
            DiskCache(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["src"]

    def test_looking_for_entries_ends_where_the_data_end(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a full tmpfs, to read what is only reserved ends the process."""
        cache = DiskCache(folder)
        cache.put("k", OLD)
        seen = []

        def walk(view: memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
            seen.append(len(view))
            return framing.walk(view, start)

        monkeypatch.setattr(mapped, "walk", walk)
        assert len(cache) == 1
        (path,) = folder.glob("log-*.arrow")
        assert path.stat().st_size >= 1 << 20
        assert seen
        assert max(seen) < 1 << 16


@pytest.mark.parametrize("seconds", [-5, 0, float("nan"), float("inf"), None, "7d", True])
def test_an_age_is_a_number_of_seconds(folder: Path, seconds: Any) -> None:
    cache = DiskCache(folder)
    cache.put("k", 1)
    cache.close()
    with pytest.raises(UsageError, match="seconds is"):
        cache.remove_older(seconds)
    assert cache.remove_older(1e300) == 0
    assert cache.keys() == ["k"]


@pytest.mark.parametrize("compression", [None, b"zstd", 3])
def test_a_compression_is_text(folder: Path, compression: Any) -> None:
    with pytest.raises(UsageError, match="choose one of"):
        DiskCache(folder, compression)
    assert not folder.exists()
