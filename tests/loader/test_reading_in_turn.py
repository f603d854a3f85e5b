"""Groups of batches that several threads read, handed out in order."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import easydata as ed
from easydata._threads import Call
from easydata.loader import batches
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.batches import _read_in_turn
from easydata.loader.locating import Chosen, Located, Pace
from easydata.loader.permutation import Permutation
from easydata.loader.samples import ConcatSamples
from tests.arrow_threads import arrow_threads

from .test_mixing_merging import Scattered


@pytest.fixture(autouse=True)
def cores() -> Iterator[None]:
    with arrow_threads(4):
        yield


class Group:
    """In place of located batches: their numbers."""

    ids = "known"

    def __init__(self, numbers: list[int]) -> None:
        self.ends = numbers

    def groups(self, size: int) -> Iterator[Group]:
        assert size == 1
        return (Group([number]) for number in self.ends)


def read_in_turn(
    sizes: list[int], threads: int, bad: int | None, bad_group: int | None, got: list[int]
) -> None:
    """Read groups of these sizes; reading batch `bad` and finding `bad_group` fail."""

    def groups() -> Iterator[Group]:
        first = 0
        for number, size in enumerate(sizes):
            if number == bad_group:
                raise OSError(f"group {number}")
            yield Group([*range(first, first + size)])
            first += size

    def read(group: Group, _finish: Any) -> list[int]:
        if bad in group.ends:
            raise ValueError(f"batch {bad}")
        return group.ends

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_read", read)
        reading: Any = _read_in_turn(groups(), lambda arrays: arrays, threads=threads)  # type: ignore[arg-type]
        for found in reading:
            got += found


@given(
    sizes=st.lists(st.integers(1, 3), max_size=12),
    threads=st.integers(1, 4),
    bad=st.none() | st.integers(0, 12),
    bad_group=st.none() | st.integers(0, 6),
)
def test_in_order_and_errors_when_it_is_their_turn(
    sizes: list[int], threads: int, bad: int | None, bad_group: int | None
) -> None:
    readable = sum(sizes if bad_group is None else sizes[:bad_group])
    got: list[int] = []
    if bad is not None and bad < readable:
        with pytest.raises(ValueError, match=f"batch {bad}$"):
            read_in_turn(sizes, threads, bad, bad_group, got)
        assert got == [*range(bad)]
    elif bad_group is not None and bad_group < len(sizes):
        with pytest.raises(OSError, match=f"group {bad_group}$"):
            read_in_turn(sizes, threads, bad, bad_group, got)
        assert got == [*range(readable)]
    else:
        read_in_turn(sizes, threads, bad, bad_group, got)
        assert got == [*range(readable)]


def loader(monkeypatch: pytest.MonkeyPatch, **options: Any) -> ed.DataLoader:
    """Of samples of 64 bytes, of which four batches are read in one call."""
    monkeypatch.setattr(batches, "_READ_BYTES", 4 * 8 * 64)
    monkeypatch.setattr(batches, "_HANDED_BYTES", 1)
    tokens = np.arange(32 * 1000, dtype=np.uint16)
    data = ed.ArrayTokens(tokens, fingerprint="counted")
    return ed.DataLoader(data, 8, 32, epochs=2, **options)


def first_tokens(found: Any) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in found]


def test_the_same_batches_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in (1, 2, 4):
        pa.set_cpu_count(threads)
        found.append(first_tokens(loader(monkeypatch, seed=3)))
    assert found[0] == found[1] == found[2]
    assert sorted(sum(found[0], [])) == sorted([*range(0, 32000, 32)] * 2)


def test_who_waits_reads_a_later_group_meanwhile() -> None:
    """The thread that stands by ends its first group only once a later one was read."""
    begun, is_read = threading.Event(), [threading.Event() for _ in range(20)]
    main = threading.current_thread()

    def read(group: Group, _finish: Any) -> list[int]:
        (number,) = group.ends
        if threading.current_thread() is main:
            for event in is_read[:number]:
                event.set()
        elif not begun.is_set():  # the first: this thread sees that it is under way
            begun.set()
            assert is_read[number].wait(60)
        return group.ends

    with arrow_threads(2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_read", read)
        groups = (Group([number]) for number in range(20))
        reading: Any = _read_in_turn(groups, lambda arrays: arrays, threads=2)  # type: ignore[arg-type]
        got = [next(reading), next(reading)]
        assert begun.wait(60)
        got += reading
    assert got == [[number] for number in range(20)]


class Numbered:
    """Samples of 32 tokens that lie in an array; to locate one of those in `bad` fails, and
    whoever locates is noted.
    """

    def __init__(self, bad: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        tokens = ed.ArrayTokens(np.arange(32 * 1000, dtype=np.uint16), fingerprint="counted")
        self._samples = ConcatSamples(tokens, 32)
        self._bad = bad
        self.num_samples, self.seq_len = 1000, 32
        self.fingerprint, self.dtype = "numbered", np.dtype(np.uint16)
        self.located: list[tuple[threading.Thread, int]] = []

    def locate(self, samples: np.ndarray) -> Any:
        self.located.append((threading.current_thread(), len(samples)))
        if self._bad & {*samples.tolist()}:
            raise ed.DatasetError("bad sample")
        return self._samples.locate(samples)

    def read(self, samples: np.ndarray) -> Any:
        return self.locate(samples).read(0, len(samples))


def test_the_next_ones_are_located_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_READ_BYTES", 4 * 8 * 64)
    monkeypatch.setattr(batches, "_HANDED_BYTES", 1)
    monkeypatch.setattr("easydata.loader.locating._SECONDS", 1e9)  # a pause is no slow source
    main = threading.current_thread()
    found = set()
    for _ in range(50):  # now and then, this thread is there first
        source = Numbered()
        assert sorted(sum(first_tokens(ed.DataLoader(source, 8, epochs=1)), [])) == [
            *range(0, 32000, 32)
        ]
        assert [count for _, count in source.located] == [8, 32, 128, 512, 320]
        assert [thread is main for thread, _ in source.located[:2]] == [True, True]
        found |= {thread is main for thread, _ in source.located[2:]}
        if False in found:
            break
    assert False in found


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("bad", [0, 7, 8, 100, 333, 999])
def test_batches_before_what_cannot_be_located_come(
    threads: int, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_READ_BYTES", 4 * 8 * 64)
    monkeypatch.setattr(batches, "_HANDED_BYTES", 1)
    pa.set_cpu_count(threads)
    got: list[int] = []
    order = [*Permutation(1000, seed=7, epoch=0)(np.arange(1000)).tolist()]
    reading = iter(ed.DataLoader(Numbered({order[bad]}), 8, seed=7))
    for _ in range(bad // 8):
        got += (next(reading)["input_ids"][:, 0] // 32).tolist()
    with pytest.raises(ed.DatasetError, match="bad sample"):
        next(reading)
    assert got == order[: bad // 8 * 8]


def test_a_forked_child_locates_again() -> None:
    """What a thread of its parent was at."""
    program = """
import os
import threading

import numpy as np
import pyarrow

import easydata as ed
from easydata.loader.locating import Chosen, Pace, locate_batches
from easydata.loader.samples import ConcatSamples

pyarrow.set_cpu_count(2)
begun, end = threading.Event(), threading.Event()
samples = ConcatSamples(ed.ArrayTokens(np.arange(64, dtype=np.uint16)), 8)

class Stretch:
    def locate(self, chosen):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert end.wait(60)
        return samples.locate(chosen)

chosen = (Chosen(Stretch(), np.arange(i, i + 2), [0, 1, 2], [1, 2]) for i in (0, 2))
located = locate_batches(chosen, Pace(9), threads=2)
next(located)
assert begun.wait(60)
child = os.fork()
if child:
    end.set()
assert next(located).samples.read(0, 2)["input_ids"][:, 0].tolist() == [16, 24]
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_more_are_located_at_once_unless_it_takes_long() -> None:
    pace = Pace(100)
    assert pace.count == 1
    counts = []
    for seconds in (0.0, 0.01, 0.01, 0.01, 0.5, 1.0, 0.25, 1000.0, 0.125, 0.0):
        pace.took(seconds, 0)
        counts.append(pace.count)
    assert counts == [4, 16, 64, 100, 50, 12, 12, 1, 2, 8]


@pytest.mark.parametrize("kind", ["concat", "greedy", "scattered"])
@pytest.mark.parametrize("dtypes", [["u2"], ["u2", "u2"], ["u2", "u4"]])
def test_few_are_located_at_once_of_many_pieces(
    monkeypatch: pytest.MonkeyPatch, kind: str, dtypes: list[str]
) -> None:
    monkeypatch.setattr("easydata.loader.locating._PIECES", 2000)
    found: list[int] = []
    real = Chosen.locate

    def locate(chosen: Chosen) -> Located:
        located = real(chosen)
        found.append(len(located.ends))
        assert located.num_pieces >= 100 * len(located.ends)
        return located

    monkeypatch.setattr(Chosen, "locate", locate)
    options: dict[str, Any] = {"pack": kind, "columns": ["segment_ids"], "pad_token_id": 1}
    sources: list[Any] = [ArrayTokens(np.zeros(40_000, t), np.full(20_000, 2)) for t in dtypes]
    if kind == "scattered":  # of one document, that lies in many places
        options = {}
        sources = [Scattered(np.zeros(40_000, t), 2) for t in dtypes]
    data = dict(zip("ab", sources, strict=False)) if len(sources) > 1 else sources[0]
    for _ in ed.DataLoader(data, 4, 50, epochs=1, **options):
        pass
    assert sum(found) == 200 * len(sources)
    assert max(found) == 20  # of 4 samples of 25 pieces each


def test_a_slow_source_locates_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("easydata.loader.locating.time.perf_counter", lambda: next(clock))
    source = Numbered()
    assert len(first_tokens(ed.DataLoader(source, 8, epochs=1))) == 125
    assert {count for _, count in source.located} == {8}


def test_so_are_those_of_a_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_READ_BYTES", 4 * 8 * 64)
    monkeypatch.setattr(batches, "_HANDED_BYTES", 1)
    sources = {
        name: ed.ArrayTokens(np.arange(first, first + 9600, dtype=np.uint16), fingerprint=name)
        for name, first in (("a", 0), ("b", 20000))
    }
    found = []
    for threads in (1, 4):
        pa.set_cpu_count(threads)
        loader = ed.DataLoader(sources, 8, 32, weights={"a": 0.5, "b": 0.5}, epochs=1)
        found.append(first_tokens(loader))
    assert found[0] == found[1]
    assert len(found[0]) >= 70


def test_others_read_before_it_is_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = threading.Event()
    read, main = batches._read, threading.current_thread()

    def spied(group: Any, finish: Any) -> Any:
        if threading.current_thread() is not main:
            ahead.set()
        return read(group, finish)

    monkeypatch.setattr(batches, "_read", spied)
    reading = iter(loader(monkeypatch))
    for _ in range(20):
        next(reading)
    assert ahead.wait(60)


def test_the_first_batch_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    read, groups = batches._read, []

    def spied(group: Any, finish: Any) -> Any:
        groups.append(group)
        return read(group, finish)

    monkeypatch.setattr(batches, "_read", spied)
    next(iter(loader(monkeypatch)))
    assert [len(group.ends) for group in groups] == [1]


def test_what_was_read_ahead_was_not_consumed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = first_tokens(loader(monkeypatch, seed=5))
    reading = iter(loader(monkeypatch, seed=5))
    for count in range(len(expected)):
        again = loader(monkeypatch, seed=5)
        again.load_state_dict(reading.state_dict())
        assert first_tokens([next(iter(again))]) == [expected[count]]
        assert first_tokens([next(reading)]) == [expected[count]]


def test_nothing_is_read_ahead_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, it cancels what has not begun."""
    cancelled: list[bool] = []
    cancel = Call.cancel

    def spied(call: Call[Any]) -> bool:
        cancelled.append(True)
        return cancel(call)

    monkeypatch.setattr(Call, "cancel", spied)
    reading = iter(loader(monkeypatch))
    for _ in range(60):
        next(reading)
    cancelled.clear()
    reading.close()
    assert cancelled


def test_a_source_that_reads_is_read_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    class Reads:
        """Samples by number, which do not say where they lie."""

        num_samples, seq_len, fingerprint, dtype = 4000, 32, "reads", np.dtype(np.uint16)

        def read(self, samples: np.ndarray) -> dict[str, np.ndarray]:
            threads.add(threading.current_thread())
            return {"input_ids": samples[:, None].repeat(32, axis=1).astype(np.uint16)}

    monkeypatch.setattr(batches, "_READ_BYTES", 4 * 8 * 64)
    monkeypatch.setattr(batches, "_HANDED_BYTES", 1)
    found = first_tokens(ed.DataLoader(Reads(), 8, epochs=1))
    assert sorted(sum(found, [])) == [*range(4000)]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize(
    ("batch_size", "options", "most"),
    [
        (1 << 16, {}, 4),
        (1 << 20, {}, 4),
        ((1 << 20) + 1, {}, 1),
        (1 << 21, {}, 1),
        (40 * 8, {}, 4),
        (17, {}, 1),
        (1 << 18, {"dtype": "int64"}, 4),
        ((1 << 18) + 1, {"dtype": "int64"}, 1),
        (1 << 18, {"columns": ["labels"]}, 4),
        (1 << 19, {"columns": ["labels"]}, 1),
    ],
)
def test_large_and_small_batches_are_not_handed_over(
    batch_size: int, options: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two megabytes each are, and 32, of which three are 96, with all their arrays; more are not;
    several small ones that are read in one call are, those that are read one by one are not.
    """
    seen = []

    def spied(groups: Any, _finish: Any, *, threads: int) -> Iterator[Any]:
        seen.append(threads)
        return iter(())

    monkeypatch.setattr(batches, "_read_in_turn", spied)
    tokens = ed.ArrayTokens(np.zeros(batch_size * 16, np.uint16), fingerprint="0")
    loader = ed.DataLoader(tokens, batch_size, 16, epochs=2, **options)
    assert len(list(loader)) == 1
    assert seen == [most]


@pytest.mark.parametrize("options", [{}, {"dtype": "int64"}])
@pytest.mark.parametrize("columns", [None, ["segment_ids", "positions", "labels", "document_ids"]])
def test_groups_hold_so_many_bytes(
    options: dict[str, Any], columns: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, all_arrays = [], []

    def spied(group: Any, finish: Any) -> list[batches.Batch]:
        found = real_read(group, finish)
        ids.append(sum(one.arrays["input_ids"].nbytes for one in found))
        all_arrays.append(sum(a.nbytes for one in found for a in one.arrays.values()))
        return found

    real_read = batches._read
    monkeypatch.setattr(batches, "_read", spied)
    tokens = ed.ArrayTokens(
        np.zeros(1 << 24, np.uint16), lengths=np.full(1 << 14, 1024), fingerprint="0"
    )
    for batch in ed.DataLoader(tokens, 32, 1024, epochs=1, columns=columns, **options):
        del batch
    most = batches._AHEAD_BYTES // batches._GROUPS_AHEAD
    assert max(ids) <= batches._READ_BYTES
    assert max(all_arrays) <= most
    assert max(ids) > batches._READ_BYTES // 2 or max(all_arrays) > most // 2
