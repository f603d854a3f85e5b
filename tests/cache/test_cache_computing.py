"""Computing what is missing: once, for all who ask, and never with somebody else's result."""

from __future__ import annotations

import errno
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.cache import flight
from easydata.cache.layer import CacheLayer
from easydata.cache.memory import MemoryCache
from easydata.errors import StorageError, UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata
from tests.cache.layers import LAYERS, Clock, first_stats, stopped_clock
from tests.cache.test_cache_flight import Threads, wait_until

OLD = CacheMetadata(created_at=1.0, config_hash="old")
NEW = CacheMetadata(created_at=2.0, config_hash="new")


@pytest.fixture(params=LAYERS)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheLayer]:
    with LAYERS[request.param](tmp_path / "cache") as made:
        yield made


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stopped_clock(monkeypatch)


def is_new(metadata: CacheMetadata) -> bool:
    return metadata.config_hash == "new"


def unexpected(*_: Any) -> Any:
    raise AssertionError("not to be called")


class Function:
    """Returns what it is told, and counts."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> Any:
        self.calls.append(args)
        result = self.results[len(self.calls) - 1]
        if isinstance(result, BaseException):
            raise result
        return result


class FullCache(MemoryCache):
    """A cache on a disk that is full."""

    def put(self, key: str, value: Any, *args: Any, **kwargs: Any) -> None:
        raise StorageError(errno.ENOSPC, "Cannot write x: the disk is full. Free space.")

    def put_many(self, items: Any, *args: Any, **kwargs: Any) -> None:
        raise StorageError(errno.ENOSPC, "Cannot write x: the disk is full. Free space.")


class TestOne:
    def test_computed_once_and_stored(self, cache: CacheLayer) -> None:
        compute = Function([1])
        for _ in range(3):
            assert cache.get_or_compute("a", compute, NEW) == [1]
        assert cache.get("a") == ([1], NEW)
        assert len(compute.calls) == 1

    def test_by_names(self, cache: CacheLayer) -> None:
        value = cache.get_or_compute(
            key="a", compute_fn=lambda: 1, metadata=NEW, validate_fn=is_new, expiry_seconds=60
        )
        assert value == 1

    def test_none_is_a_value(self, cache: CacheLayer) -> None:
        compute = Function(None)
        assert cache.get_or_compute("a", compute) is None
        assert cache.get_or_compute("a", compute) is None
        assert len(compute.calls) == 1

    def test_what_is_computed_is_what_is_found_later(self, cache: CacheLayer) -> None:
        made = {"ids": np.arange(3), "list": [1]}
        first = cache.get_or_compute("a", lambda: made)
        made["ids"][0] = 7
        first["list"].append(2)
        second = cache.get_or_compute("a", unexpected)
        for value in (first, second):
            assert value["ids"].tolist() == [0, 1, 2]
            assert not value["ids"].flags.writeable
        assert second["list"] == [1]

    def test_expiry(self, cache: CacheLayer, hands: Clock) -> None:
        compute = Function(1, 2)
        assert cache.get_or_compute("a", compute, expiry_seconds=10) == 1
        hands.go(9)
        assert cache.get_or_compute("a", compute, expiry_seconds=10) == 1
        hands.go(1.001)
        assert cache.get_or_compute("a", compute, expiry_seconds=10) == 2

    def test_an_entry_that_does_not_pass_is_computed_again(self, cache: CacheLayer) -> None:
        compute = Function("old", "new")
        assert cache.get_or_compute("a", compute, OLD) == "old"
        assert cache.get_or_compute("a", unexpected, NEW) == "old"
        assert cache.get_or_compute("a", compute, NEW, is_new) == "new"
        assert cache.get_or_compute("a", unexpected, NEW, is_new) == "new"
        assert cache.get("a") == ("new", NEW)

    def test_without_metadata_nothing_passes(self, cache: CacheLayer) -> None:
        compute = Function(1, 2, 3)
        assert cache.get_or_compute("a", compute) == 1
        assert cache.get_or_compute("a", compute, None, lambda metadata: True) == 2
        assert cache.get_or_compute("a", compute, None, lambda metadata: True) == 3
        assert cache.get_or_compute("a", unexpected) == 3

    def test_an_exception_is_not_stored(self, cache: CacheLayer) -> None:
        compute = Function(KeyError("why"), 2)
        with pytest.raises(KeyError, match="why"):
            cache.get_or_compute("a", compute)
        assert "a" not in cache
        assert cache.get_or_compute("a", compute) == 2

    def test_what_cannot_be_stored_is_said(self, cache: CacheLayer) -> None:
        with pytest.raises(UnsupportedValueError, match=r"value\['a'\] is a set"):
            cache.get_or_compute("a", lambda: {"a": {1}})
        assert len(cache) == 0

    def test_metadata_that_cannot_be_stored_fails_first(self, cache: CacheLayer) -> None:
        metadata = CacheMetadata(extra={"a": {1}})
        with pytest.raises(UnsupportedValueError, match=r"metadata\.extra\['a'\]"):
            cache.get_or_compute("a", unexpected, metadata)
        with pytest.raises(UnsupportedValueError, match=r"metadata\.extra\['a'\]"):
            cache.get_or_compute_many(["a"], unexpected, metadata)

    def test_nested(self, cache: CacheLayer) -> None:
        def fibonacci(n: int) -> int:
            if n < 2:
                return n
            before = cache.get_or_compute(f"{n - 1}", lambda: fibonacci(n - 1))
            return before + cache.get_or_compute(f"{n - 2}", lambda: fibonacci(n - 2))

        assert fibonacci(30) == 832040
        assert len(cache) == 30

    def test_a_miss_is_counted_once(self, cache: CacheLayer) -> None:
        for _ in range(3):
            cache.get_or_compute("a", lambda: 1)
        stats = first_stats(cache)
        assert (stats["misses"], stats["hits"], stats["writes"]) == (1, 2, 1)


class TestThreads:
    def test_each_gets_a_value_of_its_own(self, cache: CacheLayer) -> None:
        calls = []

        def compute() -> Any:
            calls.append(1)
            wait_until(lambda: len(flight._process.waiting) == 7)
            return {"list": []}

        ask = functools.partial(cache.get_or_compute, "a", compute)
        values = Threads(*[ask] * 8).join()
        assert len(calls) == 1
        for value in values:
            assert value == {"list": []}
            value["list"].append("mine")
        assert cache.get("a") == ({"list": []}, None)
        stats = first_stats(cache)
        assert (stats["misses"], stats["writes"]) == (8, 1)
        assert stats["wait_seconds"] > 0

    def test_all_get_the_exception(self, cache: CacheLayer) -> None:
        calls = []

        def compute() -> Any:
            calls.append(1)
            wait_until(lambda: len(flight._process.waiting) == 3)
            raise KeyError("why")

        ask = functools.partial(cache.get_or_compute, "a", compute)
        assert [type(result) for result in Threads(*[ask] * 4).join()] == [KeyError] * 4
        assert len(calls) == 1
        assert "a" not in cache

    def test_a_result_of_another_has_to_pass_too(self, cache: CacheLayer) -> None:
        """Whoever waits while an entry is made that is of no use to it makes its own."""
        under_way = threading.Event()
        compute_new = Function("new")

        def compute_old() -> str:
            under_way.set()
            wait_until(lambda: len(flight._process.waiting) == 2)
            return "old"

        def ask_for_new() -> Any:
            under_way.wait()
            return cache.get_or_compute("a", compute_new, NEW, is_new)

        def ask_for_any() -> Any:
            under_way.wait()
            return cache.get_or_compute("a", unexpected)

        ask_for_old = functools.partial(cache.get_or_compute, "a", compute_old, OLD)
        results = Threads(ask_for_old, ask_for_new, ask_for_any).join()
        assert results == ["old", "new", "old"]
        assert cache.get("a") == ("new", NEW)
        assert len(compute_new.calls) == 1

    def test_what_was_stored_meanwhile_is_found(self, cache: CacheLayer) -> None:
        """A thread that missed the value, and comes to its turn after it was stored."""

        found = cache.get

        def get_before_it_is_there(key: str) -> Any:
            cache.get = found  # type: ignore[method-assign]
            missed = found(key)
            cache.put(key, "there", NEW)
            return missed

        cache.get = get_before_it_is_there  # type: ignore[method-assign]
        assert cache.get_or_compute("a", unexpected, NEW, is_new) == "there"
        cache.get = get_before_it_is_there  # type: ignore[method-assign]
        assert cache.get_or_compute("b", unexpected) == "there"


class TestCannotWrite:
    def test_the_value_is_returned_with_one_warning(self) -> None:
        cache = FullCache()
        with pytest.warns(RuntimeWarning, match="not stored: Cannot write x: the disk") as caught:
            assert cache.get_or_compute("a", lambda: [1]) == [1]
        assert caught[0].filename == __file__
        assert cache.get_or_compute("a", lambda: [2]) == [2]
        assert cache.get_or_compute_many(["a"], lambda keys: [3]) == {"a": 3}

    def test_many(self) -> None:
        cache = FullCache()
        with pytest.warns(RuntimeWarning, match="not stored: Cannot write x: the disk") as caught:
            assert cache.get_or_compute_many(["a", "b"], lambda keys: [1, 2]) == {"a": 1, "b": 2}
        assert caught[0].filename == __file__
        assert cache.get_or_compute("a", lambda: [2]) == [2]

    def test_other_errors_are_errors(self) -> None:
        class Broken(MemoryCache):
            def put(self, *args: Any, **kwargs: Any) -> None:
                raise RuntimeError("a bug")

        with pytest.raises(RuntimeError, match="a bug"):
            Broken().get_or_compute("a", lambda: 1)


class TestMany:
    @pytest.mark.parametrize("form", [list, tuple, dict])
    def test_only_what_is_missing_in_one_call(self, cache: CacheLayer, form: Any) -> None:
        cache.put("b", "there")
        calls = []

        def compute(keys: list[str]) -> Any:
            calls.append(list(keys))
            pairs = [(key, key.upper()) for key in keys]
            keys.clear()
            return dict(reversed(pairs)) if form is dict else form(value for _, value in pairs)

        found = cache.get_or_compute_many(["d", "b", "a", "d"], compute, NEW)
        assert list(found.items()) == [("d", "D"), ("b", "there"), ("a", "A")]
        assert calls == [["d", "a"]]
        assert cache.get_many(["a", "d"]) == {"a": ("A", NEW), "d": ("D", NEW)}
        assert cache.get("b") == ("there", None)
        assert cache.get_or_compute_many(["a", "d"], unexpected) == {"a": "A", "d": "D"}
        assert cache.get_or_compute_many([], unexpected) == {}

    def test_values_are_as_later_and_nobody_elses(self, cache: CacheLayer) -> None:
        made = [[1], np.arange(3)]
        found = cache.get_or_compute_many(["a", "b"], lambda keys: made)
        found["a"].append(2)
        made[1][0] = 7  # type: ignore[index]
        assert found["b"].tolist() == [0, 1, 2]
        assert not found["b"].flags.writeable
        again = cache.get_or_compute_many(["a", "b"], unexpected)
        assert again["a"] == [1]
        assert again["b"].tolist() == [0, 1, 2]

    def test_expiry(self, cache: CacheLayer, hands: Clock) -> None:
        cache.get_or_compute_many(["a", "b"], lambda keys: [1, 2], expiry_seconds=5)
        hands.go(5.001)
        assert cache.get_or_compute_many(["a", "b"], lambda keys: [3, 4]) == {"a": 3, "b": 4}

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ([1], "asked for 2 keys and returned 1 values"),
            ((1, 2, 3), "asked for 2 keys and returned 3 values"),
            ({"a": 1}, "lacks key 'b'"),
            ({}, "lacks key 'a' and 1 more"),
            ({"a": 1, "b": 2, "c": 3}, "has the unknown key 'c'"),
            ("ab", "returned a str"),
            ({1, 2}, "returned a set"),
            (None, "returned a NoneType"),
            (iter([1, 2]), "returned a list_iterator"),
        ],
    )
    def test_what_does_not_fit(self, cache: CacheLayer, result: Any, message: str) -> None:
        with pytest.raises(UsageError, match=f"^compute_fn .*{message}"):
            cache.get_or_compute_many(["a", "b"], lambda keys: result)
        assert len(cache) == 0

    def test_all_or_nothing(self, cache: CacheLayer) -> None:
        with pytest.raises(UnsupportedValueError, match=r"(?s)'b'.*value\[0\] is a object"):
            cache.get_or_compute_many(["a", "b"], lambda keys: [1, [object()]])
        assert len(cache) == 0


def add(a: int, b: int = 1, *rest: int, **more: int) -> list[int]:
    CALLS.append((a, b, rest, more))
    return [a + b + sum(rest) + sum(more.values())]


def other(a: int, b: int = 1, *rest: int, **more: int) -> list[int]:
    return [0]


CALLS: list[Any] = []


class Thing:
    def method(self, number: int) -> int:
        return number

    @staticmethod
    def static(number: int) -> int:
        return number + 1

    @classmethod
    def of_class(cls, number: int) -> int:
        return number + 2


class TestMemoize:
    @pytest.fixture(autouse=True)
    def _no_calls(self) -> None:
        CALLS.clear()

    def test_one_call_for_equal_arguments(self, cache: CacheLayer) -> None:
        fast = cache.memoize(add)
        first = fast(1)
        first.append("changed")
        assert fast(1, 1) == fast(a=1) == fast(b=1, a=1) == [2]
        assert len(CALLS) == 1
        assert fast.__name__ == "add"
        assert fast.__doc__ == add.__doc__

    def test_other_arguments_are_other_calls(self, cache: CacheLayer) -> None:
        fast = cache.memoize(add)
        calls: list[Callable[[], Any]] = [
            lambda: fast(1),
            lambda: fast(1, 2),
            lambda: fast(1, 1, 0),
            lambda: fast(1, c=0),
            lambda: fast(1, d=0),
            lambda: fast(True),
            lambda: fast(1.0),  # type: ignore[arg-type]
        ]
        for call in calls * 2:
            call()
        assert len(CALLS) == len(calls)

    def test_other_functions_and_versions(self, cache: CacheLayer) -> None:
        assert cache.memoize(add)(1) == [2]
        assert cache.memoize(other)(1) == [0]
        assert cache.memoize(version=2)(other)(1) == [0]
        assert cache.memoize(prefix="p")(add)(1) == [2]
        assert cache.memoize(prefix="q")(other)(1) == [0]
        assert cache.memoize(prefix="p")(unexpected_named_add)(1) == [2]
        name = f"{__name__}.add"
        keys = cache.keys()
        assert [key.rsplit("_", 1)[0] for key in keys] == sorted(
            [name, "p", "q", f"{__name__}.other", f"{__name__}.other"]
        )
        cache.invalidate(prefix=name)
        assert cache.memoize(add)(1) == [2]
        assert len(CALLS) == 3

    def test_expiry(self, cache: CacheLayer, hands: Clock) -> None:
        @cache.memoize(expiry_seconds=10, prefix="f")
        def function() -> int:
            CALLS.append(1)
            return len(CALLS)

        assert [function(), function()] == [1, 1]
        hands.go(10.001)
        assert function() == 2

    def test_static_and_class_methods(self, cache: CacheLayer) -> None:
        assert cache.memoize(Thing.static)(1) == 2
        assert cache.memoize(Thing.of_class)(1) == 3
        assert len(cache) == 2

    def test_functions_that_their_names_do_not_tell_apart(self, cache: CacheLayer) -> None:
        around = 3
        functions: list[tuple[Any, str]] = [
            (lambda number: number, "is a lambda"),
            (lambda number: number + around, "is a lambda"),
            (Thing().method, "is a method of a Thing"),
            (functools.partial(add, 2), "has no name"),
            (Function(7), "has no name"),
        ]

        def local(number: int) -> int:
            return number + around

        functions.append((local, r"uses variables of the function around it \(around\)"))
        for function, why in functions:
            with pytest.raises(UsageError, match=rf"(?s){why}.*Pass prefix="):
                cache.memoize(function)
        results = [
            cache.memoize(function, prefix=f"function {at}")(7)
            for at, (function, _) in enumerate(functions)
        ]
        assert results == [7, 10, 7, [9], 7, 10]

    def test_arguments_that_are_no_keys(self, cache: CacheLayer) -> None:
        with pytest.raises(UsageError, match=r"\['arguments'\]\['a'\]"):
            cache.memoize(add)(object())  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"\['arguments'\]\['self'\]"):
            cache.memoize(Thing.method)(Thing(), 1)
        with pytest.raises(TypeError, match="missing a required argument: 'a'"):
            cache.memoize(add)()  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("function", "options", "message"),
        [
            (5, {}, "memoize was given 5, which is not a function"),
            (add, {"prefix": 5}, "prefix is 5; it must be a string"),
            (add, {"version": object()}, "Cannot compute a key"),
            (type, {"prefix": "p"}, "does not say what its arguments are"),
        ],
    )
    def test_what_cannot_be_memoized(
        self, cache: CacheLayer, function: Any, options: Any, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            cache.memoize(function, **options)
        with pytest.raises(UsageError, match=message):
            cache.memoize(**options)(function)

    def test_an_exception_passes_through(self, cache: CacheLayer) -> None:
        function = Function(OSError("no"), 5)
        fast = cache.memoize(function, prefix="p")
        with pytest.raises(OSError, match="no"):
            fast(1)
        assert fast(1) == fast(1) == 5


def unexpected_named_add(a: int, b: int = 1, *rest: int, **more: int) -> list[int]:
    raise AssertionError("not to be called")


def test_a_full_cache_that_warns_as_an_error_still_works_for_others() -> None:
    """The warning of one thread is its own: it must not end the computation for all."""
    cache = FullCache()

    def compute() -> int:
        wait_until(lambda: len(flight._process.waiting) == 2)
        return 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask = functools.partial(cache.get_or_compute, "a", compute)
        results = Threads(*[ask] * 3).join()
    assert sorted(map(str, results))[:2] == ["1", "1"]
    assert [type(result) for result in results].count(RuntimeWarning) == 1


class TestMistakes:
    def test_a_function_that_was_called(self) -> None:
        cache = MemoryCache()
        not_a_function: Any = np.arange(3)
        with pytest.raises(UsageError, match="compute_fn is a ndarray; give a function"):
            cache.get_or_compute("k", not_a_function)
        with pytest.raises(UsageError, match="validate_fn is a bool"):
            cache.get_or_compute("k", dict, validate_fn=True)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="compute_fn is a list"):
            cache.get_or_compute_many(["k"], [1])  # type: ignore[arg-type]
        assert len(cache) == 0

    def test_the_key_of_what_cannot_be_stored_is_named(self) -> None:
        with pytest.raises(UnsupportedValueError, match="Key 'k': value is a set"):
            MemoryCache().get_or_compute("k", lambda: {1})

    def test_methods_are_told_what_to_do(self) -> None:
        class Tokenizer:
            @MemoryCache().memoize(prefix="tokenize")
            def tokenize(self, text: str) -> str:
                return text

        with pytest.raises(UsageError, match=r"A call of tokenize has no key.*such as `self`"):
            Tokenizer().tokenize("a")

    def test_an_expiry_is_checked_when_a_function_is_memoized(self) -> None:
        with pytest.raises(UsageError, match="expiry_seconds is -1"):
            MemoryCache().memoize(expiry_seconds=-1)(test_limits_may_be_numbers_of_numpy)

    def test_metadata_have_a_time(self) -> None:
        with pytest.raises(UsageError, match=r"metadata\.created_at is 'yesterday'"):
            MemoryCache().put("k", 1, CacheMetadata(created_at="yesterday"))  # type: ignore[arg-type]


def test_limits_may_be_numbers_of_numpy() -> None:
    cache = MemoryCache(max_size=np.int64(2), max_bytes=np.int64(10_000))
    cache.put_many(dict.fromkeys("abc", 1))
    assert len(cache) == 2
