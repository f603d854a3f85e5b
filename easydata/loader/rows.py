"""Rows of items that lie anywhere in memory: seen where they are, or copied in one call.

A sample may lie in any of thousands of mapped files, and is perhaps put together from several
documents; a Python loop over its pieces would cost more than copying them. All memory of a process
is one array of bytes, though, and Arrow's `take` of variable-length values copies such pieces, end
to end, into one new buffer, without the interpreter's lock, at an address that is a multiple of
64. So the pieces are described to it as values of one array of bytes: value 2i runs from where
piece i starts to where it ends, and only those with even numbers are ever taken. The values between
them, which would run backwards, are never looked at.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.format.arrays import number_array
from easydata.loader.ranges import totals

__all__ = ["Pieces", "Rows", "empty_aligned", "fill_rows"]

# No array begins so low, and no 64-bit system gives programs addresses as high as the end.
_LOWEST = 64
_MEMORY = pa.foreign_buffer(_LOWEST, (1 << 56) - _LOWEST)
_FEW = number_array(np.arange(0, 1 << 14, 2))


class Pieces(NamedTuple):
    """Where runs of items lie.

    Attributes:
        addresses: int64[pieces], of the first byte of each.
        sizes: int64[pieces], bytes in each.
        counts: int64[runs], how many pieces each run is; None if every run is one.
        owner: keeps the memory alive.
    """

    addresses: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64] | None
    owner: object


class Rows:
    """Numbered rows of one length, each one or several pieces of memory, one after another.

    Attributes:
        num_rows: how many there are.
        addresses, sizes, first_piece, num_items, dtype, owner: as they were given.
    """

    def __init__(
        self,
        addresses: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        *,
        num_items: int,
        dtype: np.dtype[Any],
        owner: object,
        first_piece: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """
        Args:
            addresses: int64[pieces], of the first byte of each; not checked.
            sizes: int64[pieces], bytes in each.
            num_items: in a row; the pieces of a row add up to so many. Not checked.
            dtype: of the items.
            owner: keeps the memory alive.
            first_piece: int64[rows + 1]; row i is pieces first_piece[i] to first_piece[i + 1].
                None if every row is one piece.
        """
        self.num_rows = len(addresses if first_piece is None else first_piece[1:])
        self.num_items = num_items
        self.dtype = dtype
        self.addresses = addresses
        self.sizes = sizes
        self.first_piece = first_piece
        self.owner = owner

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """dtype[stop - start, num_items]: `view` where there is one, else `copy`."""
        found = self.view(start, stop)
        return self.copy(start, stop) if found is None else found

    def view(self, start: int, stop: int) -> npt.NDArray[Any] | None:
        """dtype[stop - start, num_items], read-only: rows where they are; None if they do not
        follow one another in memory.
        """
        first, last = self._piece(start), self._piece(stop)
        if first == last:
            return None
        if last - first > 1:
            next_one = self.addresses[first] + self.sizes[first]
            if next_one != self.addresses[first + 1]:  # as most often
                return None
            ends = self.addresses[first : last - 1] + self.sizes[first : last - 1]
            if (ends != self.addresses[first + 1 : last]).any():
                return None
        memory = _Memory(
            int(self.addresses[first]), (stop - start, self.num_items), self.dtype, self.owner
        )
        return np.asarray(memory)

    def copy(self, start: int, stop: int) -> npt.NDArray[Any]:
        """dtype[stop - start, num_items]: rows copied, at an address that is a multiple of 64."""
        first, last = self._piece(start), self._piece(stop)
        shape = (stop - start, self.num_items)
        count = last - first
        if not count:
            return np.empty(shape, self.dtype)
        offsets = np.empty(2 * count + 1, np.int64)
        starts, ends = offsets[:-1:2], offsets[1::2]
        np.subtract(self.addresses[first:last], _LOWEST, out=starts)
        np.add(starts, self.sizes[first:last], out=ends)
        # Arrow sets aside as many bytes for a value as the values have on average, which it works
        # out from the first and the last offset. It is told an average by which all pieces just
        # fit: with less it would copy them once more, into a buffer of twice the size.
        num_bytes = math.prod(shape) * self.dtype.itemsize
        offsets[-1] = offsets[0] + 2 * num_bytes + 1
        pieces = pa.Array.from_buffers(
            pa.large_binary(), 2 * count, [None, pa.py_buffer(offsets), _MEMORY]
        )
        function, options = _take()
        taken = function.call([pieces, _even_numbers(count)], options)
        return np.ndarray(shape, self.dtype, taken.buffers()[2])

    def _piece(self, row: int) -> int:
        return row if self.first_piece is None else int(self.first_piece[row])


def _even_numbers(count: int) -> pa.Array:
    return _FEW.slice(0, count) if count <= len(_FEW) else number_array(np.arange(0, 2 * count, 2))


@functools.cache
def _take() -> tuple[Any, Any]:
    # `pyarrow.compute` first makes a Python function of each of its hundreds: a tenth of a second.
    from pyarrow._compute import TakeOptions, get_function

    return get_function("array_take"), TakeOptions(boundscheck=False)


class _Memory:
    """Some memory as NumPy finds it; holds on to whoever owns it."""

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: object
    ) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": dtype.str,
            "data": (address, True),
            "shape": shape,
        }


def fill_rows(
    pieces: Pieces,
    runs_in_row: npt.NDArray[np.int64] | None,
    *,
    num_items: int,
    dtype: np.dtype[Any],
    pad_token_id: int | None,
) -> Rows:
    """Rows made of runs, one after another, and filled up with `pad_token_id` where these end.

    Args:
        pieces: of the runs.
        runs_in_row: int64[rows], how many runs each row has; None if each is one.
        num_items: in a row; the runs of a row have so many or less.
        dtype: of the items.
        pad_token_id: None if nothing is to be filled up.

    Raises:
        ValueError: the runs of a row have more items, or less and there is no `pad_token_id`:
            whoever located them is wrong.
    """
    addresses, sizes, counts = pieces.addresses, pieces.sizes, pieces.counts
    if counts is None:
        counts = runs_in_row
    elif runs_in_row is not None:
        counts = totals(counts, runs_in_row)
    owner = pieces.owner
    row_bytes = num_items * dtype.itemsize
    missing = row_bytes - (sizes if counts is None else totals(sizes, counts))
    first_piece = None if counts is None else np.append(0, counts.cumsum())
    short = np.flatnonzero(missing)
    if len(short) and (pad_token_id is None or missing.min() < 0):
        # A copy of them would be filled up with whatever there is.
        row = int(short[0] if pad_token_id is None else missing.argmin())
        raise ValueError(
            f"row {row} was located as {row_bytes - missing[row]} bytes, but it has {row_bytes}"
        )
    if len(short):
        padding = np.full(num_items, pad_token_id, dtype)
        if first_piece is None:
            first_piece = np.arange(len(sizes) + 1)
        ends = first_piece[1:]
        addresses = np.insert(addresses, ends[short], padding.ctypes.data)
        sizes = np.insert(sizes, ends[short], missing[short])
        first_piece = first_piece + np.searchsorted(short, np.arange(len(first_piece)))
        owner = (owner, padding)
    return Rows(
        addresses,
        sizes,
        num_items=num_items,
        dtype=dtype,
        owner=owner,
        first_piece=first_piece,
    )


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """dtype[shape], not filled, at an address that is a multiple of 64."""
    size = math.prod(shape) * dtype.itemsize
    return np.ndarray(shape, dtype, pa.allocate_buffer(size))
