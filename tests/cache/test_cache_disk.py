"""A cache folder as its users see it: files, options, upkeep, and what comes back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from easydata.cache.disk import DiskCache
from easydata.errors import CorruptShardError, StorageError, UsageError
from tests.cache.elsewhere import Elsewhere
from tests.cache.folders import NEW, in_another_process, segments, spoil, two_versions, value_of
from tests.cache.layers import Clock, stopped_clock
from tests.cache.values_strategy import assert_same

ODD_KEYS = ["../x", "/etc/x", "a/b", "a\\b", "nul\0", "x" * 10_000, "Case", "case", "größe 😀", ""]
ODD_KEYS += ["seg-1", "log-1", "damaged-1", "easydata-cache.json", ".", ".."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stopped_clock(monkeypatch)


class TestNames:
    def test_keys_never_become_names_of_files(self, folder: Path) -> None:
        cache = DiskCache(folder)
        for number, key in enumerate(ODD_KEYS):
            cache.put(key, number)
        self.check(folder, cache)
        cache.close()
        self.check(folder, DiskCache(folder))

    def check(self, folder: Path, cache: DiskCache) -> None:
        assert cache.keys() == sorted(ODD_KEYS)
        for number, key in enumerate(ODD_KEYS):
            assert cache.get(key) == (number, None)
        assert [path.name for path in folder.parent.iterdir()] == ["cache"]
        for path in folder.iterdir():
            assert path.is_file()
            assert path.name.startswith(("easydata-cache.", "log-", "seg-"))
            assert len(path.name) < 60

    def test_repr_and_pickle(self, folder: Path) -> None:
        cache = DiskCache(folder, "zstd", 60, size_limit="2MB")
        assert repr(cache) == f"DiskCache({str(folder)!r})"
        cache.put("a", [1])
        copied = pickle.loads(pickle.dumps(cache))
        assert repr(copied) == repr(cache)
        assert copied.get("a") == ([1], None)


class TestVerify:
    def test_a_reader_finds_damage_and_changes_nothing(self, folder: Path) -> None:
        newer = two_versions(folder)
        assert DiskCache(folder, readonly=True, verify="open").verify() == []
        spoil(folder, NEW)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        cache = DiskCache(folder, readonly=True)
        (problem,) = cache.verify()
        assert str(newer) in problem
        assert "entries are lost" in problem
        with pytest.raises(StorageError, match="readonly=True"):
            cache.verify(repair=True)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before

    @pytest.mark.parametrize("readonly", [True, False])
    def test_it_can_be_asked_for_at_once(self, folder: Path, readonly: bool) -> None:
        newer = two_versions(folder)
        spoil(folder, NEW)
        with pytest.raises(CorruptShardError, match=r"verify\(repair=True\)") as raised:
            DiskCache(folder, readonly=readonly, verify="open")
        assert str(newer) in str(raised.value)
        assert DiskCache(folder).verify(repair=True) != []
        assert DiskCache(folder, readonly=readonly, verify="open").keys() == ["gone"]


class TestSealing:
    @pytest.mark.parametrize(
        ("options", "suffix", "codec"),
        [
            ({}, ".arrow", None),
            ({"compression": "lz4"}, ".arrow", "lz4"),
            ({"compression": "zstd"}, ".arrow", "zstd"),
            ({"compression": "zstd:9"}, ".arrow", "zstd"),
            ({"compression": "gzip"}, ".parquet", "GZIP"),
            ({"format": "parquet"}, ".parquet", "UNCOMPRESSED"),
            ({"compression": "zstd", "format": "parquet"}, ".parquet", "ZSTD"),
        ],
    )
    def test_codec_and_format(
        self, folder: Path, options: dict[str, Any], suffix: str, codec: str | None
    ) -> None:
        values = {f"k{n}": {"ids": np.full(2000, n, "<u2")} for n in range(50)}
        with DiskCache(folder, **options) as cache:
            cache.put_many(values)
            (growing,) = segments(folder, "log")
            assert growing.suffix == ".arrow"
        assert segments(folder, "log") == []
        (path,) = segments(folder)
        assert path.suffix == suffix
        if suffix == ".parquet":
            metadata = pq.ParquetFile(path).metadata
            found = {
                metadata.row_group(0).column(n).compression for n in range(metadata.num_columns)
            }
            assert codec in found
            assert pq.read_table(path).num_rows == 50
        else:
            with pa.ipc.open_stream(path) as stream:
                assert stream.read_all().num_rows == 50
            assert (path.stat().st_size < 100_000) == (codec is not None)
        # Whatever wrote it, any cache reads it.
        for other in (DiskCache(folder, readonly=True), DiskCache(folder, "lz4")):
            for key, value in values.items():
                assert_same(value, value_of(other, key))

    def test_gzip_needs_parquet(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="gzip"):
            DiskCache(folder, "gzip", format="ipc")
        assert not folder.exists()


class TestUpkeep:
    def test_expire_says_how_many(self, folder: Path, hands: Clock) -> None:
        with DiskCache(folder, expiry_seconds=10) as cache:
            cache.put("a", 1)
            cache.put("b", 2, expiry_seconds=100)
            cache.put_many({"c": 3, "d": 4}, expiry_seconds=5)
            assert cache.expire() == 0
            hands.go(6)
            assert cache.expire() == 2
            assert cache.keys() == ["a", "b"]
            hands.go(5)
            assert cache.expire() == 1
            assert cache.expire() == 0
            assert cache.get("b") == (2, None)

    def test_compact_frees_what_was_replaced(self, folder: Path) -> None:
        with DiskCache(folder) as cache:
            for number in range(50):
                cache.put("k", bytes([number]) * 20_000)
            cache.close()
            before = cache.stats["bytes"]
            cache.compact()
            after = cache.stats["bytes"]
            assert before is not None
            assert after is not None
            assert after <= before
            assert after < 100_000
            assert cache.get("k") == (bytes([49]) * 20_000, None)

    def test_shrink_says_how_many(self, folder: Path) -> None:
        with DiskCache(folder) as cache:
            for number in range(100):
                cache.put(f"k{number:02}", bytes([number]) * 20_000)
            removed = cache.shrink("1MB")
            assert 0 < removed < 100
            assert cache.keys() == [f"k{number:02}" for number in range(removed, 100)]
            assert cache.stats["evictions"] == removed
            assert cache.shrink(1_000_000) == 0

    def test_readers_do_none_of_it(self, folder: Path) -> None:
        two_versions(folder)
        cache = DiskCache(folder, readonly=True)
        for call in (
            cache.expire,
            cache.compact,
            lambda: cache.shrink("1MB"),
            lambda: cache.put("k", 1),
            lambda: cache.put_many({"k": 1}),
            cache.invalidate,
        ):
            with pytest.raises(StorageError, match="readonly=True"):
                call()
        assert value_of(cache, "k") == NEW

    def test_a_limit_holds_with_two_writers(self, folder: Path) -> None:
        other = Elsewhere(_limited, str(folder))
        try:
            cache = _limited(str(folder))
            for number in range(200):
                cache.put(f"own {number}", bytes([number]) * 20_000)
                other.call("put", f"other {number}", bytes([number]) * 20_000)
                assert cache.get(f"other {number}") == (bytes([number]) * 20_000, None)
                assert other.call("get", f"own {number}") == (bytes([number]) * 20_000, None)
            cache.close()
            other.call("close")
            size = cache.stats["bytes"]
            assert size is not None
            assert size <= 2_000_000
            assert 0 < len(cache) < 110
        finally:
            other.kill()


def _limited(folder: str) -> DiskCache:
    return DiskCache(folder, size_limit="2MB")


SCALARS = [None, True, False, 0, -1, 2**70, 1.5, "", "größe", b"", b"\0", 3.0]
ARRAYS = [np.zeros(0, "<u2"), np.zeros((0, 3), "<f4"), np.zeros((2, 0), "<i8"), np.array(5)]


class TestWhatComesBack:
    @pytest.mark.parametrize("together", [True, False])
    def test_scalars_and_empty_arrays(self, folder: Path, together: bool) -> None:
        values = dict(enumerate([*SCALARS, *ARRAYS, *({"a": value} for value in SCALARS + ARRAYS)]))
        with DiskCache(folder) as cache:
            if together:
                cache.put_many({f"ключ {key}": value for key, value in values.items()})
            else:
                for key, value in values.items():
                    cache.put(f"ключ {key}", value)
            self.check(cache, values)
        self.check(cache, values)
        self.check(DiskCache(folder, readonly=True), values)

    def check(self, cache: DiskCache, values: dict[int, Any]) -> None:
        found = cache.get_many([f"ключ {key}" for key in values])
        assert list(found) == [f"ключ {key}" for key in values]
        for key, value in values.items():
            assert_same(value, found[f"ключ {key}"][0])
            assert_same(value, value_of(cache, f"ключ {key}"))

    def test_many_kinds_of_columns(self, folder: Path) -> None:
        values = {f"k{n}": {f"column {n}": np.arange(n, dtype="<u2")} for n in range(60)}
        with DiskCache(folder) as cache:
            for key, value in values.items():
                cache.put(key, value)
            assert 16 <= len(segments(folder, "log")) <= 18
            for opened in (cache, DiskCache(folder, readonly=True)):
                for key, value in values.items():
                    assert_same(value, value_of(opened, key))
        for key, value in values.items():
            assert_same(value, value_of(cache, key))

    def test_close_and_use_again(self, folder: Path) -> None:
        cache = DiskCache(folder)
        for number in range(5):
            cache.put("k", number)
            cache.put(str(number), [number])
            cache.close()
            cache.close()
            assert cache.get("k") == (number, None)
        assert len(cache) == len(DiskCache(folder)) == 6

    def test_what_a_writer_that_died_has_put(self, folder: Path) -> None:
        in_another_process(folder, "cache.put('größe', {'ids': [1, 2]})")
        assert DiskCache(folder, readonly=True).get("größe") == ({"ids": [1, 2]}, None)
        assert DiskCache(folder).get("größe") == ({"ids": [1, 2]}, None)
        assert segments(folder, "log") == []
