"""Pieces without tokens, samples without pieces, and plans that do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader.packing import PackedSamples
from easydata.loader.packing_plan import PackingPlan, plan_packing
from easydata.loader.packing_segments import Filling
from easydata.loader.ranges import totals

from .test_samples import PAD, Documents

DOCUMENTS = [5, 0, 3, 6, 0]


def plan_of(samples: list[list[tuple[int, int]]], seq_len: int = 8) -> PackingPlan:
    """A plan with these pieces (start and length) in each sample, for 14 tokens."""
    pieces = [piece for sample in samples for piece in sample]
    made = plan_packing(DOCUMENTS, seq_len, "pad")
    return replace(
        made,
        starts=np.array([start for start, _ in pieces], np.int64),
        lengths=np.array([length for _, length in pieces], np.int32),
        first_piece=np.append(0, np.cumsum([len(sample) for sample in samples])).astype(np.int64),
    )


def read(plan: PackingPlan, samples: list[int], lengths: list[int] = DOCUMENTS) -> dict[str, Any]:
    packed = PackedSamples(Documents(lengths), plan, pad_token_id=PAD, include_document_ids=True)
    found = packed.read(np.array(samples, np.int64))
    return {name: array.tolist() for name, array in found.items()}


def test_pieces_without_tokens_anywhere() -> None:
    plan = plan_of([[(0, 0), (0, 5), (5, 0)], [(5, 3), (8, 0)], [(14, 0), (8, 6), (14, 0)]])
    for order in ([0, 1, 2], [2, 0], [2], [1, 1]):
        found = read(plan, order)
        ids = [
            [0, 1, 2, 3, 4, PAD, PAD, PAD],
            [5, 6, 7, PAD, PAD, PAD, PAD, PAD],
            [8, 9, 10, 11, 12, 13, PAD, PAD],
        ]
        documents = [[0] * 5 + [-1] * 3, [2] * 3 + [-1] * 5, [3] * 6 + [-1] * 2]
        assert found["input_ids"] == [ids[number] for number in order]
        assert found["document_ids"] == [documents[number] for number in order]
        assert found["loss_mask"] == [[id_ != PAD for id_ in ids[number]] for number in order]
        assert [max(row) + 1 for row in found["positions"]] == [(5, 3, 6)[n] for n in order]


def test_some_of_those_that_were_located() -> None:
    plan = plan_of([[(0, 5)], [(5, 3), (8, 5)], [(13, 1)]])
    packed = PackedSamples(Documents(DOCUMENTS), plan, pad_token_id=PAD, include_document_ids=True)
    located = packed.locate(np.array([2, 0, 1]))
    everything = located.read(0, 3)
    for start, stop in ((0, 1), (1, 3), (2, 3), (1, 1)):
        for name, array in located.read(start, stop).items():
            assert array.tolist() == everything[name][start:stop].tolist()


def test_samples_without_pieces() -> None:
    plan = plan_of([[], [(0, 5)], [], [(5, 3), (8, 5)], []])
    for order in ([0, 1, 2, 3, 4], [0], [4, 0], [3, 4], [4, 3], [2, 1]):
        found = read(plan, order)
        used = [(0, 5, 0, 8, 0)[number] for number in order]
        assert [sum(row) for row in found["loss_mask"]] == used
        assert [8 - row.count(PAD) for row in found["input_ids"]] == used
        assert [8 - row.count(-1) for row in found["document_ids"]] == used
        assert [8 - row.count(0) for row in found["segment_ids"]] == used


@pytest.mark.parametrize("pad_token_id", [None, PAD])
def test_a_plan_with_samples_that_are_too_long(pad_token_id: int | None) -> None:
    plan = plan_of([[(0, 5), (5, 3)], [(5, 3), (8, 6)]])
    plan = plan if pad_token_id else replace(plan, num_tokens=16)
    lengths = DOCUMENTS if pad_token_id else [*DOCUMENTS, 2]
    samples = PackedSamples(Documents(lengths), plan, pad_token_id=pad_token_id)
    assert samples.read(np.array([0]))["input_ids"].tolist() == [list(range(8))]
    with pytest.raises(UsageError, match=r"sample 1 of the packing plan has 9 tokens, but .* is 8"):
        samples.read(np.array([0, 1, 0]))


def test_lengths_that_are_not_those_of_the_plan() -> None:
    plan = plan_of([[(0, 5)], [(8, 6)]])

    class Wrong(Documents):
        def lengths(self) -> Any:
            return np.array([5, 3])

    samples = PackedSamples(Wrong(DOCUMENTS), plan, pad_token_id=PAD, include_document_ids=True)
    with pytest.raises(UsageError, match="the documents add up to 8, but there are 14 tokens"):
        samples.read(np.array([1]))


@settings(max_examples=150)
@given(
    samples=st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=8),
    room=st.integers(0, 4),
)
def test_labels_of_any_pieces(samples: list[list[int]], room: int) -> None:
    seq_len = max(map(sum, samples), default=0) + room
    counts = np.array([len(sample) for sample in samples], np.int64)
    lengths = np.array([length for sample in samples for length in sample], np.int64)
    assert totals(lengths, counts).tolist() == list(map(sum, samples))
    filling = Filling(counts, lengths, seq_len)
    found = filling.spread(np.arange(100, 100 + len(lengths)))
    arrays = [filling.segment_ids(), filling.positions(), filling.loss_mask()]
    assert [array.dtype.name for array in arrays] == ["int32", "int32", "bool"]
    for array in (*arrays, found):
        assert array.flags.writeable
        assert array.ctypes.data % 64 == 0 or not array.size
    segments, positions, mask = arrays
    assert {array.shape for array in (*arrays, found)} == {(len(samples), seq_len)}
    number = 100
    for row, sample in enumerate(samples):
        expected: list[tuple[int, int, int, bool]] = []
        for piece, length in enumerate(sample, start=1):
            expected += [(piece, place, number, True) for place in range(length)]
            number += 1
        expected += [(0, 0, -1, False)] * (seq_len - len(expected))
        rows = (array[row].tolist() for array in (segments, positions, found, mask))
        assert list(zip(*rows, strict=True)) == expected
