from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader import order as order_module
from easydata.loader import permutation as permutation_module
from easydata.loader.order import SampleOrder
from easydata.loader.permutation import MAX_LENGTH, Permutation


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_every_small_length_is_a_bijection(seed: int) -> None:
    for length in range(1, 301):
        order = Permutation(length, seed=seed, epoch=length)
        positions = np.arange(length)
        samples = order(positions)
        assert samples.dtype == np.int64
        assert sorted(samples.tolist()) == list(range(length))
        assert order.inverse(samples).tolist() == positions.tolist()
        assert order(order.inverse(positions)).tolist() == positions.tolist()


@given(
    length=st.integers(1, MAX_LENGTH),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 10**6),
    data=st.data(),
)
def test_points_of_any_length(length: int, seed: int, epoch: int, data: st.DataObject) -> None:
    order = Permutation(length, seed=seed, epoch=epoch)
    points = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=20, unique=True))
    samples = order(points).tolist()
    assert all(0 <= sample < length for sample in samples)
    assert len(set(samples)) == len(points)
    assert order.inverse(samples).tolist() == points
    # One at a time gives the same as all at once.
    assert [int(order([point])[0]) for point in points] == samples


# A resumed training run must see the same order in every release.
@pytest.mark.parametrize(
    ("length", "seed", "epoch", "expected"),
    [
        (1, 0, 0, [0]),
        (10, 0, 0, [5, 7, 6, 3, 8, 4, 0, 1, 2, 9]),
        (10, 0, 1, [4, 8, 9, 3, 5, 2, 6, 7, 0, 1]),
        (10, 1, 0, [3, 8, 2, 1, 4, 0, 5, 6, 7, 9]),
        (1000, 42, 7, [305, 710, 220, 514, 165, 15]),
        (2**32 + 1, 2**64 - 1, 3, [3244741527, 1101838766, 1188408417, 1844400401]),
        (
            4611686018427387904,
            5,
            0,
            [216593439180438181, 4516466225350590806, 3580928507419230112],
        ),
    ],
)
def test_golden_values(length: int, seed: int, epoch: int, expected: list[int]) -> None:
    order = Permutation(length, seed=seed, epoch=epoch)
    assert order(np.arange(len(expected))).tolist() == expected


def test_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(Permutation(50, seed=seed, epoch=epoch)(np.arange(50)).tolist())
        for seed in range(20)
        for epoch in range(20)
    }
    assert len(orders) == 400


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2).sum() / expected)


def test_every_sample_is_equally_likely_at_every_position() -> None:
    size, trials = 10, 4000
    counts = np.zeros((size, size))
    for seed in range(trials):
        counts[np.arange(size), Permutation(size, seed=seed, epoch=0)(np.arange(size))] += 1
    # Rows and columns have fixed sums: 81 degrees of freedom; 140 is beyond one in 10,000.
    assert chi_square(counts) < 140


def test_every_order_of_few_samples_is_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        order = tuple(Permutation(4, seed=9, epoch=epoch)(np.arange(4)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert chi_square(np.array(list(counts.values()))) < 60  # 23 degrees of freedom


def test_neighbours_are_sent_far_apart() -> None:
    samples = Permutation(1_000_000, seed=3, epoch=1)(np.arange(100_000))
    distances = np.abs(np.diff(samples))
    assert abs(distances.mean() / 1_000_000 - 1 / 3) < 0.01
    counts, _ = np.histogram(samples, bins=100, range=(0, 1_000_000))
    assert 50 < chi_square(counts) < 160  # 99 degrees of freedom


@pytest.mark.parametrize("length", [0, -1, MAX_LENGTH + 1])
def test_lengths_out_of_range(length: int) -> None:
    with pytest.raises(UsageError, match=f"cannot permute {length} samples"):
        Permutation(length, seed=0, epoch=0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed is {seed}; it must be a whole number from 0 to"):
        Permutation(5, seed=seed, epoch=0)


def test_a_permutation_is_made_without_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Permutation(10, seed=2**64 - 1, epoch=9)(np.arange(10)).tolist()
    with monkeypatch.context() as patch:
        patch.delattr(permutation_module, "_mix")  # tiny sources need one for every few samples
        made = Permutation(10, seed=2**64 - 1, epoch=9)
    assert made(np.arange(10)).tolist() == expected


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (1, {"shuffle": True}),
        (7, {"shuffle": True, "window": 1}),
        (7, {"shuffle": False}),
        (MAX_LENGTH // 8, {"shuffle": False}),
    ],
)
def test_what_cannot_be_shuffled_needs_no_permutation(
    length: int, options: dict[str, bool | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = SampleOrder(length, seed=3, **options)
    monkeypatch.delattr(order_module, "Permutation")
    for start in (0, length - 1, 5 * length + 3 % length):
        expected = [visit % length for visit in range(start, start + 20)]
        found = order.visits(start, start + 20)
        assert found.dtype == np.int64
        assert found.tolist() == expected


def test_numbers_of_other_types() -> None:
    expected = SampleOrder(100, shuffle=True, seed=7, window=20).visits(0, 300).tolist()
    for kind in (np.int64, np.uint8, np.uint64):
        order = SampleOrder(kind(100), shuffle=True, seed=kind(7), window=kind(20))
        assert order.visits(0, 300).tolist() == expected
