from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from itertools import accumulate
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader.interleave import Interleaving
from easydata.loader.schedule import WeightSchedule

Points = list[tuple[int, list[Fraction]]]


def constant(*numbers: int) -> Points:
    return [(0, [Fraction(number, sum(numbers)) for number in numbers])]


def schedule_of(points: Points) -> WeightSchedule:
    return WeightSchedule([str(i) for i in range(len(points[0][1]))], points)


def take(points: Points, length: int) -> list[int]:
    return Interleaving(schedule_of(points), [0] * len(points[0][1])).take(length).tolist()


def oracle(points: Points, length: int, horizon: int) -> list[int]:
    """Earliest deadline first, word for word."""
    sources = range(len(points[0][1]))

    def weight(source: int, sample: int) -> Fraction:
        return [weights for step, weights in points if step <= sample or step == points[0][0]][-1][
            source
        ]

    shares = [
        list(accumulate((weight(i, n) for n in range(horizon)), initial=Fraction(0)))
        for i in sources
    ]
    counts = [0 for _ in sources]
    found = []
    for n in range(length):
        ready = []
        for i in sources:
            if shares[i][n + 1] > counts[i]:
                due = next(
                    (m for m in range(n, horizon) if shares[i][m + 1] >= counts[i] + 1), None
                )
                lag = shares[i][n + 1] - counts[i]
                ready.append((math.inf if due is None else due, -lag, i))
        chosen = min(ready)[2]
        counts[chosen] += 1
        found.append(chosen)
        for i in sources:
            assert abs(counts[i] - shares[i][n + 1]) < 1
    return found


numbers = st.integers(1, 12).flatmap(
    lambda k: st.lists(st.integers(0, 9), min_size=k, max_size=k).filter(any)
)
changing = st.integers(1, 6).flatmap(
    lambda k: st.lists(
        st.tuples(
            st.integers(1, 30), st.lists(st.integers(0, 5), min_size=k, max_size=k).filter(any)
        ),
        min_size=2,
        max_size=5,
    )
)


@settings(max_examples=60)
@given(numbers)
def test_constant_weights_against_the_oracle(drawn: list[int]) -> None:
    assert take(constant(*drawn), 60) == oracle(constant(*drawn), 60, 260)


@settings(max_examples=60)
@given(changing, st.integers(0, 5))
def test_changing_weights_against_the_oracle(
    drawn: list[tuple[int, list[int]]], first: int
) -> None:
    steps = accumulate((gap for gap, _ in drawn), initial=first)
    points = [
        (step, [Fraction(n, sum(weights)) for n in weights])
        for step, (_, weights) in zip(steps, drawn, strict=False)
    ]
    assert take(points, 160) == oracle(points, 160, 260)


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=12),
    st.lists(st.floats(0.001, 1), min_size=12, max_size=12),
    st.sampled_from(["step", "linear", "cosine"]),
    st.integers(1, 40),
)
def test_every_prefix_is_within_one_sample(
    first: list[float], second: list[float], kind: str, block_size: int
) -> None:
    """Weights without a small common denominator, that move."""
    second = second[: len(first)]
    points = [(0, [w / sum(first) for w in first]), (300, [w / sum(second) for w in second])]
    schedule = WeightSchedule(
        [str(i) for i in range(len(first))], points, type=kind, block_size=block_size
    )
    counts = [0] * len(first)
    for n, source in enumerate(Interleaving(schedule, counts).take(500).tolist()):
        counts[source] += 1
        if n % 7 == 0 or n > 290:
            assert all(abs(c - schedule.share(i, n + 1)) < 1 for i, c in enumerate(counts))


def test_the_blend_of_megatron() -> None:
    sources = take(constant(2, 1, 1), 4)
    assert sources == [0, 1, 2, 0]
    assert [sources[:n].count(source) for n, source in enumerate(sources)] == [0, 0, 0, 1]


# A resumed run must see the same order in every release.
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1,), "000000000000"),
        ((1, 1), "010101010101"),
        ((7, 3), "001001001000"),
        ((1, 2, 3), "212012212012"),
        ((50, 30, 15, 5), "010201010201"),
        ((0, 1, 0, 4), "333133331333"),
    ],
)
def test_golden_orders(weights: tuple[int, ...], expected: str) -> None:
    assert "".join(map(str, take(constant(*weights), 12))) == expected


def test_what_must_be_next_depends_on_weights_to_come() -> None:
    third = Fraction(1, 3)
    points = [(0, [third] * 3), (1, [Fraction(2, 11), Fraction(4, 11), Fraction(5, 11)])]
    # Source 0 is due last of the three, as its weight falls.
    assert take(points, 10) == oracle(points, 10, 130) == [1, 2, 0, 2, 1, 2, 1, 2, 0, 1]


@settings(max_examples=25)
@given(changing, st.data())
def test_the_counts_are_all_of_the_state(
    drawn: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    steps = accumulate((gap for gap, _ in drawn), initial=0)
    schedule = WeightSchedule(
        [str(i) for i in range(len(drawn[0][1]))],
        [
            (step, [Fraction(n, sum(weights)) for n in weights])
            for step, (_, weights) in zip(steps, drawn, strict=False)
        ],
        type=data.draw(st.sampled_from(["step", "linear", "cosine"])),
        block_size=data.draw(st.integers(1, 9)),
    )
    whole = Interleaving(schedule, [0] * len(drawn[0][1])).take(60)
    assert whole.dtype == np.int32
    for n in range(60):
        counts = np.bincount(whole[:n], minlength=len(drawn[0][1])).tolist()
        resumed = Interleaving(schedule, counts)
        chunk = data.draw(st.integers(0, 60 - n))
        assert [*resumed.take(chunk), *resumed.take(60 - n - chunk)] == whole[n:].tolist()


@pytest.mark.parametrize("weights", [(5, 7, 9), (1_234_567, 8_765_433), (1, 999_999)])
def test_far_away_it_is_as_near_by(weights: tuple[int, ...]) -> None:
    schedule = schedule_of(constant(*weights))
    period = sum(weights)
    times = 10**12 // period
    far = Interleaving(schedule, [times * weight for weight in weights])
    near = Interleaving(schedule, [0] * len(weights))
    assert far.take(3000).tolist() == near.take(3000).tolist()


def test_far_behind_a_schedule() -> None:
    points = [(0, [1, 0]), (10**9, [0.5, 0.5])]
    for kind in ("linear", "cosine"):
        schedule = WeightSchedule("ab", points, type=kind)
        rest = 10**12 - 10**9
        counts = [3 * 10**9 // 4 + rest // 2, 10**9 // 4 + rest // 2]
        assert Interleaving(schedule, counts).take(6).tolist() == [0, 1] * 3
        counts[0] += 1
        assert Interleaving(schedule, counts).take(5).tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("counts", [[2, 0], [0, 2], [5, 3], [-1, 1], [10**12, 10**12 + 3]])
def test_counts_of_another_mixture(counts: list[int]) -> None:
    with pytest.raises(UsageError, match=r"cannot have had .* The counts are of another mixture"):
        Interleaving(schedule_of(constant(1, 1)), counts)


def can_go_on(weights: list[int], counts: list[int]) -> bool:
    """Whether some order of sources keeps every source within one sample, by trying all."""
    unit = sum(weights)

    @cache
    def reaches_a_period(counts: tuple[int, ...]) -> bool:
        done = sum(counts)
        if any(abs(n * unit - w * done) >= unit for n, w in zip(counts, weights, strict=True)):
            return False
        return done % unit == 0 or any(
            reaches_a_period((*counts[:i], counts[i] + 1, *counts[i + 1 :]))
            for i in range(len(counts))
        )

    return reaches_a_period(tuple(counts))


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([1, 1, 2, 9, 17]), min_size=2, max_size=5),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_counts_are_taken_if_and_only_if_they_can_be(
    weights: list[int], done: int, random: Random
) -> None:
    unit = sum(weights)
    counts = [weight * done // unit for weight in weights]
    between = [i for i, weight in enumerate(weights) if weight * done % unit]
    for i in random.sample(between, done - sum(counts)):
        counts[i] += 1
    schedule = schedule_of(constant(*weights))
    if can_go_on(weights, counts):
        for source in Interleaving(schedule, counts).take(2 * unit).tolist():
            counts[source] += 1
            shares = [Fraction(weight * sum(counts), unit) for weight in weights]
            assert all(abs(n - share) < 1 for n, share in zip(counts, shares, strict=True))
    else:
        with pytest.raises(UsageError, match="The counts are of another mixture"):
            Interleaving(schedule, counts).take(2 * unit)


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([9, 9, 1, 1], [0, 0, 1, 1]),  # both large ones must be next
        ([1, 17, 2, 17], [1, 8, 2, 8]),
        ([1, 9, 1, 17], [1, 2, 1, 4]),  # no two, but three must be among the next two
    ],
)
def test_counts_that_no_interleaving_comes_by(weights: list[int], counts: list[int]) -> None:
    with pytest.raises(UsageError, match=r"more would have to come within .* another mixture"):
        Interleaving(schedule_of(constant(*weights)), counts)


def test_counts_that_are_found_out_later() -> None:
    assert not can_go_on([1, 20, 26, 3], [1, 8, 11, 2])
    run = Interleaving(schedule_of(constant(1, 20, 26, 3)), [1, 8, 11, 2])
    with pytest.raises(UsageError, match=r"should have had sample .* are of another mixture"):
        run.take(50)
