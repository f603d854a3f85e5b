"""The order of samples: a keyed permutation that needs no memory.

A Feistel network is a bijection on the numbers of k bits whatever its round function does
(Luby & Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988).
Numbers that fall outside 0..n-1 are sent through it again until they fall inside
("cycle walking", Black & Rogaway, "Ciphers with arbitrary finite domains", 2002), which keeps it
a bijection on 0..n-1. All arithmetic is on 64-bit integers, so it is one at any length up to
2^62.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader._checks import check_count, check_seed

__all__ = ["MAX_LENGTH", "Permutation", "SampleOrder"]

MAX_LENGTH = 1 << 62
_ROUNDS = 6
_MASK = (1 << 64) - 1
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

UInt64Array = npt.NDArray[np.uint64]
Step = Callable[[UInt64Array], UInt64Array]


class Permutation:
    """A bijection of 0..length-1 chosen by `seed` and `epoch`; the same on every machine.

    >>> sorted(Permutation(5, seed=0, epoch=0)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, length: int, *, seed: int, epoch: int) -> None:
        """
        Raises:
            UsageError: the length is not in 1..2^62, or the seed not in 0..2^64-1.
        """
        length = operator.index(length)
        if not 1 <= length <= MAX_LENGTH:
            raise UsageError(f"cannot permute {length} samples; there must be 1 to 2^62.")
        seed = check_seed(seed)
        self.length = length
        bits = max(2, (length - 1).bit_length())
        self._left_bits = np.uint64(bits // 2)
        self._right_bits = np.uint64(bits - bits // 2)
        state = _mix_int(seed ^ _mix_int(epoch))
        self._keys = []
        for _ in range(_ROUNDS):
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            self._keys.append(np.uint64(_mix_int(state)))

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """int64[n]: the sample at each of these positions of the epoch, 0 ≤ position < length."""
        return self._walk(positions, self._forward)

    def inverse(self, samples: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """int64[n]: the position of each of these samples, so that `inverse(self(x)) == x`."""
        return self._walk(samples, self._backward)

    def _walk(self, values: npt.ArrayLike, step: Step) -> npt.NDArray[np.int64]:
        result = step(np.asarray(values).astype(np.uint64))
        outside = np.flatnonzero(result >= self.length)
        while len(outside):
            again = step(result[outside])
            result[outside] = again
            outside = outside[again >= self.length]
        return result.astype(np.int64)

    def _forward(self, values: UInt64Array) -> UInt64Array:
        # The halves swap their sizes in every round; an even number of rounds restores them.
        left_bits, right_bits = self._left_bits, self._right_bits
        left, right = values >> right_bits, values & _low(right_bits)
        for key in self._keys:
            left, right = right, (left ^ _mix(right ^ key)) & _low(left_bits)
            left_bits, right_bits = right_bits, left_bits
        return (left << right_bits) | right

    def _backward(self, values: UInt64Array) -> UInt64Array:
        left_bits, right_bits = self._left_bits, self._right_bits
        left, right = values >> right_bits, values & _low(right_bits)
        for key in reversed(self._keys):
            left_bits, right_bits = right_bits, left_bits
            left, right = (right ^ _mix(left ^ key)) & _low(left_bits), left
        return (left << right_bits) | right


class SampleOrder:
    """The samples of one source in the order of visit, epoch after epoch without end.

    >>> SampleOrder(3, shuffle=False, seed=0).visits(2, 7).tolist()
    [2, 0, 1, 2, 0]
    """

    def __init__(self, length: int, *, shuffle: bool, seed: int, window: int | None = None) -> None:
        """
        Args:
            length: samples in an epoch.
            shuffle: visit the samples of each epoch in an order of its own; else as they come.
            seed: chooses the orders.
            window: shuffle only inside every `window` samples that follow one another, so that
                reading goes forward through the data; None shuffles all.

        Raises:
            UsageError: an argument is out of range, or there is a window but no shuffling.
        """
        if window is not None:
            window = check_count(window, "shuffle_buffer_size")
            if not shuffle:
                raise UsageError(f"shuffle_buffer_size is {window}, but shuffle is False.")
        self._length = Permutation(length, seed=seed, epoch=0).length  # refuses wrong ones now
        self._seed = check_seed(seed)
        self._window = self._length if window is None else min(window, self._length)
        self._shuffle = shuffle and self._window > 1

    def visits(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """int64[stop - start]: the samples of these visits; epoch e begins with visit e·length."""
        if not self._shuffle:
            return (start % self._length + np.arange(stop - start)) % self._length
        found = [np.empty(0, np.int64)]
        while start < stop:
            epoch, position = divmod(start, self._length)
            window = position // self._window
            first = window * self._window
            size = min(self._window, self._length - first)
            positions = np.arange(position, min(first + size, position + stop - start))
            seed = (self._seed + window * 0x9E3779B97F4A7C15) & _MASK
            order = Permutation(size, seed=seed, epoch=epoch)
            found.append(first + order(positions - first))
            start += len(positions)
        return np.concatenate(found)


def _low(bits: np.uint64) -> np.uint64:
    return np.uint64((1 << int(bits)) - 1)


def _mix(values: UInt64Array) -> UInt64Array:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FACTORS[0])
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_FACTORS[1])
    return values ^ (values >> np.uint64(31))


def _mix_int(value: int) -> int:
    """As `_mix`. For a single number this is ten times as fast as an array of one."""
    value &= _MASK
    value = (value ^ (value >> 30)) * _FACTORS[0] & _MASK
    value = (value ^ (value >> 27)) * _FACTORS[1] & _MASK
    return value ^ (value >> 31)
