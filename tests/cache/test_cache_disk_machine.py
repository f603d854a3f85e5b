"""Caches on one folder, in this and in another process, behave together like one dict."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from easydata.cache import clock
from easydata.cache.log import growing, pieces
from easydata.metadata import CacheMetadata
from tests.cache.elsewhere import Elsewhere, make_small
from tests.cache.layers import Clock
from tests.cache.values_strategy import assert_same

KEYS = ["", "a", "ab", "abc", "b", "B", "../x", "\0"]
KINDS = ["number", "text", "flat", "lists", "nested", "columns", "bytes", "many"]
FORMATS = [("none", None), ("zstd", None), ("lz4", "ipc"), ("gzip", None), ("none", "parquet")]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nothing here is about disks
LARGE = 150_000  # bytes, of which a few are more than the least limit

a_key = st.sampled_from(KEYS)
a_kind = st.sampled_from(KINDS)
a_time = st.sampled_from([None, None, None, 0.5, 1.5, 3.5])
a_handle = st.integers(0, 2)
a_format = st.sampled_from(FORMATS)
# For what takes long. Not a precondition: a step that is drawn in vain takes Hypothesis longer.
seldom = st.sampled_from([False, False, False, True])
metadata = st.sampled_from([None, None, CacheMetadata(created_at=1.5, config_hash="c")])


def value_of(kind: str, number: int) -> Any:
    """A value like no other: of many kinds, as each set of columns has segments of its own."""
    match kind:
        case "number":
            return number
        case "text":
            return f"text {number}"
        case "flat":
            return {"ids": np.arange(number, number + 5, dtype="<u2"), "n": number}
        case "lists":
            return {"ids": [number, number + 1], "words": ["a", None, number]}
        case "nested":
            return [number, {"x": {}}, (1.5, None, b"b")]
        case "columns":
            return {f"column {number % 20}": number}
        case "bytes":
            return number.to_bytes(4, "little") * 1000
    return number.to_bytes(4, "little") * (LARGE // 4)


_others: list[Elsewhere] = []


def other_process() -> Elsewhere:
    """The one that was not killed, or another."""
    if not _others or _others[0].is_dead:
        _others[:] = [Elsewhere()]
    return _others[0]


@dataclass
class Known:
    """What should be stored for a key.

    Attributes:
        is_alone: nothing else was put by the same call. Of several values any may be the newest,
            as those of one set of columns are written together.
        may_return: it was expired once, or may have been removed: if the clock steps back, it may
            be there or not.
        may_be_gone: it may have been evicted, and then for ever.
    """

    value: Any
    metadata: CacheMetadata | None
    expires: float
    is_alone: bool
    may_return: bool = False
    may_be_gone: bool = False


class Machine(RuleBasedStateMachine):
    """Three caches: handle 0 and 1 are of this process, 2 is of another."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock()
        self.patch.setattr(clock, "now", self.clock.now)
        self.patch.setattr(growing, "_CAPACITIES", (16, 16))
        self.patch.setattr(pieces, "LARGE_BYTES", 3000)
        self.patch.setattr(pieces, "PIECE_BYTES", 1000)
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.known: dict[str, Known] = {}
        self.number = 0
        self.caches: list[Any] = [None, None, None]

    def teardown(self) -> None:
        try:
            if self.caches[2] is not None:
                self.at_the_end()
        finally:
            self.caches.clear()
            self.patch.undo()
            self.folder.cleanup()

    def at_the_end(self) -> None:
        """Everything is where it should be, also for who comes now, and after a compaction."""
        self.look_at_all(self.ask(0, "get_many", KEYS), self.ask(0, "keys"))
        self.look_at_all(self.ask(1, "get_many", KEYS), self.ask(1, "keys"))
        self.look_at_all(self.ask(2, "get_many", KEYS), self.ask(2, "keys"))
        fresh = make_small(self.folder.name, False, {"readonly": True})
        self.look_at_all(fresh.get_many(KEYS), fresh.keys())
        self.ask(1, "compact")
        for cache in (fresh, make_small(self.folder.name, False, {"verify": "open"})):
            self.look_at_all(cache.get_many(KEYS), cache.keys())
        names = [path.name for path in Path(self.folder.name).iterdir()]
        assert not [name for name in names if name.startswith((".tmp", "damaged"))]
        assert not [name for name in names if "retired" in name]

    @initialize(
        formats=st.tuples(a_format, a_format, a_format),
        trees=st.tuples(st.booleans(), st.booleans()),
        is_limited=st.sampled_from([False, False, False, True]),
        always_looks=st.sampled_from([False, False, False, False, True]),
    )
    def begin(
        self,
        formats: Sequence[tuple[str, str | None]],
        trees: tuple[bool, bool],
        is_limited: bool,
        always_looks: bool,
    ) -> None:
        self.is_limited = is_limited
        self.always_looks = always_looks
        self.trees = (False, *trees)
        for handle in range(3):
            self.open(handle, formats[handle])

    def open(self, handle: int, form: tuple[str, str | None]) -> None:
        options: dict[str, Any] = {"compression": form[0], "format": form[1]}
        if self.is_limited:
            options["size_limit"] = "1MB"
        args = self.folder.name, self.trees[handle], options
        if handle < 2:
            self.caches[handle] = make_small(*args)
        else:
            self.caches[handle] = other_process()
            self.caches[handle].make(make_small, *args, now=self.clock.now())

    def ask(self, handle: int, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a cache."""
        cache = self.caches[handle]
        if handle == 2:
            return cache.call(name, *args, now=self.clock.now(), **kwargs)
        return getattr(cache, name)(*args, **kwargs)

    # Writing

    def base(self) -> int:
        """What the next stamp will be, but for less than a millisecond."""
        return max(self.clock.now(), self.caches[0].version)

    def learn(
        self, items: dict[str, Any], meta: CacheMetadata | None, base: int, seconds: float | None
    ) -> None:
        expires = float("inf") if seconds is None else base + int(seconds * 10**9)
        if self.is_limited:
            self.evicted()
        for key, value in items.items():
            # Put again, it is the newest one: the last of the dict.
            self.known.pop(key, None)
            is_alone = len(items) == 1
            self.known[key] = Known(
                copy.deepcopy(value),
                meta,
                expires,
                is_alone,
                may_be_gone=self.is_limited and not is_alone,
            )
        self.note_the_time()

    def evicted(self) -> None:
        for known in self.known.values():
            known.may_be_gone = True

    def note_the_time(self) -> None:
        for known in self.known.values():
            known.may_return |= known.expires <= self.clock.now()

    def new_value(self, kind: str) -> Any:
        self.number += 1
        if kind == "many" and not self.is_limited:
            kind = "bytes"
        return value_of(kind, self.number)

    @rule(handle=a_handle, key=a_key, kind=a_kind, meta=metadata, seconds=a_time)
    def put(
        self, handle: int, key: str, kind: str, meta: CacheMetadata | None, seconds: float | None
    ) -> None:
        value, base = self.new_value(kind), self.base()
        self.ask(handle, "put", key, value, meta, expiry_seconds=seconds)
        self.learn({key: value}, meta, base, seconds)

    @rule(handle=a_handle, key=a_key, kind=a_kind)
    def put_and_look(self, handle: int, key: str, kind: str) -> None:
        self.put(handle, key, kind, None, None)
        for other in (handle, 2 - handle):
            self.look(key, self.ask(other, "get", key))

    @rule(
        handle=a_handle,
        items=st.dictionaries(a_key, a_kind, max_size=8),
        meta=metadata,
        seconds=a_time,
    )
    def put_many(
        self,
        handle: int,
        items: dict[str, str],
        meta: CacheMetadata | None,
        seconds: float | None,
    ) -> None:
        values, base = {key: self.new_value(kind) for key, kind in items.items()}, self.base()
        self.ask(handle, "put_many", values, meta, expiry_seconds=seconds)
        self.learn(values, meta, base, seconds)

    @rule(handle=st.integers(0, 1), key=a_key, kind=a_kind)
    def get_or_compute(self, handle: int, key: str, kind: str) -> None:
        computed = []

        def compute() -> Any:
            computed.append(self.new_value(kind))
            return computed[0]

        base = self.base()
        found = self.ask(handle, "get_or_compute", key, compute)
        if computed:
            self.look(key, None)
            assert_same(computed[0], found)
            self.learn({key: computed[0]}, None, base, None)
        else:
            assert_same(self.known[key].value, found)

    @rule(handle=a_handle, key=a_key)
    def invalidate(self, handle: int, key: str) -> None:
        self.ask(handle, "invalidate", key)
        self.known.pop(key, None)

    @rule(handle=a_handle, prefix=st.sampled_from(["a", "ab", "b", "x"]))
    def invalidate_prefix(self, handle: int, prefix: str) -> None:
        self.ask(handle, "invalidate", prefix=prefix)
        for key in [key for key in self.known if key.startswith(prefix)]:
            del self.known[key]

    @rule(handle=a_handle)
    def invalidate_all(self, handle: int) -> None:
        self.ask(handle, "invalidate")
        self.known.clear()

    @rule(seconds=st.sampled_from([-5, -2, -1, 1, 1, 2, 4]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.go(seconds)
        self.note_the_time()

    @rule(handle=a_handle, name=st.sampled_from(["compact", "expire", "flush", "close"]))
    def tidy(self, handle: int, name: str) -> None:
        if self.is_limited:
            self.evicted_but_newest()
        self.ask(handle, name)

    @rule(max_bytes=st.sampled_from([1, 20_000, 40_000, 10**6]))
    def shrink(self, max_bytes: int) -> None:
        self.evicted_but_newest()
        self.caches[0].shrink(max_bytes)

    def evicted_but_newest(self) -> None:
        """Any may be gone but what was put last, if that can be said."""
        newest = next(reversed(self.known.values()), None)
        if newest is not None:
            is_safe = newest.is_alone and newest.expires == float("inf")
            before = newest.may_be_gone or not is_safe
            self.evicted()
            newest.may_be_gone = before

    @rule(handle=st.integers(0, 1), closes=st.booleans(), form=a_format)
    def open_again(self, handle: int, closes: bool, form: tuple[str, str | None]) -> None:
        if self.is_limited:
            self.evicted_but_newest()
        if closes:
            self.ask(handle, "close")
        self.caches[handle] = None
        self.open(handle, form)

    @rule(form=a_format, is_wanted=seldom)
    def kill(self, form: tuple[str, str | None], is_wanted: bool) -> None:
        if not is_wanted:
            return
        self.caches[2].kill()
        self.open(2, form)

    @rule(name=st.sampled_from(["*.table", "*.control"]), is_wanted=seldom)
    def lose(self, name: str, is_wanted: bool) -> None:
        """Nothing is lost with a file that can be made again, where nobody has it open."""
        if not is_wanted:
            return
        for handle in range(2):
            self.caches[handle].close()
            self.caches[handle] = None
        self.caches[2].kill()
        self.caches[2] = None
        for path in Path(self.folder.name).glob(name):
            path.unlink()
        for handle in range(3):
            self.open(handle, FORMATS[0])

    # Reading

    def look(self, key: str, found: tuple[Any, CacheMetadata | None] | None) -> None:
        known = self.known.get(key)
        if found is None:
            if known is None or known.expires <= self.clock.now() or known.may_return:
                return
            assert known.may_be_gone, (key, known)
            del self.known[key]
            return
        assert known is not None, (key, found)
        assert self.clock.now() < known.expires + 10**6, (key, known)
        assert_same(known.value, found[0])
        assert found[1] == known.metadata

    def look_at_all(self, found: dict[str, Any], keys: Sequence[str]) -> None:
        for key in KEYS:
            self.look(key, found.get(key))
        assert list(keys) == sorted(keys)
        for key in set(KEYS) - set(keys):
            self.look(key, None)
        differ = set(found) ^ set(keys)  # what expired need not come back everywhere
        assert all(self.known[key].may_return for key in differ)

    @rule(handle=a_handle, key=a_key)
    def get(self, handle: int, key: str) -> None:
        self.look(key, self.ask(handle, "get", key))

    @rule(handle=a_handle, key=a_key)
    def contains(self, handle: int, key: str) -> None:
        meta = self.ask(handle, "get_metadata", key)
        if self.ask(handle, "contains", key):
            assert key in self.known
            assert meta == self.known[key].metadata
        else:
            self.look(key, None)

    @rule(handle=a_handle)
    def get_many(self, handle: int) -> None:
        found = self.ask(handle, "get_many", KEYS)
        for key in KEYS:
            self.look(key, found.get(key))

    @rule(handle=a_handle)
    def tables(self, handle: int) -> None:
        keys = self.ask(handle, "keys")
        assert set(keys) <= set(self.known)
        assert self.ask(handle, "__len__") == len(keys)
        table = self.ask(handle, "to_table")
        assert sorted(table.column("key").to_pylist()) == keys
        assert self.ask(handle, "get_table", KEYS).num_rows == len(keys)
        for key in set(KEYS) - set(keys):
            self.look(key, None)

    @rule(handle=a_handle)
    def verify(self, handle: int) -> None:
        assert self.ask(handle, "verify") == []

    @invariant()
    def every_cache_says_so(self) -> None:
        if self.caches[2] is not None and self.always_looks:
            for handle in range(3):
                self.get_many(handle)


Machine.TestCase.settings = settings(
    # `make stress` asks for many more.
    max_examples=int(os.environ.get("EASYDATA_MACHINE_EXAMPLES", "80")),
    stateful_step_count=50,
    derandomize=True,  # so that a change is judged by what it changed
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes minutes
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


class TestCachesOfAFolder(Machine.TestCase):  # type: ignore[misc]
    @classmethod
    def tearDownClass(cls) -> None:
        other_process().kill()
