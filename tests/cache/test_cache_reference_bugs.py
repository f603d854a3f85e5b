"""What the cache whose interface this one has gets wrong: one test for each."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from easydata.cache.disk import DiskCache
from easydata.cache.keys import compute_key
from easydata.cache.layer import CacheLayer
from easydata.cache.memory import MemoryCache
from easydata.cache.tree import TreeCacheManager
from easydata.errors import UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata
from tests.cache.folders import NEW, segments, spoil, two_versions
from tests.cache.layers import LAYERS, stopped_clock

METADATA = CacheMetadata(config_hash="old")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Executed:
    """Pickled, it leaves a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_values_are_not_pickled(folder: Path, tmp_path: Path) -> None:
    with DiskCache(folder) as cache, pytest.raises(UnsupportedValueError, match="Executed"):
        cache.put("k", Executed(tmp_path / "executed"))
    assert not (tmp_path / "executed").exists()


def test_a_failed_read_deletes_nothing(folder: Path) -> None:
    newer = two_versions(folder)
    spoil(folder, NEW)
    damaged = newer.read_bytes()
    cache = DiskCache(folder)
    assert cache.get("k") is None
    assert newer.read_bytes() == damaged
    cache.put("k", "another writer's")
    assert DiskCache(folder, readonly=True).get("k") == ("another writer's", None)


@pytest.mark.parametrize("layer", LAYERS)
def test_no_metadata_leaves_none_behind(folder: Path, layer: str) -> None:
    with LAYERS[layer](folder) as cache:
        cache.put("k", 1, METADATA)
        cache.put("k", 2)
        assert cache.get("k") == (2, None)
        assert cache.get_metadata("k") is None


@pytest.mark.parametrize("layer", LAYERS)
def test_without_metadata_nothing_is_valid(folder: Path, layer: str) -> None:
    with LAYERS[layer](folder) as cache:
        cache.put("k", "unchecked")
        assert cache.get_or_compute("k", lambda: "new", validate_fn=lambda _: True) == "new"


def test_another_compression_reads_what_is_there(folder: Path) -> None:
    codecs = ["none", "lz4", "zstd", "gzip"]
    for codec in codecs:
        with DiskCache(folder, codec) as cache:
            cache.put(codec, {"ids": [1, 2, 3]})
    for codec in codecs:
        cache = DiskCache(folder, codec, readonly=True)
        assert cache.keys() == sorted(codecs)
        assert all(cache.get(key) == ({"ids": [1, 2, 3]}, None) for key in codecs)


def test_a_codec_is_what_was_asked_for_or_an_error(folder: Path) -> None:
    for codec in ("lz4", "zstd"):
        with DiskCache(folder / codec, codec) as cache:
            cache.put_many({str(n): bytes(50_000) + bytes([n]) for n in range(20)})
        (path,) = segments(folder / codec)
        assert path.stat().st_size < 200_000
    with pytest.raises(UsageError, match="snappier"):
        DiskCache(folder / "other", "snappier")


def test_memory_keeps_to_the_expiry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hands = stopped_clock(monkeypatch)
    with TreeCacheManager(folder, disk_expiry=10) as cache:
        cache.put("k", 1)
        assert cache.get("k") == (1, None)
        hands.go(11)
        assert cache.get("k") is None


def test_memory_can_be_bounded_in_bytes() -> None:
    cache = MemoryCache(max_size=1000, max_bytes=100_000)
    for number in range(100):
        cache.put(str(number), bytes(10_000))
    assert 0 < len(cache) < 10


@pytest.mark.parametrize("layer", LAYERS)
def test_a_caller_cannot_poison_the_cache(folder: Path, layer: str) -> None:
    with LAYERS[layer](folder) as cache:
        value = {"ids": [1]}
        cache.put("k", value)
        value["ids"].append(2)
        for _ in range(2):
            found = cache.get("k")
            assert found == ({"ids": [1]}, None)
            found[0]["ids"].append(3)


def test_no_address_gets_into_a_key() -> None:
    with pytest.raises(UsageError, match="object"):
        compute_key({"a": object()})


def test_the_content_hash_of_a_key_is_long() -> None:
    keys = [compute_key({}, include_content_hash=True, content=text) for text in ("a", "b")]
    assert keys[0] != keys[1]
    assert len(keys[0].rsplit("_", 1)[-1]) >= 32


def test_empty_content_is_content() -> None:
    assert compute_key({}, include_content_hash=True, content="") != compute_key({})


def test_forgetting_everything_leaves_the_users_files(folder: Path) -> None:
    with DiskCache(folder) as cache:
        cache.put("k", 1)
        (folder / "notes.txt").write_text("mine")
        (folder / "more").mkdir()
        cache.invalidate()
        assert len(cache) == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "more").is_dir()


@pytest.mark.parametrize("layer", LAYERS)
def test_one_computation_at_a_time(folder: Path, layer: str) -> None:
    with LAYERS[layer](folder) as cache:
        assert computations(cache) == 1


def computations(cache: CacheLayer) -> int:
    """How often a value is computed that 8 threads ask for at the same time."""
    computed, together = [], threading.Barrier(8)

    def ask() -> None:
        together.wait()
        cache.get_or_compute("k", lambda: computed.append(1))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(computed)
