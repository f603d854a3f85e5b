"""What every layer of the cache promises."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easydata.cache.keys import compute_key
from easydata.cache.layer import CacheLayer
from easydata.errors import UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata
from tests.cache.layers import LAYERS, Clock, first_stats, stopped_clock
from tests.cache.test_cache_values import SLOW
from tests.cache.test_cache_values_frozen import spoil
from tests.cache.values_strategy import FLAT_DICTS, VALUES, assert_same

METADATA = CacheMetadata(created_at=12.5, config_hash="c", extra={"a": [1, {"b": 2}]})


@pytest.fixture(params=LAYERS)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheLayer]:
    with LAYERS[request.param](tmp_path / "cache") as made:
        yield made


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stopped_clock(monkeypatch)


class TestValues:
    def test_put_get(self, cache: CacheLayer) -> None:
        value = {"ids": np.arange(5, dtype="<u2"), "meta": (1, 2.5, None, [{"x": {}}])}
        cache.put("key", value, METADATA)
        found = cache.get("key")
        assert found is not None
        assert_same(value, found[0])
        assert found[1] == METADATA
        assert not found[0]["ids"].flags.writeable
        assert cache.get("other") is None

    def test_a_value_that_is_none_is_there(self, cache: CacheLayer) -> None:
        cache.put("key", None)
        assert cache.get("key") == (None, None)
        assert cache.contains("key")

    def test_the_last_one_counts(self, cache: CacheLayer) -> None:
        for value in ([1], "two", {"three": 3}):
            cache.put("key", value)
            assert cache.get("key") == (value, None)
        assert len(cache) == 1

    def test_of_an_older_entry_nothing_is_left(self, cache: CacheLayer, hands: Clock) -> None:
        cache.put("key", 1, METADATA, expiry_seconds=10)
        cache.put("key", 2)
        assert cache.get("key") == (2, None)
        assert cache.get_metadata("key") is None
        hands.go(20)
        assert cache.get("key") == (2, None)

    def test_what_cannot_be_stored_changes_nothing(self, cache: CacheLayer) -> None:
        cache.put("key", 1, METADATA)
        with pytest.raises(UnsupportedValueError, match=r"value\['meta'\]\[3\] is a set"):
            cache.put("key", {"meta": [0, 1, 2, {3}]})
        with pytest.raises(UnsupportedValueError, match=r"(?s)'new'.*value\['a'\] is a object"):
            cache.put_many({"key": 2, "new": {"a": object()}})
        with pytest.raises(UnsupportedValueError, match=r"metadata\.extra\['a'\] is a tuple"):
            cache.put("key", 3, replace(METADATA, extra={"a": (1,)}))
        with pytest.raises(UnsupportedValueError, match=r"metadata\.extra\['a'\] is a tuple"):
            cache.put_many({"key": 3}, replace(METADATA, extra={"a": (1,)}))
        with pytest.raises(UsageError, match="metadata is a dict"):
            cache.put("key", 3, {"version": "1"})  # type: ignore[arg-type]
        assert cache.get("key") == (1, METADATA)
        assert cache.keys() == ["key"]


@pytest.mark.parametrize("layer", LAYERS)
def test_values_come_back_and_belong_to_the_caller(layer: str) -> None:
    with tempfile.TemporaryDirectory() as folder, LAYERS[layer](Path(folder)) as cache:

        @SLOW
        @given(VALUES | FLAT_DICTS)
        def check(value: Any) -> None:
            before = copy.deepcopy(value)
            cache.put("key", value)
            spoil(value)
            for _ in range(3):
                found = cache.get("key")
                assert found is not None
                assert_same(before, found[0])
                spoil(found[0], dtypes=True)

        check()


class TestMetadata:
    def test_get_metadata(self, cache: CacheLayer) -> None:
        cache.put("key", 1, METADATA)
        cache.put("without", 1)
        assert cache.get_metadata("key") == METADATA
        assert cache.get_metadata("without") is None
        assert cache.get_metadata("other") is None

    def test_it_belongs_to_the_caller(self, cache: CacheLayer) -> None:
        extra: dict[str, Any] = {"a": [1, {"b": 2}]}
        cache.put("key", 1, replace(METADATA, extra=extra))
        cache.put("plain", 1, CacheMetadata(created_at=1.0))
        extra["a"].append(3)
        for _ in range(2):
            for found in (cache.get_metadata("key"), (cache.get("key") or (0, None))[1]):
                assert found == METADATA
                found.extra["a"][1]["b"] = 7
                found.extra["c"] = 8  # type: ignore[index]
            plain = cache.get_metadata("plain")
            assert plain == CacheMetadata(created_at=1.0)
            plain.extra["c"] = 8  # type: ignore[index]


class TestExpiry:
    def test_an_entry_lives_until_its_time_is_over(self, cache: CacheLayer, hands: Clock) -> None:
        cache.put("a", 1, METADATA, expiry_seconds=10)
        cache.put("b", 2, expiry_seconds=20.5)
        cache.put_many({"c": 3, "d": 4}, expiry_seconds=Fraction(31, 2))  # type: ignore[arg-type]
        hands.go(9.999)
        assert cache.get("a") == (1, METADATA)
        assert cache.keys() == ["a", "b", "c", "d"]
        hands.go(0.002)  # entries on disk have stamps of their own, a little after one another
        assert cache.get_metadata("a") is None
        assert not cache.contains("a")
        assert cache.get("a") is None
        assert cache.get_many(["a", "b"]) == {"b": (2, None)}
        assert cache.keys() == ["b", "c", "d"]
        assert len(cache) == 3
        hands.go(10)
        assert cache.keys() == ["b"]
        hands.go(10)
        assert len(cache) == 0

    def test_it_is_counted_once(self, cache: CacheLayer, hands: Clock) -> None:
        cache.put_many({"a": 1, "b": 2}, expiry_seconds=10)
        hands.go(10.001)
        for _ in range(2):
            assert (cache.get("a"), cache.get("b")) == (None, None)
            assert cache.keys() == []
        stats = first_stats(cache)
        assert (stats["expired"], stats["misses"], stats["hits"]) == (2, 4, 0)

    def test_a_clock_that_steps_back(self, cache: CacheLayer, hands: Clock) -> None:
        cache.put("key", 1, expiry_seconds=10)
        hands.go(-1000)
        cache.put("key", 2)
        assert cache.get("key") == (2, None)
        cache.invalidate("key")
        assert cache.get("key") is None
        hands.go(2000)
        assert cache.get("key") is None

    def test_a_clock_that_steps_back_revives_nothing(self, cache: CacheLayer, hands: Clock) -> None:
        cache.put_many({"a": 1, "b": 2}, expiry_seconds=10)
        hands.go(20)
        cache.invalidate("a")
        cache.invalidate(prefix="b")
        hands.go(-20)
        assert cache.get_many(["a", "b"]) == {}
        assert cache.keys() == []

    @pytest.mark.parametrize("seconds", [1e300, 10**400, 2.0**62, np.float32(1e9), np.int64(10**9)])
    def test_a_long_time(self, cache: CacheLayer, hands: Clock, seconds: Any) -> None:
        cache.put("key", 1, expiry_seconds=seconds)
        hands.go(9e8)
        assert cache.get("key") == (1, None)

    def test_a_short_time(self, cache: CacheLayer, hands: Clock) -> None:
        cache.put("key", 1, expiry_seconds=1e-300)
        hands.go(1e-6)
        assert cache.get("key") is None

    @pytest.mark.parametrize(
        "seconds", [0, -1, float("nan"), float("inf"), True, "10", 1j, -(10**400)]
    )
    def test_what_is_no_time(self, cache: CacheLayer, seconds: Any) -> None:
        for call in (
            lambda: cache.put("key", 1, expiry_seconds=seconds),
            lambda: cache.put_many({"key": 1}, expiry_seconds=seconds),
            lambda: cache.get_or_compute("key", lambda: 1, expiry_seconds=seconds),
            lambda: cache.get_or_compute_many(["key"], lambda keys: [1], expiry_seconds=seconds),
            lambda: cache.memoize(expiry_seconds=seconds),
        ):
            with pytest.raises(UsageError, match=r"^expiry_seconds is .*above 0"):
                call()
        assert len(cache) == 0


class TestKeys:
    @pytest.mark.parametrize(
        "key", ["", " ", "a.b", "/", "..", "größe 😀", "\0", "x" * 100_000, np.str_("numpy")]
    )
    def test_any_string(self, cache: CacheLayer, key: str) -> None:
        cache.put(key, 1)
        assert cache.get(key) == (1, None)
        assert key in cache
        (found,) = cache.keys()
        assert (type(found), found) == (str, str(key))
        assert cache.get_many([key]) == {key: (1, None)}
        cache.invalidate(key)
        assert cache.keys() == []

    @pytest.mark.parametrize("key", [1, b"a", ("a",), [], 1.5, "\ud800", "a\udfff"])
    def test_nothing_else(self, cache: CacheLayer, key: Any) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: cache.put(key, 1),
            lambda: cache.put_many([("good", 1), (key, 2)]),
            lambda: cache.get(key),
            lambda: cache.get_many(["good", key]),
            lambda: cache.contains(key),
            lambda: key in cache,
            lambda: cache.get_metadata(key),
            lambda: cache.invalidate(key),
            lambda: cache.get_or_compute(key, lambda: 1),
            lambda: cache.get_or_compute_many([key], lambda keys: [1]),
        ]
        for call in calls:
            with pytest.raises(UsageError, match=r"^The key .* (keys are strings|surrogate)"):
                call()
        assert len(cache) == 0

    def test_keys_are_sorted_and_chosen_by_prefix(self, cache: CacheLayer) -> None:
        cache.put_many(dict.fromkeys(["b", "a_1", "ä", "a", "A", "a_2"], 1))
        assert cache.keys() == ["A", "a", "a_1", "a_2", "b", "ä"]
        assert cache.keys("a_") == ["a_1", "a_2"]
        assert cache.keys("c") == []
        assert cache.keys(prefix="ä") == ["ä"]
        with pytest.raises(UsageError, match="prefix is 1"):
            cache.keys(1)  # type: ignore[arg-type]

    def test_compute_key(self, cache: CacheLayer) -> None:
        assert cache.compute_key({"a": 1}, "p") == compute_key({"a": 1}, "p")
        assert type(cache).compute_key({"a": 1}) == compute_key({"a": 1})


class TestMany:
    def test_mappings_and_pairs(self, cache: CacheLayer) -> None:
        cache.put_many({"a": 1, "b": [2]}, METADATA)
        cache.put_many([("c", 3), ["d", 4]])  # type: ignore[list-item]
        cache.put_many(zip("ef", [5, 6], strict=True))
        cache.put_many({})
        cache.put_many([])
        assert cache.get("b") == ([2], METADATA)
        assert cache.get("d") == (4, None)
        assert cache.keys() == ["a", "b", "c", "d", "e", "f"]

    def test_later_pairs_win(self, cache: CacheLayer) -> None:
        cache.put_many([("a", 1), ("b", 2), ("a", 3)])
        assert cache.get_many("ab".__iter__()) == {"a": (3, None), "b": (2, None)}
        assert len(cache) == 2

    def test_get_many_keeps_order_and_leaves_out(self, cache: CacheLayer) -> None:
        cache.put_many({"a": 1, "b": 2}, METADATA)
        found = cache.get_many(["c", "b", "a", "b"])
        assert list(found.items()) == [("b", (2, METADATA)), ("a", (1, METADATA))]
        assert cache.get_many([]) == {}

    def test_many_results_share_nothing(self, cache: CacheLayer) -> None:
        cache.put_many({"a": [1], "b": [1]}, METADATA)
        for _ in range(2):
            found = cache.get_many(["a", "b"])
            assert found == {"a": ([1], METADATA), "b": ([1], METADATA)}
            found["a"][0].append(2)
            found["a"][1].extra["a"].append(3)  # type: ignore[union-attr]

    @pytest.mark.parametrize("items", ["ab", ["ab"], [("a",)], [("a", 1, 2)], [1], 5, None])
    def test_what_is_no_items(self, cache: CacheLayer, items: Any) -> None:
        with pytest.raises(UsageError, match=r"^items(\[0\])? is .* pairs? of key and value"):
            cache.put_many(items)

    @pytest.mark.parametrize("keys", ["ab", b"ab", 5, None])
    def test_what_is_no_list_of_keys(self, cache: CacheLayer, keys: Any) -> None:
        for call in (cache.get_many, lambda keys: cache.get_or_compute_many(keys, list)):
            with pytest.raises(UsageError, match=r"^keys is .*; give a list of strings"):
                call(keys)


class TestTables:
    def test_what_was_put_under_one_key_or_several(self, cache: CacheLayer) -> None:
        cache.put("a", {"ids": np.arange(3, dtype="<u2"), "n": 1})
        cache.put_many({"b": {"ids": np.arange(2, dtype="<u2"), "n": 2}})
        table = cache.get_table("a")
        assert table.to_pydict() == {"ids": [[0, 1, 2]], "n": [1]}
        assert str(table.schema.field("ids").type) == "list<item: uint16>"
        assert cache.get_table(["b", "missing", "a"]).column("n").to_pylist() == [2, 1]
        assert cache.get_table("missing").num_rows == 0


class TestInvalidate:
    def test_one_a_prefix_and_all(self, cache: CacheLayer) -> None:
        cache.put_many(dict.fromkeys(["a", "ab", "abc", "b", ""], 1))
        cache.invalidate("a")
        cache.invalidate("not there")
        assert cache.keys() == ["", "ab", "abc", "b"]
        cache.invalidate("")
        cache.invalidate(prefix="ab")
        assert cache.keys() == ["b"]
        assert cache.get("ab") is None
        assert not cache.contains("abc")
        cache.put("ab", 2)
        assert cache.get("ab") == (2, None)
        cache.invalidate()
        assert (len(cache), cache.get("b"), cache.get_many(["ab", "b"])) == (0, None, {})

    def test_an_empty_prefix_is_that_of_all(self, cache: CacheLayer) -> None:
        cache.put("a", 1)
        cache.invalidate(prefix="")
        assert len(cache) == 0

    def test_one_of_both(self, cache: CacheLayer) -> None:
        cache.put("a", 1)
        with pytest.raises(UsageError, match="key and prefix are both given"):
            cache.invalidate("a", prefix="a")
        with pytest.raises(UsageError, match="prefix is 1"):
            cache.invalidate(prefix=1)  # type: ignore[arg-type]
        assert len(cache) == 1


class TestStats:
    def test_hits_and_misses(self, cache: CacheLayer) -> None:
        assert first_stats(cache)["hit_rate"] == 0.0
        cache.put_many({"a": 1, "b": 2})
        cache.put("a", 3)
        cache.get("a")
        cache.get("x")
        cache.get_many(["a", "b", "y"])
        for key in ("a", "x"):
            cache.contains(key)
            cache.get_metadata(key)
        stats = first_stats(cache)
        assert (stats["hits"], stats["misses"], stats["writes"]) == (3, 2, 3)
        assert stats["hit_rate"] == 0.6
        assert stats["size"] == 2
        assert stats["bytes"] > 0
        assert {stats[name] for name in ("evictions", "expired", "corrupt")} == {0}
        assert {stats[name] for name in ("wait_seconds", "decode_seconds")} >= {0.0}

    def test_every_layer_has_the_same_names(self, cache: CacheLayer) -> None:
        names = "hits misses hit_rate size max_size bytes evictions expired corrupt writes "
        names += "wait_seconds decode_seconds"
        for stats in (first_stats(cache), cache.stats.get("disk", first_stats(cache))):
            assert list(stats) == names.split()


@pytest.mark.parametrize("layer", LAYERS)
def test_flush_and_close(layer: str, tmp_path: Path) -> None:
    with LAYERS[layer](tmp_path / "cache") as cache:
        cache.put("a", [1])
        found = cache.get("a")
        cache.flush()
        assert cache.get("a") == found
    assert found == ([1], None)


KEYS = st.sampled_from(["", "a", "ab", "b", "ä"])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.dictionaries(KEYS, st.integers(0, 9), min_size=1),
            st.sampled_from([None, METADATA]),
            st.sampled_from([None, 1, 2.5]),
        ),
        st.tuples(st.just("forget"), KEYS),
        st.tuples(st.just("forget prefix"), KEYS),
        st.tuples(st.just("wait"), st.sampled_from([-3, 0.5, 1, 2])),
        st.tuples(st.just("get"), KEYS),
    ),
    max_size=25,
)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_behaves_like_a_dict(layer: str, hands: Clock) -> None:
    with tempfile.TemporaryDirectory() as folder, LAYERS[layer](Path(folder)) as cache:

        @SLOW
        @given(STEPS)
        def check(steps: list[Any]) -> None:
            hands.go(1000)  # later than all stamps of the example before
            cache.invalidate()
            oracle: dict[str, tuple[Any, Any]] = {}
            ends: dict[str, int] = {}
            for step, *given_ in steps:
                match step:
                    case "put":
                        items, metadata, seconds = given_
                        if len(items) == 1:
                            (item,) = items.items()
                            cache.put(*item, metadata, expiry_seconds=seconds)
                        else:
                            cache.put_many(items, metadata, expiry_seconds=seconds)
                        oracle |= {key: (value, metadata) for key, value in items.items()}
                        end = hands.nanoseconds + int(10**9 * seconds) if seconds else 2**64
                        ends |= dict.fromkeys(items, end)
                    case "forget":
                        cache.invalidate(*given_)
                        oracle.pop(given_[0], None)
                    case "forget prefix":
                        cache.invalidate(prefix=given_[0])
                        for key in [key for key in oracle if key.startswith(given_[0])]:
                            del oracle[key]
                    case "wait":
                        hands.go(*given_)
                        # What is seen to be expired need not come back when the clock does.
                        for key in [key for key in oracle if ends[key] <= hands.nanoseconds]:
                            del oracle[key]
                            cache.invalidate(key)
                    case "get":
                        assert cache.get(*given_) == oracle.get(*given_)
                assert cache.keys() == sorted(oracle)
                assert len(cache) == len(oracle)
                assert cache.get_many(["ä", "ab", "a", "", "b"]) == oracle
                assert all(cache.get_metadata(key) == oracle[key][1] for key in oracle)

        check()
