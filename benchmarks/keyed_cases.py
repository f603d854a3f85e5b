"""What benchmarks/keyed.py puts and where: the values, and each kind of cache behind one face."""

from __future__ import annotations

import gc
import hashlib
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.common import Spread

__all__ = [
    "DISKCACHE",
    "EASYDATA",
    "SIDES",
    "Figures",
    "Handle",
    "as_lists",
    "check",
    "check_table",
    "easydata_value",
    "locked_lru",
    "seconds_of",
    "seconds_of_call",
    "seconds_of_puts",
    "token_dicts",
]

EASYDATA, DISKCACHE = "easydata", "diskcache"
_VOCABULARY = 32_000
_LEAST_TOKENS, _MOST_TOKENS = 50, 500


def token_dicts(count: int) -> dict[str, dict[str, Any]]:
    """`count` values by their keys: input_ids uint16[n] and attention_mask uint8[n], all ones.

    Every token of a vocabulary of 32,000 is equally likely, so that a codec has least to gain.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(_LEAST_TOKENS, _MOST_TOKENS, count, endpoint=True)
    return {
        f"document-{number:06d}": {
            "input_ids": rng.integers(0, _VOCABULARY, length, np.uint16),
            "attention_mask": np.ones(length, np.uint8),
        }
        for number, length in enumerate(lengths.tolist())
    }


def as_lists(values: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same values with Python lists."""
    return {
        key: {name: column.tolist() for name, column in value.items()}
        for key, value in values.items()
    }


class Handle(NamedTuple):
    """An open cache.

    Attributes:
        cache: the object itself.
        put: called with key and value.
        get: called with a key.
        close: ends its use.
    """

    cache: Any
    put: Callable[[str, Any], Any]
    get: Callable[[str], Any]
    close: Callable[[], Any]


class Side(NamedTuple):
    """A kind of cache.

    Attributes:
        open: opens the cache in a folder.
        value: the value in what `Handle.get` returned.
        share: how much of the data it is measured with.
    """

    open: Callable[[Path], Handle]
    value: Callable[[Any], Any]
    share: float


def easydata_value(found: Any) -> Any:
    return found[0]


def _itself(found: Any) -> Any:
    return found


def _open_easydata(folder: Path) -> Handle:
    from easydata.cache.disk import DiskCache

    cache = DiskCache(folder)
    return Handle(cache, cache.put, cache.get, cache.close)


def _open_diskcache(folder: Path) -> Handle:
    import diskcache

    cache = diskcache.Cache(str(folder))
    return Handle(cache, cache.set, cache.get, cache.close)


_to_compute: dict[str, Any] = {}


def _compute(key: str) -> Any:
    """What joblib calls for a key that it does not have: in a get that is a KeyError."""
    return _to_compute.pop(key)


def _open_joblib(folder: Path) -> Handle:
    import joblib

    memory = joblib.Memory(folder, verbose=0)
    remembered = memory.cache(_compute)

    def put(key: str, value: Any) -> None:
        _to_compute[key] = value
        remembered(key)

    return Handle(memory, put, remembered, lambda: None)


def _open_pickles(folder: Path) -> Handle:
    folder.mkdir(exist_ok=True)

    def path(key: str) -> Path:
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()}.pkl"

    def put(key: str, value: Any) -> None:
        with path(key).open("wb") as file:
            pickle.dump((value, None), file, pickle.HIGHEST_PROTOCOL)

    def get(key: str) -> Any:
        with path(key).open("rb") as file:
            return pickle.load(file)

    return Handle(folder, put, get, lambda: None)


SIDES = {
    EASYDATA: Side(_open_easydata, easydata_value, 1),
    DISKCACHE: Side(_open_diskcache, _itself, 1),
    "joblib.Memory": Side(_open_joblib, _itself, 0.05),  # it takes hundreds of times as long
    "a pickle file per key": Side(_open_pickles, easydata_value, 1),
}


def locked_lru(values: Mapping[str, Any]) -> Callable[[str], Any]:
    """The get of a `cachetools.LRUCache` that holds these values, made safe for threads."""
    import cachetools

    cache: cachetools.LRUCache[str, Any] = cachetools.LRUCache(2 * len(values))
    cache.update(values)
    lock = threading.Lock()

    def get(key: str) -> Any:
        with lock:
            return cache.get(key)

    return get


def seconds_of(function: Callable[[Any], Any], arguments: Sequence[Any]) -> float:
    """How long the calls take one after another; each result is dropped before the next."""
    gc.collect()  # nobody pays for what others left
    start = time.perf_counter()
    for argument in arguments:
        function(argument)
    return time.perf_counter() - start


def seconds_of_puts(put: Callable[[str, Any], Any], items: Sequence[tuple[str, Any]]) -> float:
    """How long it takes to put them one after another."""
    gc.collect()
    start = time.perf_counter()
    for key, value in items:
        put(key, value)
    return time.perf_counter() - start


def seconds_of_call(function: Callable[[], Any]) -> float:
    """How long one call takes."""
    return seconds_of(lambda _: function(), [None])


class Figures:
    """Seconds for each entry, by what was measured and by side, over rounds.

    Attributes:
        counts: whether what is measured now is kept.
    """

    def __init__(self) -> None:
        self.counts = True
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def add(self, what: str, side: str, seconds: float, entries: int) -> None:
        """Keep a measurement, unless this round only warms up."""
        if self.counts:
            self._seconds.setdefault((what, side), []).append(seconds / entries)

    @property
    def names(self) -> list[str]:
        """What was measured, in order."""
        return list(dict.fromkeys(name for name, _ in self._seconds))

    def sides(self, what: str) -> list[str]:
        """Who was measured in this."""
        return [side for name, side in self._seconds if name == what]

    def microseconds(self, what: str, side: str) -> Spread:
        return Spread.of([1e6 * seconds for seconds in self._seconds[what, side]])

    def ratio(self, base: tuple[str, str], other: tuple[str, str]) -> float:
        """How many times as fast `other` is, each given as what and side."""
        return self.microseconds(*base).median / self.microseconds(*other).median


def check(values: Mapping[str, Any], get: Callable[[str], Any]) -> None:
    """Compare all values with what `get` gives.

    Raises:
        RuntimeError: one is another.
    """
    for key, expected in values.items():
        found = get(key)
        if found.keys() != expected.keys() or not all(
            _is_same(found[name], column) for name, column in expected.items()
        ):
            raise RuntimeError(f"{key} gave another value than was put.")


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return (
            isinstance(found, np.ndarray)
            and found.dtype == expected.dtype
            and np.array_equal(found, expected)
        )
    return type(found) is list and found == expected


def check_table(values: Sequence[dict[str, Any]], table: pa.Table) -> None:
    """Compare a table with the values of its rows.

    Raises:
        RuntimeError: it holds something else.
    """
    for name in values[0]:
        chunks = table[name].chunks
        items = [chunk.flatten().to_numpy() for chunk in chunks]
        lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in chunks]
        expected = [value[name] for value in values]
        if not (
            np.array_equal(np.concatenate(lengths), [len(column) for column in expected])
            and _is_same(np.concatenate(items), np.concatenate(expected))
        ):
            raise RuntimeError(f"The column {name} of a table holds another value than was put.")
