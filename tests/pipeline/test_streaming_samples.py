"""Packing and shuffling in windows: nothing is lost, and windows do not show."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader import DataLoader
from easydata.loader.packing import pack
from easydata.loader.packing_plan import plan_packing
from easydata.pipeline.stream_packing import Documents
from easydata.pipeline.stream_samples import CachedSamples

from .streams import (
    Rows,
    batch_of,
    by_hand,
    concat_by_hand,
    greedy_by_hand,
    joined,
    numbered,
    samples_of,
)

LENGTHS = st.lists(st.integers(0, 30), max_size=60)
CUT = st.integers(1, 20)
OTHERS = ("pool", "first_fit", "best_fit")


@given(lengths=LENGTHS, cut=CUT)
@settings(max_examples=60)
def test_concat_is_the_stream_as_if_there_were_no_windows(lengths, cut):
    documents = numbered(lengths)
    found = joined(samples_of(Rows(documents, cut), strategy="concat"))
    expected = by_hand(concat_by_hand(documents, 8), 8)
    assert found == (expected if sum(lengths) else {})


@given(lengths=LENGTHS, cut=CUT)
@settings(max_examples=60)
def test_greedy_is_as_if_there_were_no_windows(lengths, cut):
    documents = numbered(lengths)
    found = joined(samples_of(Rows(documents, cut), strategy="greedy"))
    expected = by_hand(greedy_by_hand(documents, 8), 8)
    assert found == (expected if sum(lengths) else {})


@pytest.mark.parametrize("strategy", OTHERS)
@given(lengths=LENGTHS, cut=CUT, packers=st.integers(1, 4), factor=st.integers(1, 3))
@settings(max_examples=40)
def test_every_token_comes_once_and_documents_stay_whole(strategy, lengths, cut, packers, factor):
    documents = numbered(lengths)
    config = {"strategy": strategy, "num_packers": packers, "shuffle_buffer_factor": factor}
    rows = Rows(documents, cut)
    found = joined(samples_of(rows, **config))
    pieces = {tuple(d[at : at + 8]) for d in documents for at in range(0, len(d), 8)}
    seen = []
    samples = []
    for ids, segments in zip(found.get("input_ids", []), found.get("segment_ids", []), strict=True):
        numbers = sorted(set(segments) - {0})
        samples.append([[t for t, s in zip(ids, segments, strict=True) if s == n] for n in numbers])
        seen += [tuple(piece) for piece in samples[-1]]
    assert sorted(seen) == sorted(pieces)
    assert found == (by_hand(samples, 8) if samples else {})
    # How the rows are cut into record batches does not show.
    assert joined(samples_of(Rows(documents, 10**6), **config)) == found
    assert rows.running == 0


@pytest.mark.parametrize("strategy", OTHERS)
def test_only_the_last_window_is_padded_up(strategy):
    chance = random.Random(1)
    lengths = [min(int(chance.expovariate(1 / 12)) + 1, 64) for _ in range(9000)]
    config = {"seq_length": 64, "num_packers": 4, "shuffle_buffer_factor": 10}
    found = joined(samples_of(Rows(numbered(lengths)), strategy=strategy, **config))
    whole = plan_packing(lengths, 64, strategy, num_packers=4).num_samples
    windows = sum(lengths) // (64 * 40)
    assert windows > 40
    # If each window was padded up, about one sample more for each would be needed.
    assert len(found["input_ids"]) < whole + windows / 8


def test_a_window_ends_with_the_document_that_fills_it():
    lengths = [3, 5, 9, 15, 1, 2, 40, 8, 8]  # windows of 4 · 8 tokens
    (first, second, *_) = samples_of(Rows(numbered(lengths)), strategy="concat")
    assert first["input_ids"].ravel().tolist() == list(range(1, 33))
    assert second["input_ids"].ravel().tolist() == list(range(33, 73))  # 1, 2, 40, of 75 tokens


def test_without_packing_the_end_is_left_out_and_counted():
    documents = numbered([5, 6, 10, 0, 80])
    samples = samples_of(Rows(documents), is_packed=False, pad_token_id=0)
    found = joined(samples)
    assert found == {"input_ids": np.arange(1, 97).reshape(-1, 8).tolist()}
    assert samples.tokens_left_out == 5
    packed = samples_of(Rows(documents), strategy="concat", pad_token_id=None)
    assert list(joined(packed)) == ["input_ids", "segment_ids", "positions"]
    assert packed.tokens_left_out == 5
    padded = samples_of(Rows(documents), strategy="concat")
    assert joined(padded)["input_ids"][-1] == [97, 98, 99, 100, 101, 0, 0, 0]
    assert padded.tokens_left_out == 0
    short = samples_of(Rows([[1, 2]]), is_packed=False)
    assert joined(short) == {}
    assert short.tokens_left_out == 2


@pytest.mark.parametrize("strategy", ["greedy", *OTHERS])
def test_no_pad_id_is_an_error_only_where_one_is_needed(strategy):
    # The first window ends with half a sample.
    fits = samples_of(Rows(numbered([8, 8, 8, 12, 4] * 3)), strategy=strategy, pad_token_id=None)
    assert sorted(np.ravel(joined(fits)["input_ids"])) == list(range(1, 121))
    with pytest.raises(UsageError, match="no pad_token_id"):
        joined(samples_of(Rows(numbered([4] * 31)), strategy=strategy, pad_token_id=None))


def test_a_pad_id_that_is_no_token_id_is_refused():
    with pytest.raises(UsageError, match="pad_token_id is 70000"):
        samples_of(Rows([[1]], dtype=np.uint16), pad_token_id=70_000)


@pytest.mark.parametrize("strategy", ["greedy", "concat", "pool"])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("pad_token_id", [0, None])
def test_the_arrays_are_those_of_cached_samples(strategy, include, is_packed, pad_token_id):
    lengths = np.full(20, 8)
    rows = Rows(numbered(lengths), dtype=np.uint16)
    samples = samples_of(
        rows,
        strategy=strategy,
        include_segment_ids=include,
        is_packed=is_packed,
        pad_token_id=pad_token_id,
    )
    source = Documents(np.arange(160, dtype=np.uint16), lengths)
    cached = pack(source, 8, "concat", include_segment_ids=False)
    if is_packed:
        cached = pack(source, 8, strategy, pad_token_id=pad_token_id, include_segment_ids=include)
    expected = {name: array.dtype for name, array in cached.read(np.arange(2)).items()}
    assert list(samples.dtypes.items()) == list(expected.items())
    for block in samples:
        assert {name: array.dtype for name, array in block.items()} == expected
    assert CachedSamples(cached, shuffle=False).dtypes == expected


def visits(seed=0, epoch=0, **options) -> list[int]:
    """The numbers of 50 samples in the order of visit."""
    rows = Rows(numbered([8] * 50, first=8))
    samples = samples_of(rows, shuffle_packed=True, strategy="concat", **options)
    found = joined(samples.blocks(seed=seed, epoch=epoch))
    return [ids[0] // 8 - 1 for ids in found["input_ids"]]


@pytest.mark.parametrize(("options", "run"), [({}, 4), ({"shuffle_buffer_size": 13}, 13)])
def test_each_run_is_shuffled_in_an_order_of_its_own(options, run):
    found = visits(3, 0, **options)
    for start in range(0, 50, run):
        assert sorted(found[start : start + run]) == list(range(50))[start : start + run]
    inside = {tuple(np.array(found[s : s + run]) - s) for s in range(0, 50 - run, run)}
    assert len(inside) > 1
    assert visits(3, 0, **options) == found
    assert visits(4, 0, **options) != found
    assert visits(3, 1, **options) != found


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_order_is_that_of_cached_samples_with_the_same_window(epoch):
    source = Documents(np.repeat(np.arange(50, dtype=np.uint16), 8), np.full(50, 8))
    loader = DataLoader(
        source, 10, 8, shuffle=True, seed=5, shuffle_buffer_size=13, epochs=epoch + 1
    )
    expected = [ids[0] for batch in loader for ids in batch["input_ids"].tolist()]
    assert visits(5, epoch, shuffle_buffer_size=13) == expected[50 * epoch :]
    cached = CachedSamples(pack(source, 8, "concat"), shuffle=True, shuffle_buffer_size=13)
    blocks = joined(cached.blocks(seed=5, epoch=epoch))
    assert [ids[0] for ids in blocks["input_ids"]] == expected[50 * epoch :]


class Endless(Rows):
    """Documents of 5 tokens without end."""

    def __init__(self) -> None:
        super().__init__([])

    def all(self):
        while True:
            yield batch_of([[7] * 5])


def test_no_more_than_a_window_and_a_run_is_read_ahead():
    rows = Endless()
    blocks = samples_of(rows, shuffle_packed=True, shuffle_buffer_size=10).blocks()
    for _ in range(5):
        assert len(next(blocks)["input_ids"]) == 10
    # A sample holds 1 document, and a window 7.
    assert 50 <= rows.taken <= 50 + 14
    blocks.close()
    assert rows.running == 0


def test_a_cancelled_iteration_ends_though_its_run_never_fills():
    cancelled = threading.Event()

    class Cancelling(Endless):
        def all(self):
            for number, batch in enumerate(super().all()):
                if number == 100:
                    cancelled.set()
                yield batch

    rows = Cancelling()
    samples = samples_of(rows, shuffle_packed=True, shuffle_buffer_size=10**9)
    for _ in samples.blocks(cancelled=cancelled):
        pass
    assert rows.taken == 101
    assert rows.running == 0
