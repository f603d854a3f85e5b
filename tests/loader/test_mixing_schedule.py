from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader import schedule as schedule_module
from easydata.loader.schedule import WeightSchedule

AB = ["a", "b"]


def weights(schedule: WeightSchedule, sample: int, sources: int = 2) -> list[Fraction]:
    return [schedule.share(i, sample + 1) - schedule.share(i, sample) for i in range(sources)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.1, 0.9], [Fraction(1, 10), Fraction(9, 10)]),
        ([1 / 3, 2 / 3], [Fraction(1, 3), Fraction(2, 3)]),
        ([Fraction(1, 7), Fraction(6, 7)], [Fraction(1, 7), Fraction(6, 7)]),
        ([np.float64(0.25), 0.75], [Fraction(1, 4), Fraction(3, 4)]),
        ([0.3333333, 0.6666666], [Fraction(1, 3), Fraction(2, 3)]),  # divided by their sum
        ([1, 0], [1, 0]),
        ({"b": 0.125, "a": 0.875}, [Fraction(7, 8), Fraction(1, 8)]),
        (
            [0.5000000001, 0.4999999999],
            [Fraction(5000000001, 10**10), Fraction(4999999999, 10**10)],
        ),
    ],
)
def test_constant_weights_are_exact_at_any_sample(given: Any, expected: list[Any]) -> None:
    schedule = WeightSchedule(AB, [(0, given)])
    assert schedule.is_constant
    for sample in (0, 1, 999, 10**12, 10**12 + 7):
        assert weights(schedule, sample) == expected
        assert [schedule.share(i, sample) for i in (0, 1)] == [w * sample for w in expected]


def test_weights_without_a_common_denominator_are_rounded_to_a_fine_one() -> None:
    given = [math.pi / 10, math.e / 10, 1 - (math.pi + math.e) / 10]
    schedule = WeightSchedule("abc", [(0, given)])
    found = weights(schedule, 10**12, 3)
    assert sum(found) == 1
    assert all(2**60 % weight.denominator == 0 for weight in found)
    assert all(
        abs(f - Fraction(g)) < Fraction(1, 10**15) for f, g in zip(found, given, strict=True)
    )
    tiny = WeightSchedule(AB, [(0, [1e-30, 1.0])])
    assert weights(tiny, 0) in ([0, 1], [Fraction(1, 2**60), 1 - Fraction(1, 2**60)])


def test_steps_change_at_their_batch() -> None:
    points = [(2, [1.0, 0.0]), (5, [0.25, 0.75]), (6, [0, 1])]
    schedule = WeightSchedule(AB, points, batch_size=4)
    assert not schedule.is_constant
    found = [weights(schedule, sample)[1] for sample in range(30)]
    assert found == [0] * 20 + [Fraction(3, 4)] * 4 + [1] * 6
    assert schedule.segment(19).stop == 20
    assert schedule.segment(24).stop is None


small = st.integers(1, 5).flatmap(
    lambda k: st.lists(
        st.tuples(
            st.integers(1, 9),
            st.lists(st.integers(0, 7), min_size=k, max_size=k).filter(any),
        ),
        min_size=1,
        max_size=4,
    )
)


def as_points(drawn: list[tuple[int, list[int]]], first: int) -> list[tuple[int, list[Fraction]]]:
    steps = accumulate((gap for gap, _ in drawn), initial=first)
    return [
        (step, [Fraction(number, sum(numbers)) for number in numbers])
        for step, (_, numbers) in zip(steps, drawn, strict=False)
    ]


def linear_oracle(
    points: list[tuple[int, list[Fraction]]], batch_size: int, block_size: int, sample: int
) -> list[Fraction]:
    """The curve at the middle of the block that holds the sample."""
    before = [point for point in points if point[0] * batch_size <= sample]
    after = [point for point in points if point[0] * batch_size > sample]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (step, now), (next_step, then) = before[-1], after[0]
    start, stop = step * batch_size, next_step * batch_size
    first = start + (sample - start) // block_size * block_size
    middle = Fraction(first + min(first + block_size, stop), 2)
    part = (middle - start) / (stop - start)
    return [a + (b - a) * part for a, b in zip(now, then, strict=True)]


@settings(max_examples=60)
@given(small, st.integers(0, 5), st.integers(1, 6), st.integers(1, 9))
def test_linear_against_an_oracle(
    drawn: list[tuple[int, list[int]]], first: int, batch_size: int, block_size: int
) -> None:
    points = as_points(drawn, first)
    sources = range(len(points[0][1]))
    schedule = WeightSchedule(
        [str(i) for i in sources],
        points,
        type="linear",
        batch_size=batch_size,
        block_size=block_size,
    )
    shares = [Fraction(0)] * len(sources)
    reached: list[dict[int, int]] = [{} for _ in sources]
    for sample in range(points[-1][0] * batch_size + 20):
        assert [schedule.share(i, sample) for i in sources] == shares
        expected = linear_oracle(points, batch_size, block_size, sample)
        segment = schedule.segment(sample)
        assert segment.start <= sample
        assert segment.stop is None or sample < segment.stop
        assert [Fraction(w, segment.denominator) for w in segment.weights] == expected
        shares = [share + weight for share, weight in zip(shares, expected, strict=True)]
        for i in sources:
            reached[i].setdefault(math.floor(shares[i]), sample + 1)
    for i in sources:
        for share, samples in reached[i].items():
            if share:
                assert schedule.reached(i, share) == samples
        if not points[-1][1][i]:
            assert schedule.reached(i, math.floor(shares[i]) + 1) is None


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 700), st.integers(0, 50))
def test_cosine(length: int, block_size: int, first: int) -> None:
    points = [(first, [0.9, 0.1]), (first + length, [0.2, 0.8])]
    schedule = WeightSchedule(AB, points, type="cosine", block_size=block_size)
    sample = first
    while sample < first + length:
        segment = schedule.segment(sample)
        assert segment.start == sample
        assert segment.stop == min(sample + block_size, first + length)
        assert sum(segment.weights) == segment.denominator
        x0, x1 = (sample - first) / length, (segment.stop - first) / length
        rise = 0.5 - (math.sin(math.pi * x1) - math.sin(math.pi * x0)) / (x1 - x0) / (2 * math.pi)
        assert segment.weights[0] / segment.denominator == pytest.approx(0.9 - 0.7 * rise, abs=1e-9)
        sample = segment.stop
    # The curve is symmetric: over all of it the mean is that of its ends, exactly.
    assert schedule.share(0, sample) == Fraction(9, 10) * first + Fraction(11, 20) * length
    assert weights(schedule, sample) == [Fraction(1, 5), Fraction(4, 5)]


def test_a_long_cosine_keeps_exact_sums() -> None:
    steps = 10**10
    schedule = WeightSchedule(AB, [(0, [1, 0]), (steps, [0, 1])], type="cosine")
    assert schedule.share(0, steps) == steps // 2
    assert schedule.share(0, steps // 2) + schedule.share(1, steps // 2) == steps // 2
    assert float(schedule.share(1, steps // 2)) == pytest.approx(steps * (0.25 - 0.5 / math.pi))
    first, last = schedule.segment(0), schedule.segment(steps - 1)
    assert 0 <= first.weights[1] < first.denominator / 10**12
    assert 0 <= last.weights[0] < last.denominator / 10**12
    middle = schedule.reached(1, 10**9)
    assert middle is not None
    assert schedule.share(1, middle - 1) < 10**9 <= schedule.share(1, middle)


# A resumed run must find the same weights in every release and on every machine.
def test_golden_cosine() -> None:
    schedule = WeightSchedule(AB, [(0, [1, 0]), (7, [0, 1])], type="cosine", block_size=2)
    found = [schedule.share(1, n) * 2**32 for n in (2, 4, 6, 7)]
    assert found == [553937327, 3924946523, 10808786884, 15032385536]


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ([(0, [0.5, 0.4])], {}, r"\{'a': 0.5, 'b': 0.4\} sum to 0.9, not to 1"),
        ([(0, [0.5, 0.50001])], {}, "sum to 1.00001"),
        ([(0, [0, 0.0])], {}, "all weights of 'a', 'b' are 0"),
        ([(0, [-0.5, 1.5])], {}, "the weight of 'a' is -0.5; it must be a number from 0 to 1"),
        ([(0, [0.5, math.nan])], {}, "the weight of 'b' is nan"),
        ([(0, [0.5, math.inf])], {}, "the weight of 'b' is inf"),
        ([(0, ["1", 0])], {}, "the weight of 'a' is '1'"),
        ([(0, [True, 0])], {}, "the weight of 'a' is True"),
        ([(0, [1.0])], {}, "1 weights for 2 sources; give one for each of 'a', 'b'"),
        ([(0, {"a": 1.0})], {}, "no weight for 'b'; give one, or 0"),
        ([(0, {"a": 0.5, "bb": 0.5})], {}, "weights for 'bb', but the sources are 'a', 'b'"),
        ([], {}, "no points"),
        ([(-1, [1, 0])], {}, "step -1; steps are whole, from 0 up"),
        ([(0.5, [1, 0])], {}, "step 0.5"),
        ([(3, [1, 0]), (3, [0, 1])], {}, "step 3 after step 3"),
        ([(3, [1, 0]), (2, [0, 1])], {}, "step 2 after step 3"),
        ([0.5, 0.5], {}, r"schedule is \[0.5, 0.5\]; give a list of points \(step, weights\)"),
        ({0: [1, 0]}, {}, "give a list of points"),
        ([(0, [1, 0], 2)], {}, "give a list of points"),
        ([(0,)], {}, "give a list of points"),
        (5, {}, "the weight schedule is 5; give a list of points"),
        ([(True, [1, 0])], {}, "step True"),
        ([(0, None)], {}, "the weights are None; give one for each of 'a', 'b'"),
        ([(0, 1.0)], {}, r"the weights are 1\.0; give one for each"),
        ([(0, [10**400, 0])], {}, "the weight of 'a' is 10{50,}; it must be a number from 0 to 1"),
        ([(0, [10**17, 1])], {}, r"sum to 1e\+17, not to 1"),
        ([(0, [1, 0])], {"type": "cubic"}, "'cubic'; it must be one of"),
        ([(0, [1, 0])], {"batch_size": 0}, "batch_size is 0"),
        ([(0, [1, 0])], {"block_size": 2.5}, "block_size is 2.5"),
    ],
)
def test_wrong_arguments(points: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WeightSchedule(AB, points, **options)


def test_the_fingerprint_follows_from_the_weights() -> None:
    def identity(points: Any, **options: Any) -> str:
        return WeightSchedule(AB, points, **options).fingerprint

    same = [
        identity([(0, [0.25, 0.75])]),
        identity([(0, {"b": 0.75, "a": Fraction(1, 4)})], type="linear", block_size=7),
        identity([(3, [0.25, 0.75])], batch_size=1),
    ]
    moving = [(0, [1, 0]), (4, [0, 1])]
    other = [
        identity([(0, [0.5, 0.5])]),
        identity(moving),
        identity(moving, batch_size=2),
        identity(moving, type="linear"),
        identity(moving, type="linear", block_size=7),
        identity(moving, type="cosine"),
    ]
    assert len({*same[:2], *other}) == 1 + len(other)


def test_numbers_of_other_types() -> None:
    points = [(2, [0.25, 0.75]), (6, [0.5, 0.5])]
    other = [
        (np.int64(2), np.array([0.25, 0.75], np.float32)),
        (np.uint8(6), (w for w in (0.5, 0.5))),
    ]
    same = {"type": "linear", "batch_size": 3, "block_size": 5}
    as_numpy = {"type": "linear", "batch_size": np.int32(3), "block_size": np.uint16(5)}
    found = WeightSchedule(AB, other, **as_numpy)  # type: ignore[arg-type]
    assert found.fingerprint == WeightSchedule(AB, points, **same).fingerprint  # type: ignore[arg-type]
    assert found.segment(10) == WeightSchedule(AB, points, **same).segment(10)  # type: ignore[arg-type]


def test_the_integral_at_the_end_of_a_block_is_that_at_the_start_of_the_next() -> None:
    schedule = WeightSchedule(AB, [(0, [1, 0]), (977, [0, 1])], type="cosine", block_size=1)
    before = schedule_module._cosine_integral.cache_info().misses
    for sample in range(100):
        schedule.segment(sample)
    assert schedule_module._cosine_integral.cache_info().misses - before == 101
