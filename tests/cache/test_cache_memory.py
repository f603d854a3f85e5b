"""MemoryCache: what stays when there is no room, and life with threads, forks and pickles."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easydata.cache.layer import CacheLayer
from easydata.cache.memory import MemoryCache
from easydata.errors import UsageError
from easydata.metadata import CacheMetadata
from tests.cache.layers import Clock, stopped_clock
from tests.cache.test_cache_flight import PATIENCE_SECONDS, Threads
from tests.interrupts import unmeasured


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stopped_clock(monkeypatch)


def array(num_bytes: int) -> Any:
    return np.zeros(num_bytes, np.uint8)


def num_bytes(cache: MemoryCache) -> int:
    held = cache.stats["bytes"]
    assert isinstance(held, int)
    return held


class TestRoom:
    def test_the_least_recently_used_goes(self) -> None:
        cache = MemoryCache(max_size=3)
        cache.put_many({"a": 1, "b": 2, "c": 3})
        assert cache.get("a") == (1, None)
        cache.put("b", 4)
        cache.put("d", 5)
        assert cache.keys() == ["a", "b", "d"]
        cache.put("e", 6)
        assert cache.keys() == ["b", "d", "e"]
        assert cache.stats["evictions"] == 2
        assert cache.stats["size"] == cache.stats["max_size"] == 3

    def test_looking_is_not_using(self) -> None:
        cache = MemoryCache(max_size=2)
        cache.put_many({"a": 1, "b": 2})
        assert cache.contains("a")
        assert cache.get_metadata("a") is None
        cache.put("c", 3)
        assert cache.keys() == ["b", "c"]

    def test_one_entry(self) -> None:
        cache = MemoryCache(max_size=1)
        cache.put_many({"a": 1, "b": 2, "c": 3})
        assert cache.get("c") == (3, None)
        assert len(cache) == 1

    def test_expired_entries_go_before_others(self, hands: Clock) -> None:
        cache = MemoryCache(max_size=3)
        cache.put("old", 1)
        cache.put("short", 2, expiry_seconds=10)
        cache.put("long", 3, expiry_seconds=20)
        hands.go(10)
        cache.put("new", 4)
        assert cache.keys() == ["long", "new", "old"]
        assert (cache.stats["expired"], cache.stats["evictions"]) == (1, 0)

    def test_an_entry_expires_to_the_nanosecond(self, hands: Clock) -> None:
        cache = MemoryCache()
        cache.put("a", 1, expiry_seconds=10)
        hands.nanoseconds += 10 * 10**9 - 1
        assert "a" in cache
        assert cache.get("a") == (1, None)
        hands.nanoseconds += 1
        assert "a" not in cache
        assert cache.get("a") is None

    def test_a_renewed_entry_does_not_expire_with_the_one_before(self, hands: Clock) -> None:
        cache = MemoryCache(max_size=2)
        cache.put("a", 1, expiry_seconds=10)
        cache.put("a", 2, expiry_seconds=30)
        cache.put("b", 1, expiry_seconds=10)
        cache.put("b", 2)
        hands.go(20)
        assert cache.keys() == ["a", "b"]
        hands.go(10)
        assert cache.keys() == ["b"]
        assert cache.stats["expired"] == 1

    def test_what_is_written_over_and_over_leaves_nothing(self, hands: Clock) -> None:
        cache = MemoryCache()
        for at in range(1000):
            cache.put("a", at, expiry_seconds=100 + at)
        assert len(cache._lru._deadlines) < 100
        hands.go(1098)
        assert cache.get("a") == (999, None)
        hands.go(1)
        assert len(cache) == 0
        assert cache.get("a") is None
        assert num_bytes(cache) == 0

    def test_bytes(self) -> None:
        cache = MemoryCache(max_bytes="10kB")
        cache.put("a", array(3000))
        cache.put("b", array(3000), CacheMetadata(extra={"text": "x" * 3000}))
        assert 9000 < num_bytes(cache) < 10_000
        cache.put("c", array(3000))
        assert cache.keys() == ["b", "c"]
        cache.put("d" * 6000, 1)
        assert cache.keys() == ["c", "d" * 6000]
        assert 9000 < num_bytes(cache) < 10_000
        cache.invalidate()
        assert num_bytes(cache) == 0

    def test_what_is_too_large_is_not_kept_and_said_once(self) -> None:
        cache = MemoryCache(max_bytes=5000)
        cache.put_many({"a": 1, "b": 2})
        with pytest.warns(RuntimeWarning, match=r"key 'a' takes about 6\.\d kB") as caught:
            cache.put("a", array(6000))
        assert caught[0].filename == __file__
        assert len(caught) == 1
        # Not the old value either.
        assert cache.keys() == ["b"]
        cache.put("b", array(6000))
        assert cache.keys() == []
        assert num_bytes(cache) == 0
        with pytest.warns(RuntimeWarning, match="key 'b' takes about"):
            MemoryCache(max_bytes=5000).put_many({"a": 1, "b": array(6000)})

    def test_a_value_that_was_too_large_is_returned_when_computed(self) -> None:
        cache = MemoryCache(max_bytes=5000)
        with pytest.warns(RuntimeWarning, match="is not kept"):
            assert len(cache.get_or_compute("a", lambda: array(6000))) == 6000
        assert len(cache) == 0

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"max_size": 0}, "max_size is 0; give a number of entries, at least 1"),
            ({"max_size": -1}, "max_size is -1"),
            ({"max_size": True}, "max_size is True"),
            ({"max_size": "10"}, "max_size is '10'"),
            ({"max_size": 1.5}, r"max_size is 1\.5"),
            ({"max_bytes": "many"}, "max_bytes is 'many'"),
            ({"max_bytes": 0}, "max_bytes is 0"),
        ],
    )
    def test_what_is_no_limit(self, limits: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            MemoryCache(**limits)


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("pgid"), st.sampled_from("abcdef")), max_size=60),
)
def test_an_lru_like_any_other(max_size: int, steps: list[tuple[str, str]]) -> None:
    cache = MemoryCache(max_size)
    oracle: OrderedDict[str, int] = OrderedDict()
    hits = misses = evictions = 0
    for at, (step, key) in enumerate(steps):
        if step == "p":
            cache.put(key, at)
            oracle[key] = at
            oracle.move_to_end(key)
            while len(oracle) > max_size:
                oracle.popitem(last=False)
                evictions += 1
        elif step == "i":
            cache.invalidate(key)
            oracle.pop(key, None)
        elif key in oracle:
            assert cache.get(key) == (oracle[key], None)
            oracle.move_to_end(key)
            hits += 1
        else:
            assert cache.get(key) is None
            misses += 1
        assert cache.keys() == sorted(oracle)
    stats = cache.stats
    assert (stats["hits"], stats["misses"], stats["evictions"]) == (hits, misses, evictions)
    assert stats["hit_rate"] == (hits / (hits + misses) if hits + misses else 0.0)
    assert stats["size"] == len(cache) == len(oracle)


class TestProcesses:
    def test_a_pickle_is_a_new_cache(self) -> None:
        cache = MemoryCache(7, "1kB")
        cache.put("a", 1)
        copy: CacheLayer = pickle.loads(pickle.dumps(cache))
        assert isinstance(copy, MemoryCache)
        assert copy.keys() == []
        assert copy.stats["max_size"] == 7
        with pytest.warns(RuntimeWarning, match="max_bytes=1000"):
            copy.put("a", array(1000))
        assert cache.keys() == ["a"]

    def test_a_child_that_is_forked_while_a_thread_is_inside(self) -> None:
        program = """
import os, signal, threading, warnings
from easydata.cache.memory import MemoryCache
warnings.simplefilter("ignore")  # that there are threads is the point
cache = MemoryCache(max_bytes="1MB")
cache.put_many({"a": [1], "b": [2]}, expiry_seconds=1000)
before = cache.stats["bytes"]
inside, leave = threading.Event(), threading.Event()

def hold():
    with cache._lru._lock:
        cache._lru._num_bytes += 500_000  # in the middle of a change
        inside.set()
        leave.wait()

thread = threading.Thread(target=hold)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(PATIENCE)
    found = cache.get("a") == ([1], None) and cache.stats["bytes"] == before
    cache.put("c", 3)
    cache.invalidate("b")
    computed = cache.get_or_compute("d", lambda: 4) == 4
    os._exit(0 if found and computed and cache.keys() == ["a", "c", "d"] else 1)
status = os.waitpid(child, 0)[1]
leave.set()
thread.join()
assert cache.keys() == ["a", "b"]
raise SystemExit(os.waitstatus_to_exitcode(status))
""".replace("PATIENCE", str(PATIENCE_SECONDS))
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            capture_output=True,
            text=True,
            env=unmeasured(),
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def quick_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("quick_switches")
def test_many_threads() -> None:
    cache = MemoryCache(max_size=8, max_bytes=20_000)
    keys = [f"key{at}" for at in range(16)]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for step in range(2000):
            key = chance.choice(keys)
            match chance.randrange(6):
                case 0 | 1:
                    value = {"key": key, "ids": np.full(chance.randrange(900), step)}
                    cache.put(key, value, expiry_seconds=1000 if step % 2 else None)
                case 2:
                    cache.invalidate(key)
                case 3:
                    assert len(cache) <= 8
                    assert num_bytes(cache) <= 20_000
                case _:
                    found = cache.get(key)
                    assert found is None or found[0]["key"] == key

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Threads(*(lambda seed=seed: work(seed) for seed in range(4))).join() == [None] * 4
    cache.invalidate()
    assert num_bytes(cache) == 0
