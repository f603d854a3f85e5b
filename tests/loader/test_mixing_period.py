"""The order of sources where it repeats itself, against one sample after another."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.loader.interleave import Interleaving
from easydata.loader.schedule import Segment, WeightSchedule

Points = list[tuple[int, list[Fraction]]]


def schedule_of(points: Any, **options: Any) -> WeightSchedule:
    return WeightSchedule([str(i) for i in range(len(points[0][1]))], points, **options)


def shares(numbers: list[int]) -> list[Fraction]:
    return [Fraction(number, sum(numbers)) for number in numbers]


def one_by_one(schedule: WeightSchedule, counts: list[int], length: int) -> list[int]:
    """Earliest deadline first, word for word."""
    counts, found = list(counts), []
    for samples in range(sum(counts) + 1, sum(counts) + 1 + length):
        ready = []
        for source, count in enumerate(counts):
            lag = schedule.share(source, samples) - count
            if lag > 0:
                due = schedule.reached(source, count + 1)
                ready.append((math.inf if due is None else due, -lag, source))
        found.append(min(ready)[2])
        counts[found[-1]] += 1
    return found


def in_parts(order: Interleaving, lengths: list[int]) -> list[int]:
    return [int(source) for length in lengths for source in order.take(length)]


weights = st.integers(1, 5).flatmap(
    lambda k: st.lists(st.integers(0, 4), min_size=k, max_size=k).filter(any)
)
lengths = st.lists(st.integers(0, 70), min_size=1, max_size=6)


@settings(max_examples=60)
@given(weights, lengths, st.integers(0, 30))
def test_many_periods(drawn: list[int], parts: list[int], before: int) -> None:
    schedule = schedule_of([(0, shares(drawn))])
    begun = one_by_one(schedule, [0] * len(drawn), before)
    counts = [begun.count(source) for source in range(len(drawn))]
    expected = one_by_one(schedule, counts, sum(parts))
    assert in_parts(Interleaving(schedule, counts), parts) == expected


@settings(max_examples=60)
@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(
            st.tuples(
                st.integers(1, 60), st.lists(st.integers(0, 4), min_size=k, max_size=k).filter(any)
            ),
            min_size=2,
            max_size=4,
        )
    ),
    lengths,
)
def test_periods_end_with_their_weights(
    drawn: list[tuple[int, list[int]]], parts: list[int]
) -> None:
    steps = accumulate((gap for gap, _ in drawn), initial=0)
    points = [(step, shares(numbers)) for step, (_, numbers) in zip(steps, drawn, strict=False)]
    schedule = schedule_of(points)
    expected = one_by_one(schedule, [0] * len(points[0][1]), sum(parts))
    assert in_parts(Interleaving(schedule, [0] * len(points[0][1])), parts) == expected


def test_a_weight_to_come_has_a_say_before_its_step() -> None:
    # A period is over long before the step, but source 2 must then be given three at once.
    points = [(0, shares([7, 7, 1])), (100, shares([0, 0, 1]))]
    schedule = schedule_of(points)
    assert Interleaving(schedule, [0, 0, 0]).take(120).tolist() == one_by_one(
        schedule, [0, 0, 0], 120
    )


@settings(max_examples=40)
@given(st.integers(2, 6), st.data())
def test_large_denominators(k: int, data: st.DataObject) -> None:
    """Products that 64 bits do not hold, and such that they just hold."""
    most = data.draw(st.sampled_from([10**3, 10**8, 2**55, 2**60]))
    numbers = [data.draw(st.integers(0, most)) for _ in range(k - 1)] + [most]
    schedule = schedule_of([(0, shares(numbers))])
    assert Interleaving(schedule, [0] * k).take(120).tolist() == one_by_one(schedule, [0] * k, 120)


def test_counts_that_another_order_comes_by() -> None:
    """They are taken where they can be; the order is the usual one after some periods."""
    schedule = schedule_of([(0, shares([5, 3, 2]))])
    usual = Interleaving(schedule, [0, 0, 0]).take(300).tolist()
    counts = [1, 1, 1]
    assert [usual[:3].count(source) for source in range(3)] != counts
    found = Interleaving(schedule, counts).take(297).tolist()
    assert found == one_by_one(schedule, counts, 297)
    assert found[-100:] == usual[-100:]


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples were worked out, call by call."""
    found: list[int] = []
    real = Interleaving._earliest_first

    def counted(self: Interleaving, segment: Segment, first: int, length: int) -> Any:
        found.append(length)
        return real(self, segment, first, length)

    monkeypatch.setattr(Interleaving, "_earliest_first", counted)
    return found


def test_one_period_is_worked_out(worked_out: list[int]) -> None:
    order = Interleaving(schedule_of([(0, [0.7, 0.2, 0.1])]), [0, 0, 0])
    parts = [order.take(length) for length in (4, 4, 4, 100_000, 1_000_000)]
    assert worked_out == [4, 4, 2]
    whole = np.concatenate(parts)
    assert np.array_equal(whole, np.resize(whole[:10], len(whole)))


def test_one_period_is_worked_out_of_each_step(worked_out: list[int]) -> None:
    points = [(0, [0.5, 0.5]), (1000, [0.25, 0.75]), (2000, [0.5, 0.5])]
    order = Interleaving(schedule_of(points, batch_size=100), [0, 0])
    assert len(order.take(300_000)) == 300_000
    assert sum(worked_out) < 50


def test_a_long_period_is_worked_out_part_by_part(worked_out: list[int]) -> None:
    order = Interleaving(schedule_of([(0, shares([1, 70_000]))]), [0, 0])
    found = np.concatenate([order.take(50_000) for _ in range(3)])
    assert worked_out == [50_000] * 3
    assert np.count_nonzero(found == 0) == 2
