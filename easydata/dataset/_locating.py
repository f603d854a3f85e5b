"""Where the tokens of each record batch lie in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from easydata.dataset._shards import Shards
from easydata.format.arrays import number_view
from easydata.loader.rows import Pieces, split_runs

__all__ = ["TokenMemory"]


class TokenMemory:
    """Finds runs of the token stream of a dataset. Safe to share between threads."""

    def __init__(self, shards: Shards, itemsize: int) -> None:
        """
        Args:
            shards: of the dataset.
            itemsize: bytes in a token.
        """
        self._shards = shards
        self._itemsize = itemsize
        # Of each batch of a mapped dataset, once it was opened: where its token 0 lies. The map
        # lives as long as the shards do.
        self._addresses = np.zeros(len(shards.ledger.batch_offsets), np.int64)

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        """As `TokenSource.locate`; the runs lie within the stream."""
        runs = split_runs(self._shards.ledger.first_tokens, starts, lengths)
        batches, sizes = runs.regions, runs.lengths * self._itemsize
        if not self._shards.is_mapped:
            return self._locate_decoded(batches, runs.starts, sizes, runs.counts)
        is_new = self._addresses[batches] == 0
        if is_new.any():
            # np.unique would import numpy.ma: 15 ms, where all of opening takes 3.
            for batch in sorted(set(batches[is_new].tolist())):
                values = self._shards.open_batch(batch).values
                self._addresses[batch] = values.ctypes.data
        self._shards.check_runs(batches, runs.starts, sizes)
        addresses = self._addresses[batches] + runs.starts * self._itemsize
        return Pieces(addresses, sizes, runs.counts, self._shards)

    def locate_rows(
        self, column: str, rows: npt.NDArray[np.int64], row_items: int, itemsize: int
    ) -> Pieces:
        """Where rows of one length lie, of a column that is not the one of token ids: all of it
        was checked when its record batch was opened.

        Args:
            column: its name.
            rows: int64[n], numbers of rows of the dataset.
            row_items: items in each row.
            itemsize: bytes in an item.
        """
        first_rows = self._shards.ledger.first_rows
        batches = first_rows.searchsorted(rows, side="right") - 1
        addresses = (rows - first_rows[batches]) * (row_items * itemsize)
        owners = []
        for batch in sorted(set(batches.tolist())):
            values = number_view(self._shards.open_batch(batch).batch[column].flatten())
            addresses[batches == batch] += values.ctypes.data
            owners.append(values)
        return Pieces(addresses, np.full(len(rows), row_items * itemsize), None, owners)

    def _locate_decoded(
        self,
        batches: npt.NDArray[np.int64],
        local: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64] | None,
    ) -> Pieces:
        addresses = local * self._itemsize
        owners = []
        for batch in sorted(set(batches.tolist())):
            values = self._shards.open_batch(batch).values
            addresses[batches == batch] += values.ctypes.data
            owners.append(values)
        return Pieces(addresses, sizes, counts, owners)
