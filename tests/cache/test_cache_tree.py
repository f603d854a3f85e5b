"""TreeCacheManager: memory over disk, which never serves what the disk has no more."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.cache.disk import DiskCache
from easydata.cache.tree import TreeCacheManager
from easydata.errors import UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata
from tests.cache.elsewhere import Elsewhere
from tests.cache.layers import Clock, stopped_clock

METADATA = CacheMetadata(created_at=1.5, config_hash="c")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stopped_clock(monkeypatch)


@pytest.fixture
def start() -> Iterator[Callable[..., Elsewhere]]:
    started: list[Elsewhere] = []

    def start(*args: Any) -> Elsewhere:
        started.append(Elsewhere(*args))
        return started[-1]

    yield start
    for other in started:
        other.kill()


def memory(tree: TreeCacheManager) -> tuple[int, int]:
    """Hits and misses of the memory."""
    stats = tree.stats["memory"]
    return stats["hits"], stats["misses"]


class TestMemory:
    def test_what_was_put_is_served_from_it(self, folder: Path) -> None:
        tree = TreeCacheManager(folder)
        tree.put("a", {"ids": np.arange(3)}, METADATA)
        tree.put_many({"b": [1], "c": 2})
        for _ in range(2):
            assert tree.get_many(list("abc")).keys() == {"a", "b", "c"}
        assert memory(tree) == (6, 0)
        assert tree.stats["disk"]["hits"] == 0
        assert tree.stats["memory"]["size"] == 3

    def test_what_was_read_is_served_from_it(self, folder: Path) -> None:
        with DiskCache(folder) as cache:
            cache.put("a", [1], METADATA)
        tree = TreeCacheManager(folder)
        for _ in range(3):
            found = tree.get("a")
            assert found == ([1], METADATA)
            found[0].append(2)
        assert memory(tree) == (2, 1)
        assert tree.stats["disk"]["hits"] == 1

    def test_it_keeps_the_last_ones(self, folder: Path) -> None:
        tree = TreeCacheManager(folder, memory_size=2)
        tree.put_many({str(number): number for number in range(10)})
        assert tree.stats["memory"]["size"] == 2
        assert tree.get_many(["8", "9"]) == {"8": (8, None), "9": (9, None)}
        assert memory(tree) == (2, 0)
        assert tree.get("0") == (0, None)
        assert len(tree) == 10
        tree.put("10", 10)
        tree.put("11", 11)
        assert tree.stats["memory"]["size"] == 2

    def test_none_at_all(self, folder: Path) -> None:
        tree = TreeCacheManager(folder, memory_size=0)
        tree.put("a", 1)
        tree.put_many({"b": [2], "c": 3})
        for _ in range(2):
            assert tree.get("a") == (1, None)
            assert tree.get_many(list("bc")) == {"b": ([2], None), "c": (3, None)}
        assert memory(tree) == (0, 6)
        stats = tree.stats["memory"]
        assert (stats["size"], stats["max_size"], stats["bytes"]) == (0, 0, 0)

    def test_its_bytes_are_bounded(self, folder: Path) -> None:
        tree = TreeCacheManager(folder, memory_bytes="10kB")
        for number in range(20):
            tree.put(f"k{number}", bytes(1000))
            assert tree.stats["memory"]["bytes"] <= 10_000
        assert 5 <= tree.stats["memory"]["size"] < 10
        tree.put("k19", bytes(20_000))  # larger than the memory: the older one must not stay
        assert tree.get("k19") == (bytes(20_000), None)
        assert tree.get("k0") == (bytes(1000), None)

    def test_closing_empties_it_and_not_the_disk(self, folder: Path) -> None:
        with TreeCacheManager(folder) as tree:
            tree.put("a", 1)
        assert tree.stats["memory"]["size"] == 0
        assert tree.get("a") == (1, None)

    @pytest.mark.parametrize(
        "options", [{"memory_size": -1}, {"memory_size": 1.5}, {"memory_bytes": "x"}]
    )
    def test_wrong_options_make_no_folder(self, folder: Path, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=next(iter(options))):
            TreeCacheManager(folder, **options)
        assert not folder.exists()

    def test_wrong_expiry(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="disk_expiry is 0"):
            TreeCacheManager(folder, disk_expiry=0)
        assert not folder.exists()

    def test_what_cannot_be_stored_is_in_neither(self, folder: Path) -> None:
        tree = TreeCacheManager(folder, memory_size=1)
        tree.put("a", 1)
        for items in ({"a": {2}, "b": 2}, {"b": 2, "a": {2}}):
            with pytest.raises(UnsupportedValueError, match="'a'"):
                tree.put_many(items)
            assert tree.get("a") == (1, None)
            assert not tree.contains("b")


class TestExpiry:
    def test_in_memory_too(self, folder: Path, hands: Clock) -> None:
        tree = TreeCacheManager(folder, disk_expiry=100)
        tree.put("default", 1)
        tree.put("own", 2, expiry_seconds=10)
        tree.put_many({"longer": 3}, expiry_seconds=200)
        hands.go(10.001)
        assert tree.get_many(["default", "own", "longer"]).keys() == {"default", "longer"}
        hands.go(90)
        assert tree.get("default") is None
        assert tree.get("longer") == (3, None)
        assert tree.stats["memory"]["expired"] == 2

    def test_of_what_was_read_from_the_disk(self, folder: Path, hands: Clock) -> None:
        with DiskCache(folder, expiry_seconds=100) as cache:
            cache.put("a", 1)
        hands.go(60)
        tree = TreeCacheManager(folder)  # its own expiry is for what it puts
        assert tree.get("a") == (1, None)
        hands.go(39)
        assert tree.get("a") == (1, None)
        hands.go(2)
        assert tree.get("a") is None

    def test_after_a_day_by_default(self, folder: Path, hands: Clock) -> None:
        tree, ever = TreeCacheManager(folder), TreeCacheManager(folder, disk_expiry=None)
        tree.put("a", 1)
        ever.put("b", 2)
        hands.go(86_399)
        assert tree.get_many(list("ab")).keys() == {"a", "b"}
        hands.go(2)
        assert tree.get_many(list("ab")).keys() == {"b"}

    def test_expire_empties_both(self, folder: Path, hands: Clock) -> None:
        tree = TreeCacheManager(folder)
        tree.put_many({"a": 1, "b": 2}, expiry_seconds=10)
        tree.put("c", 3)
        hands.go(11)
        assert tree.expire() == 2
        assert tree.stats["memory"]["size"] == 1
        hands.go(-11)
        assert tree.keys() == ["c"]
        assert tree.get("a") is None


class TestCoherence:
    def test_two_trees_see_what_the_other_does(self, folder: Path) -> None:
        one, other = TreeCacheManager(folder), TreeCacheManager(folder)
        for number in range(50):
            one.put("k", number, METADATA)
            assert one.get("k") == (number, METADATA)
            assert other.get("k") == (number, METADATA)
            other.put("k", -number)
            assert one.get("k") == (-number, None)
            assert one.get_metadata("k") is None
            assert one.get_many(["k"]) == {"k": (-number, None)}
        other.invalidate("k")
        assert one.get("k") is None
        one.put_many({"k": 1, "l": 2})
        assert other.get_many(list("kl")) == {"k": (1, None), "l": (2, None)}
        other.invalidate(prefix="l")
        assert one.get_many(list("kl")) == {"k": (1, None)}
        other.invalidate()
        assert (one.get("k"), len(one)) == (None, 0)

    def test_what_another_process_replaced_leaves_the_memory(
        self, folder: Path, start: Callable[..., Elsewhere]
    ) -> None:
        tree, other = TreeCacheManager(folder), start(DiskCache, folder)
        tree.put_many({"same": [1], "replaced": [1], "deleted": [1]})
        other.call("put", "replaced", [2])
        other.call("invalidate", "deleted")
        assert tree.get("deleted") is None
        assert tree.stats["memory"]["size"] == 2
        assert tree.get("replaced") == ([2], None)
        assert tree.get("same") == ([1], None)
        assert memory(tree) == (1, 2)
        assert tree.get("replaced") == ([2], None)
        assert memory(tree) == (2, 2)

    def test_writes_of_others_do_not_empty_the_memory(self, folder: Path) -> None:
        tree, other = TreeCacheManager(folder), DiskCache(folder)
        tree.put_many({"a": 1, "b": 2})
        for number in range(20):
            other.put("other", number)
            if number % 5 == 0:
                other.compact()
            assert tree.get("a") == (1, None)
        assert memory(tree) == (20, 0)
        assert tree.stats["disk"]["hits"] == 0

    def test_what_was_evicted_from_the_disk_is_gone(self, folder: Path) -> None:
        tree, other = TreeCacheManager(folder), DiskCache(folder)
        tree.put("old", bytes(5000))
        assert tree.get("old") == (bytes(5000), None)
        tree.close()
        assert tree.get("old") == (bytes(5000), None)
        other.put("new", bytes(5000))
        other.shrink(1)
        assert tree.get("new") == (bytes(5000), None)
        assert tree.get("old") is None
        assert not tree.contains("old")

    def test_the_same_value_again_is_another_entry(self, folder: Path, hands: Clock) -> None:
        """Its metadata and its expiry are new."""
        tree, other = TreeCacheManager(folder), DiskCache(folder)
        tree.put("k", 1, METADATA, expiry_seconds=10)
        other.put("k", 1)
        assert tree.get("k") == (1, None)
        hands.go(20)
        assert tree.get("k") == (1, None)

    def test_a_value_too_large_for_the_disk_is_not_left_in_memory(self, folder: Path) -> None:
        tree = TreeCacheManager(folder, size_limit="1MB")
        tree.put("k", "old")
        with pytest.warns(RuntimeWarning, match="not kept"):
            tree.put("k", bytes(2_000_000))
        for other in (tree, TreeCacheManager(folder)):
            assert other.get("k") is None
            assert not other.contains("k")
            assert len(other) == 0


class TestPickling:
    def test_options_and_path_not_the_memory(self, folder: Path) -> None:
        tree = TreeCacheManager(
            folder, 7, 50, "zstd", memory_bytes="1MB", size_limit="5MB", verify="never"
        )
        tree.put("a", {"ids": [1]}, METADATA)
        copied = pickle.loads(pickle.dumps(tree))
        assert type(copied) is TreeCacheManager
        assert copied.stats["memory"]["size"] == 0
        assert copied.stats["memory"]["max_size"] == 7
        assert copied.get("a") == ({"ids": [1]}, METADATA)
        copied.put("a", 2)
        assert tree.get("a") == (2, None)

    def test_the_expiry_comes_with_it(self, folder: Path, hands: Clock) -> None:
        copied = pickle.loads(pickle.dumps(TreeCacheManager(folder, disk_expiry=5)))
        copied.put("a", 1)
        hands.go(6)
        assert copied.get("a") is None


class TestAsACacheLayer:
    def test_the_disk_can_be_looked_at(self, folder: Path) -> None:
        tree = TreeCacheManager(folder)
        tree.put_many({"a": {"n": 1}, "b": {"n": 2}})
        assert tree.to_table().to_pydict() == {"key": ["a", "b"], "n": [1, 2]}
        assert tree.to_pandas("b")["n"].tolist() == [2]
        tree.compact()
        assert tree.verify() == []
        assert tree.get_table(["b", "a"]).column("n").to_pylist() == [2, 1]

    def test_metadata_decides_in_memory_too(self, folder: Path) -> None:
        tree = TreeCacheManager(folder)

        def fits(metadata: CacheMetadata) -> bool:
            return metadata.config_hash == "c"

        tree.put("k", "without")
        assert tree.get_or_compute("k", lambda: "new", METADATA, fits) == "new"
        assert tree.get_or_compute("k", lambda: "newer", METADATA, fits) == "new"
        other = CacheMetadata(created_at=1.0, config_hash="d")
        tree.put("k", "other", other)
        assert tree.get_or_compute("k", lambda: "newest", METADATA, fits) == "newest"
