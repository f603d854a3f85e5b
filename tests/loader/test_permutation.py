"""The permutation at every small length, and at points of every large one."""

from __future__ import annotations

import numpy as np
import pytest

from easydata.loader.permutation import MAX_LENGTH, Permutation


def test_the_inverse_at_every_length_to_a_thousand() -> None:
    for length in range(1, 1001):
        order = Permutation(length, seed=length * 977, epoch=length % 7)
        positions = np.arange(length)
        samples = order(positions)
        assert np.array_equal(np.sort(samples), positions)
        assert np.array_equal(order.inverse(samples), positions)


@pytest.mark.parametrize("bits", range(10, 63))
def test_points_of_large_lengths(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for length in (1 << bits, (1 << bits) - 1, min((1 << bits) + 1, MAX_LENGTH)):
        order = Permutation(length, seed=int(rng.integers(2**63)), epoch=bits)
        edges = [0, 1, length // 2, length - 2, length - 1]
        positions = np.unique(np.append(rng.integers(0, length, 2000), edges))
        samples = order(positions)
        assert samples.dtype == np.int64
        assert 0 <= samples.min() <= samples.max() < length
        assert len(np.unique(samples)) == len(positions)
        assert np.array_equal(order.inverse(samples), positions)
        assert np.array_equal(order(order.inverse(positions)), positions)


@pytest.mark.parametrize("length", [64, 101, 1000, 4099])
def test_neighbours_are_at_any_distance(length: int) -> None:
    """Of two neighbours, the second lies any distance from 1 to length-1 after the first."""
    counts = np.zeros(length, np.int64)
    trials = -(-200_000 // length)
    for seed in range(trials):
        samples = Permutation(length, seed=seed, epoch=seed % 5)(np.arange(length))
        counts += np.bincount(np.diff(samples) % length, minlength=length)
    assert counts[0] == 0
    expected = counts.sum() / (length - 1)
    chi_square = ((counts[1:] - expected) ** 2 / expected).sum()
    freedom = length - 2
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)
