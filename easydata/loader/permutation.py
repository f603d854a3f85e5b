"""A keyed permutation that needs no memory.

A number is taken as a pair, of a row and of one of 2^k columns, and a Feistel network changes the
row by a function of the column, then the column by one of the row, and so on: a bijection of the
pairs, whatever the functions are (Luby & Rackoff, "How to construct pseudorandom permutations from
pseudorandom functions", 1988; for numbers that are no powers of two, Black & Rogaway, "Ciphers with
arbitrary finite domains", 2002). There are as few rows as hold 0..n-1. The few numbers that still
fall outside are sent through it again until they fall inside ("cycle walking", ibid.), which
keeps it a bijection on 0..n-1. All arithmetic is on integers, so it is one at any length up to
2^62. Rows and columns have 31 bits at most: processors mix many numbers of 32 bits at once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader._checks import check_seed

__all__ = ["MAX_LENGTH", "Permutation"]

MAX_LENGTH = 1 << 62
_ROUNDS = 3  # each changes rows and columns
_MASK = (1 << 64) - 1
# Arrays, not numbers: NumPy would make an array of a number each time.
_SHIFTS_32 = tuple(np.array(shift, np.uint32) for shift in (16, 13, 16))
_FACTORS_32 = tuple(np.array(factor, np.uint32) for factor in (0x85EBCA6B, 0xC2B2AE35))
_SHIFT_64 = np.array(32, np.uint64)
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

UInt32Array = npt.NDArray[np.uint32]
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
        self._column_bits = np.array(bits // 2, np.uint64)
        self._last_column = np.array((1 << bits // 2) - 1, np.uint32)
        self._rows = np.array(-(-length >> bits // 2), np.uint32)
        self._rows_64 = self._rows.astype(np.uint64)
        state = _mix_int(seed ^ _mix_int(epoch))
        self._keys = []
        for _ in range(2 * _ROUNDS):
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            self._keys.append(np.array(_mix_int(state) >> 32, np.uint32))

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """int64[n]: the sample at each of these positions of the epoch, 0 ≤ position < length.

        Raises:
            IndexError: there is no such position.
        """
        return self._walk(positions, self._forward)

    def inverse(self, samples: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """int64[n]: the position of each of these samples, so that `inverse(self(x)) == x`."""
        return self._walk(samples, self._backward)

    def _walk(self, values: npt.ArrayLike, step: Step) -> npt.NDArray[np.int64]:
        given = np.asarray(values).astype(np.uint64)  # a negative one becomes huge
        if given.size and given.max() >= self.length:
            raise IndexError(f"{np.max(values)} is not below the length {self.length}")
        result = step(given)
        outside = np.flatnonzero(result >= self.length)
        while len(outside):
            again = step(result[outside])
            result[outside] = again
            outside = outside[again >= self.length]
        return result.astype(np.int64)

    def _forward(self, values: UInt64Array) -> UInt64Array:
        rows, columns = self._split(values)
        mixed, spare = np.empty_like(rows), np.empty_like(rows)
        for first, second in zip(self._keys[::2], self._keys[1::2], strict=True):
            rows += self._shift(_mix(np.bitwise_xor(columns, first, out=mixed), spare))
            self._wrap(rows, spare)
            columns ^= _mix(np.bitwise_xor(rows, second, out=mixed), spare) & self._last_column
        return (rows.astype(np.uint64) << self._column_bits) | columns

    def _backward(self, values: UInt64Array) -> UInt64Array:
        rows, columns = self._split(values)
        mixed, spare = np.empty_like(rows), np.empty_like(rows)
        for first, second in zip(self._keys[-2::-2], self._keys[::-2], strict=True):
            columns ^= _mix(np.bitwise_xor(rows, second, out=mixed), spare) & self._last_column
            rows += self._rows - self._shift(_mix(np.bitwise_xor(columns, first, out=mixed), spare))
            self._wrap(rows, spare)
        return (rows.astype(np.uint64) << self._column_bits) | columns

    def _wrap(self, rows: UInt32Array, spare: UInt32Array) -> None:
        """From 0..2·rows-1 to 0..rows-1, in place: below 0, a difference becomes huge."""
        np.minimum(rows, np.subtract(rows, self._rows, out=spare), out=rows)

    def _split(self, values: UInt64Array) -> tuple[UInt32Array, UInt32Array]:
        rows = (values >> self._column_bits).astype(np.uint32)
        return rows, values.astype(np.uint32) & self._last_column

    def _shift(self, mixed: UInt32Array) -> UInt32Array:
        """From 32 bits to 0..rows-1, each about equally likely."""
        wide = mixed.astype(np.uint64)
        wide *= self._rows_64
        wide >>= _SHIFT_64
        return wide.astype(np.uint32)


def _mix(values: UInt32Array, spare: UInt32Array) -> UInt32Array:
    """The finalizer of MurmurHash3 (Appleby 2011): every bit depends on every bit.

    It overwrites `values`, which it returns, and `spare`: new arrays would take half of the time.
    """
    for shift, factor in zip(_SHIFTS_32[:2], _FACTORS_32, strict=True):
        np.right_shift(values, shift, out=spare)
        values ^= spare
        values *= factor
    np.right_shift(values, _SHIFTS_32[2], out=spare)
    values ^= spare
    return values


def _mix_int(value: int) -> int:
    """As `_mix`. For a single number this is ten times as fast as an array of one."""
    value &= _MASK
    value = (value ^ (value >> 30)) * _FACTORS[0] & _MASK
    value = (value ^ (value >> 27)) * _FACTORS[1] & _MASK
    return value ^ (value >> 31)
