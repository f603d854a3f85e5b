from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader import packing_fit
from easydata.loader.packing_plan import PackingPlan, plan_packing

STRATEGIES = ["concat", "greedy", "pool", "first_fit", "best_fit", "pad"]
Piece = tuple[int, int]  # start, length


class Sample:
    """What the oracles fill. `since` counts up whenever the room changes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.since = 0
        self.pieces: list[Piece] = []

    def add(self, piece: Piece, since: int = 0) -> None:
        assert piece[1] <= self.room
        self.pieces.append(piece)
        self.room -= piece[1]
        self.since = since


def split(lengths: list[int], seq_len: int) -> list[Piece]:
    pieces = []
    start = 0
    for length in lengths:
        end = start + length
        while start < end:
            pieces.append((start, min(seq_len, end - start)))
            start += pieces[-1][1]
    return pieces


def slow_concat(lengths: list[int], seq_len: int) -> list[list[Piece]]:
    ends = set(itertools.accumulate(lengths))
    total = sum(lengths)
    cuts = sorted({0, *range(0, total, seq_len), *ends} - {total})
    pieces = [(a, b - a) for a, b in itertools.pairwise([*cuts, total])]
    return [list(group) for _, group in itertools.groupby(pieces, lambda p: p[0] // seq_len)]


def slow_greedy(pieces: list[Piece], seq_len: int) -> list[Sample]:
    samples: list[Sample] = []
    for piece in pieces:
        if not samples or samples[-1].room < piece[1]:
            samples.append(Sample(seq_len))
        samples[-1].add(piece)
    return samples


def slow_pool(pieces: list[Piece], seq_len: int, num_packers: int) -> list[Sample]:
    samples: list[Sample] = []
    pool: list[Sample] = []  # in the order of opening; min() takes the first of equal ones
    for piece in pieces:
        if piece[1] == seq_len:
            samples.append(Sample(seq_len))
            samples[-1].add(piece)
            continue
        fitting = [sample for sample in pool if sample.room >= piece[1]]
        if not fitting:
            if len(pool) == num_packers:
                pool.remove(min(pool, key=lambda sample: sample.room))
            fitting = [Sample(seq_len)]
            pool += fitting
            samples += fitting
        min(fitting, key=lambda sample: sample.room).add(piece)
    return samples


def slow_first_fit(pieces: list[Piece], seq_len: int) -> list[Sample]:
    samples: list[Sample] = []
    for piece in pieces:
        found = next((sample for sample in samples if sample.room >= piece[1]), None)
        if found is None:
            found = Sample(seq_len)
            samples.append(found)
        found.add(piece)
    return samples


def slow_best_fit(pieces: list[Piece], seq_len: int) -> list[Sample]:
    samples: list[Sample] = []
    for clock, piece in enumerate(sorted(pieces, key=lambda piece: -piece[1])):
        fitting = [sample for sample in samples if sample.room >= piece[1]]
        if not fitting:
            fitting = [Sample(seq_len)]
            samples += fitting
        min(fitting, key=lambda sample: (sample.room, sample.since)).add(piece, clock)
    return samples


def slow_plan(
    lengths: list[int], seq_len: int, strategy: str, num_packers: int
) -> list[list[Piece]]:
    """The pieces of every sample, one document after another by the rule as it reads."""
    if strategy == "concat":
        return slow_concat(lengths, seq_len)
    pieces = split(lengths, seq_len)
    if strategy == "pad":
        return [[piece] for piece in pieces]
    rules: dict[str, Callable[[], list[Sample]]] = {
        "greedy": lambda: slow_greedy(pieces, seq_len),
        "pool": lambda: slow_pool(pieces, seq_len, num_packers),
        "first_fit": lambda: slow_first_fit(pieces, seq_len),
        "best_fit": lambda: slow_best_fit(pieces, seq_len),
    }
    return sorted(sorted(sample.pieces) for sample in rules[strategy]())


def samples_of(plan: PackingPlan) -> list[list[Piece]]:
    pieces = list(zip(plan.starts.tolist(), plan.lengths.tolist(), strict=True))
    return [pieces[a:b] for a, b in itertools.pairwise(plan.first_piece.tolist())]


def check(lengths: list[int], seq_len: int, strategy: str, num_packers: int = 4) -> PackingPlan:
    """Compare a plan with the oracle, and with what must hold whatever the rule."""
    plan = plan_packing(np.array(lengths), seq_len, strategy, num_packers=num_packers)
    found = samples_of(plan)
    # Above all: every token once, every sample within its length, no piece in two documents.
    pieces = [piece for sample in found for piece in sample]
    ends = [0, *(start + length for start, length in sorted(pieces))]
    assert [start for start, _ in sorted(pieces)] == ends[:-1]
    assert ends[-1] == sum(lengths)
    assert all(0 < sum(length for _, length in sample) <= seq_len for sample in found)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    assert all(owner[start] == owner[start + length - 1] for start, length in pieces)
    assert found == slow_plan(lengths, seq_len, strategy, num_packers)
    assert plan.seq_len == seq_len
    assert plan.strategy == strategy
    assert plan.num_samples == len(found)
    assert plan.num_pieces == len(pieces)
    assert plan.num_tokens == sum(lengths)
    assert plan.padding == len(found) * seq_len - sum(lengths)
    owners = [int(owner[start]) for start, _ in pieces]
    assert plan.num_documents == len(set(owners))
    assert plan.num_split_documents == sum(n > 1 for n in Counter(owners).values())
    return plan


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=300)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=60).filter(any),
    seq_len=st.integers(1, 24),
    num_packers=st.integers(1, 5),
    chunk=st.integers(1, 7),
)
def test_as_the_rule_reads(
    strategy: str, lengths: list[int], seq_len: int, num_packers: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # work is done in chunks: many of them here
        patch.setattr(packing_fit, "_CHUNK", chunk)
        patch.setattr(packing_fit, "_FIRST_FIT_CHUNK", chunk)
        check(lengths, seq_len, strategy, num_packers)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("seq_len", "longest"), [(64, 63), (64, 200), (2048, 2047), (70_000, 69_000)]
)
def test_many_documents(strategy: str, seq_len: int, longest: int) -> None:
    rng = np.random.default_rng(seq_len + longest)
    # Short ones are many, so that samples hold many of them and first-fit looks far back.
    lengths = (longest * rng.random(1200) ** 3).astype(np.int64).tolist()
    check(lengths, seq_len, strategy)


@pytest.mark.parametrize("chunk", [1, 4, 16, 50])
def test_first_fit_leaves_out_only_what_it_cannot_reach(chunk: int) -> None:
    """Many samples wait, and each takes one more piece: first-fit gets far within a chunk."""
    rng = np.random.default_rng(chunk)
    lengths = [*rng.integers(33, 45, 400).tolist(), *rng.integers(16, 31, 500).tolist()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_fit, "_FIRST_FIT_CHUNK", chunk)
        check(lengths, 64, "first_fit")
        check([*lengths, *lengths[::-1]], 64, "first_fit")


@pytest.mark.parametrize("strategy", ["greedy", "pool", "first_fit"])
def test_more_pieces_than_one_chunk(strategy: str) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 150_000)
    plan = plan_packing(lengths, 8, strategy)
    pieces = list(zip((lengths.cumsum() - lengths).tolist(), lengths.tolist(), strict=True))
    if strategy == "first_fit":
        # The rule bin by bin: a sample takes every remaining piece that still fits.
        expected: list[list[Piece]] = []
        waiting = pieces
        while len(expected) < 100:
            room, taken, left = 8, [], []
            for piece in waiting:
                if piece[1] <= room:
                    room -= piece[1]
                    taken.append(piece)
                else:
                    left.append(piece)
            expected.append(taken)
            waiting = left
        assert samples_of(plan)[:100] == expected
    else:
        rule = slow_greedy(pieces, 8) if strategy == "greedy" else slow_pool(pieces, 8, 4)
        assert samples_of(plan) == sorted(sample.pieces for sample in rule)


@pytest.mark.parametrize("strategy", ["concat", "greedy", "best_fit", "pad"])
def test_memory(strategy: str) -> None:
    """At most 40 bytes per document beside the lengths and the plan."""
    lengths = np.random.default_rng(0).lognormal(5.5, 1.3, 1_000_000).astype(np.int64) + 1
    tracemalloc.start()
    try:
        plan = plan_packing(lengths, 2048, strategy)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = plan.starts.nbytes + plan.lengths.nbytes + plan.first_piece.nbytes
    assert peak - result < 40 * len(lengths)


def bins_of(plan: PackingPlan, lengths: list[int]) -> list[int]:
    starts = [
        end - length for end, length in zip(itertools.accumulate(lengths), lengths, strict=True)
    ]
    where = {p[0]: i for i, sample in enumerate(samples_of(plan)) for p in sample}
    return [where[start] for start in starts]


@pytest.mark.parametrize(
    ("strategy", "bins"),
    [
        ("best_fit", [0, 1, 2, 3, 3, 1, 4]),  # of arXiv 2404.10830, extended
        ("greedy", [0, 1, 2, 3, 3, 4, 4]),
        ("first_fit", [0, 1, 2, 3, 3, 1, 4]),
        ("pool", [0, 1, 2, 3, 3, 1, 4]),
        ("pad", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_golden(strategy: str, bins: list[int]) -> None:
    lengths = [8, 6, 6, 4, 3, 2, 3]
    assert bins_of(plan_packing(lengths, 8, strategy), lengths) == bins


def test_a_long_document_loses_nothing() -> None:
    for strategy in STRATEGIES:
        assert samples_of(check([20], 8, strategy)) == [[(0, 8)], [(8, 8)], [(16, 4)]]
    # Its rest is packed like a document of its own.
    assert samples_of(check([20, 4], 8, "greedy"))[-1] == [(16, 4), (20, 4)]
    assert samples_of(check([4, 20], 8, "first_fit"))[0] == [(0, 4), (20, 4)]


def test_the_number_of_packers_matters() -> None:
    lengths = [5, 6, 7, 3, 2, 1]
    counts = {n: plan_packing(lengths, 8, "pool", num_packers=n).num_samples for n in (1, 2, 3)}
    assert counts == {1: 4, 2: 4, 3: 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_stored_plan_is_the_same_plan(strategy: str) -> None:
    lengths = np.random.default_rng(1).integers(0, 30, 200)
    plan = plan_packing(lengths, 16, strategy)
    table = plan.to_table()
    table.validate(full=True)
    assert table.column("starts").to_pylist()[3] == [p[0] for p in samples_of(plan)[3]]
    again = PackingPlan.from_table(table)
    assert vars(again).keys() == vars(plan).keys()
    for name, value in vars(plan).items():
        other = getattr(again, name)
        if isinstance(value, np.ndarray):
            assert np.shares_memory(other, value)
            assert other.dtype == value.dtype
            assert other.tolist() == value.tolist()
            with pytest.raises(ValueError, match="read-only"):
                value[0] = 0
        else:
            assert other == value
    # Also through a file, and in pieces.
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    read = pa.ipc.open_stream(sink.getvalue()).read_all()
    assert read.column(0).num_chunks > 1
    assert samples_of(PackingPlan.from_table(read)) == samples_of(plan)
    for wrong in (table.slice(1), table.select(["starts"]), table.replace_schema_metadata(None)):
        with pytest.raises(UsageError, match="is no packing plan"):
            PackingPlan.from_table(wrong)


def test_what_is_no_stored_plan() -> None:
    table = plan_packing([10, 10], 16, "greedy").to_table()
    (key,) = table.schema.metadata
    stored = json.loads(table.schema.metadata[key])

    def altered(text: str) -> Any:
        return table.replace_schema_metadata({key: text})

    assert PackingPlan.from_table(altered(json.dumps(stored))).num_samples == 2
    incomplete = [{k: v for k, v in stored.items() if k != name} for name in stored]
    none = altered(json.dumps({**stored, "num_samples": 0})).slice(0, 0)
    for wrong in (*map(altered, ("x", "[2]", *map(json.dumps, incomplete))), none):
        with pytest.raises(UsageError, match="is no packing plan; give one that"):
            PackingPlan.from_table(wrong)
    for other in (None, table.to_batches()[0], "plan.arrow"):
        with pytest.raises(UsageError, match=r"is no packing plan; give a pyarrow\.Table"):
            PackingPlan.from_table(other)


def test_the_fingerprint_follows_from_the_pieces() -> None:
    lengths = np.array([8, 6, 6, 4, 3, 2, 3])
    plans = [plan_packing(lengths, n, s) for n in (8, 9) for s in STRATEGIES]
    for a, b in itertools.combinations(plans, 2):
        same = samples_of(a) == samples_of(b) and a.seq_len == b.seq_len
        assert (a.fingerprint == b.fingerprint) == same
    assert plan_packing(lengths.tolist(), 8, "greedy").fingerprint == plans[1].fingerprint
    assert plans[1].fingerprint == "0879ccb4e939e365e907c134f80e80d4"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 0}, "seq_len is 0; it must be a whole number from 1 up"),
        ({"seq_len": 8.0}, r"seq_len is 8\.0"),
        ({"seq_len": 2**31}, r"seq_len is 2147483648; it must be below 2\^31"),
        ({"num_packers": 0}, "num_packers is 0"),
        ({"num_packers": True}, "num_packers is True"),
        ({"strategy": "best-fit"}, "strategy is 'best-fit'; did you mean 'best_fit'"),
        ({"strategy": "Greedy"}, "did you mean 'greedy'"),
        ({"strategy": "zip"}, "choose one of concat, greedy, pool, first_fit, best_fit, pad"),
        ({"strategy": None}, "strategy is None; choose"),
        ({"lengths": [3, -2]}, "document 1 has length -2"),
        ({"lengths": [[3, 2]]}, "int64 in 2 dimensions"),
        ({"lengths": [0.5]}, "float64 in 1 dimensions"),
        ({"lengths": [[3], [2, 1]]}, "the lengths are no array: "),
        ({"lengths": [2**62] * 3}, r"add up to about 1\.38e\+19; at most 2\^62"),
        ({"lengths": [2**63 - 1, 1]}, r"add up to about 9\.22e\+18"),
        ({"lengths": np.array([2**63], np.uint64)}, r"add up to about 9\.22e\+18"),
        ({"lengths": [0, 0]}, "nothing to pack: none of the 2 documents has a token"),
        ({"lengths": []}, "none of the 0 documents"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    arguments = {"lengths": [3, 2], "seq_len": 8, "strategy": "greedy", **changes}
    lengths, seq_len, strategy = (arguments.pop(n) for n in ("lengths", "seq_len", "strategy"))
    with pytest.raises(UsageError, match=message):
        plan_packing(lengths, seq_len, strategy, **arguments)
