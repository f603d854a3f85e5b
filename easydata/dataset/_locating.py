"""Where the items of each record batch lie in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata._threads import in_parts
from easydata.dataset._shards import Shards
from easydata.loader.regions import Regions
from easydata.loader.rows import Pieces

__all__ = ["TokenMemory"]

Int64Array = npt.NDArray[np.int64]


class TokenMemory:
    """Finds runs of the token stream of a dataset, and rows of its other columns. Safe to share
    between threads.
    """

    def __init__(self, shards: Shards, itemsize: int) -> None:
        """
        Args:
            shards: of the dataset.
            itemsize: bytes in a token.
        """
        self._shards = shards
        self._itemsize = itemsize
        # Of each column of a mapped dataset, int64[batches]: where its first item lies, once the
        # batch was opened. The map lives as long as the shards do.
        self._tables: dict[str, Int64Array] = {}

    def locate(self, starts: Int64Array, lengths: Int64Array | int) -> Pieces:
        """As `TokenSource.locate`; the runs lie within the stream."""
        shards = self._shards
        runs = self._tokens.split(starts, lengths)
        sizes = runs.lengths * self._itemsize
        addresses, owner = self._addresses(shards.token_column, runs.regions)
        addresses += runs.starts * self._itemsize
        if shards.is_mapped:
            shards.check_runs(runs.regions, addresses, sizes)
        return Pieces(addresses, sizes, runs.counts, owner)

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
        batches = self._rows.find(rows)
        addresses, owner = self._addresses(column, batches)
        row_bytes = row_items * itemsize
        addresses += (rows - self._shards.ledger.first_rows[batches]) * row_bytes
        return Pieces(addresses, np.full(len(rows), row_bytes), None, owner)

    @cached_property
    def _tokens(self) -> Regions:
        """The record batches, as regions of the stream of tokens."""
        return Regions(self._shards.ledger.first_tokens)

    @cached_property
    def _rows(self) -> Regions:
        """The record batches, as regions of the rows."""
        return Regions(self._shards.ledger.first_rows)

    def _addresses(self, column: str, batches: Int64Array) -> tuple[Int64Array, object]:
        """int64[n]: where the first item of a column lies in these batches; and what keeps it
        there.
        """
        table = self._tables.get(column)
        if table is None:
            table = np.zeros(len(self._shards.ledger.batch_offsets), np.int64)
            if self._shards.is_mapped:
                table = self._tables.setdefault(column, table)
        found = table.take(batches)
        if found.all():
            return found, self._shards
        # np.unique would import numpy.ma: 15 ms, where all of opening takes 3.
        missing = np.array(sorted(set(batches[found == 0].tolist())))
        owners: list[object] = []

        def open_batches(some: Int64Array) -> None:
            for batch in some.tolist():
                items = self._shards.items(batch, column)
                table[batch] = items.ctypes.data
                owners.append(items)

        if self._shards.is_mapped:
            in_parts(open_batches, missing, least=2)
        else:
            open_batches(missing)
        found = table.take(batches)
        return found, self._shards if self._shards.is_mapped else owners
