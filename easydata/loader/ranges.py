"""Ranges of numbers, without a loop in Python."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ranges", "totals"]

Int64Array = npt.NDArray[np.int64]


def ranges(firsts: Int64Array, counts: Int64Array) -> Int64Array:
    """int64[sum of counts]: `counts[i]` numbers from `firsts[i]` up, one range after another.

    >>> ranges(np.array([5, 20]), np.array([2, 3])).tolist()
    [5, 6, 20, 21, 22]
    """
    before = counts.cumsum() - counts
    return np.arange(counts.sum(), dtype=np.int64) + np.repeat(firsts - before, counts)


def totals(lengths: Int64Array, counts: Int64Array) -> Int64Array:
    """int64[n]: sums of the first `counts[0]` lengths, the next `counts[1]`, and so on; 0 of none.

    >>> totals(np.array([5, 1, 7]), np.array([2, 0, 1])).tolist()
    [6, 0, 7]
    """
    ends = np.append(0, lengths.cumsum())[np.append(0, counts.cumsum())]
    return np.diff(ends)
