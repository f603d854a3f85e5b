"""Which piece each token of a sample belongs to, and where in it it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.loader.ranges import ranges, totals
from easydata.loader.rows import Rows, empty_aligned

__all__ = ["TYPES", "Filling"]

Int64Array = npt.NDArray[np.int64]


# The types of the arrays.
TYPES: dict[str, np.dtype[Any]] = {
    "segment_ids": np.dtype(np.int32),
    "positions": np.dtype(np.int32),
    "loss_mask": np.dtype(np.bool_),
    "document_ids": np.dtype(np.int64),
}


class Filling:
    """Samples that are filled with pieces from their start on, and with padding where these end.

    Its arrays are new ones, at addresses that are multiples of 64. Most are put together from runs
    of a small table, which takes no longer than to copy them and lets go of the interpreter's lock.
    """

    def __init__(self, counts: Int64Array, lengths: Int64Array, seq_len: int) -> None:
        """
        Args:
            counts: int64[n], pieces in each sample.
            lengths: int64[sum of counts], tokens in each piece; at most `seq_len` in a sample.
            seq_len: tokens in a sample.
        """
        self._seq_len = seq_len
        self._counts, self._lengths = counts, lengths
        self._used = totals(lengths, counts)
        # A sample is its pieces and one run, perhaps empty, for the padding.
        self._first_run = np.append(0, (counts + 1).cumsum())
        self._pads = self._first_run[1:] - 1

    def segment_ids(self) -> npt.NDArray[np.int32]:
        """int32[n, seq_len]: 1 for the first piece of a sample, 2 for the second and so on, 0
        where no piece lies.
        """
        runs = self._runs
        numbers = self._with_pads(ranges(np.ones_like(self._counts), self._counts), 0)
        # So often is each in the table; all of them together are no more than one array.
        longest = np.zeros(numbers.max(initial=0) + 1, np.int64)
        np.maximum.at(longest, numbers, runs)
        table = np.arange(len(longest), dtype=np.int32).repeat(longest)
        firsts = longest.cumsum() - longest
        return _copied(table, firsts[numbers], runs, self._first_run, self._seq_len)

    def positions(self) -> npt.NDArray[np.int32]:
        """int32[n, seq_len]: 0 for the first token of each piece, then 1 and so on; 0 where no
        piece lies.
        """
        zeros = int(self._runs[self._pads].max(initial=0))
        table = np.append(np.zeros(zeros, np.int32), np.arange(self._seq_len, dtype=np.int32))
        firsts = self._with_pads(zeros, 0)
        return _copied(table, firsts, self._runs, self._first_run, self._seq_len)

    def loss_mask(self) -> npt.NDArray[np.bool_]:
        """bool[n, seq_len]: whether a piece lies there."""
        seq_len, n = self._seq_len, len(self._counts)
        table = np.arange(2 * seq_len) < seq_len
        # The end of what is True, and the start of what is not.
        firsts = np.column_stack([seq_len - self._used, np.full(n, seq_len)]).ravel()
        runs = np.column_stack([self._used, seq_len - self._used]).ravel()
        return _copied(table, firsts, runs, np.arange(0, 2 * n + 1, 2), seq_len)

    def spread(self, values: Int64Array) -> Int64Array:
        """int64[n, seq_len]: the value of the piece that each token is of; -1 where no piece lies.

        Args:
            values: int64[sum of counts], of each piece.
        """
        found = empty_aligned((len(self._counts), self._seq_len), np.dtype(np.int64))
        found[...] = self._with_pads(values, -1).repeat(self._runs).reshape(found.shape)
        return found

    @cached_property
    def _runs(self) -> Int64Array:
        """int64[pieces + n]: how long each run is."""
        return self._with_pads(self._lengths, self._seq_len - self._used)

    def _with_pads(self, of_pieces: Int64Array | int, of_pads: Int64Array | int) -> Int64Array:
        is_piece = np.ones(self._first_run[-1], np.bool_)
        is_piece[self._pads] = False
        found = np.empty(len(is_piece), np.int64)
        found[is_piece] = of_pieces
        found[self._pads] = of_pads
        return found


def _copied(
    table: npt.NDArray[Any],
    firsts: Int64Array,
    lengths: Int64Array,
    first_run: Int64Array,
    seq_len: int,
) -> npt.NDArray[Any]:
    """Rows that are put together from runs of a table, each from an item of it on."""
    rows = Rows(
        table.ctypes.data + firsts * table.itemsize,
        lengths * table.itemsize,
        num_items=seq_len,
        dtype=table.dtype,
        owner=table,
        first_piece=first_run,
    )
    return rows.copy(0, rows.num_rows)
