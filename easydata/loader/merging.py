"""Rows of several sources as one: those of a batch are then copied in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.loader.located_tokens import LocatedTokens, SamplePieces
from easydata.loader.protocols import Arrays, LocatedSamples
from easydata.loader.ranges import ranges
from easydata.loader.rows import Rows, empty_aligned
from easydata.loader.stored_samples import LocatedStored

__all__ = ["group_by_source", "merge", "merge_rows", "ranks_in_source", "rows_of_ids"]

Int64Array = npt.NDArray[np.int64]


def group_by_source(
    sources: npt.NDArray[np.integer[Any]], num_sources: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the samples of each source stand in a sequence of samples of several.

    Args:
        sources: integer[n], the number of the source of each sample.
        num_sources: how many sources there are.

    Returns:
        order: int64[n], the places of the samples of source 0, which ascend, then of source 1...
        firsts: int64[num_sources + 1]; of source i they are order[firsts[i] : firsts[i + 1]].

    >>> group_by_source(np.array([1, 0, 1]), 2)
    (array([1, 0, 2]), array([0, 1, 3]))
    """
    # Numbers of 16 bits are sorted by their digits, in linear time.
    keys = sources.astype(np.uint16) if num_sources <= 1 << 16 else sources
    firsts = np.zeros(num_sources + 1, np.int64)
    np.cumsum(np.bincount(keys, minlength=num_sources), out=firsts[1:])
    return keys.argsort(kind="stable"), firsts


def ranks_in_source(
    sources: npt.NDArray[np.integer[Any]], num_sources: int
) -> npt.NDArray[np.int64]:
    """int64[n]: for each sample, how many before it are of its source; as `group_by_source`."""
    order, firsts = group_by_source(sources, num_sources)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - np.repeat(firsts[:-1], np.diff(firsts))
    return ranks


def merge(
    sources: npt.NDArray[np.integer[Any]],
    located: Mapping[int, LocatedSamples],
    order: npt.NDArray[np.int64],
    seq_len: int,
    dtypes: Mapping[str, np.dtype[Any]],
) -> LocatedSamples:
    """Samples of several sources as one.

    Args:
        sources: integer[n], the number of the source of each sample.
        located: by number, of each source that is among them, its samples, as they come.
        order: int64[n], see `group_by_source`.
        seq_len: tokens in a sample.
        dtypes: of the arrays that are read; each holds the values of all sources.
    """
    names = tuple(dtypes)
    ids = [rows_of_ids(part) for part in located.values()]
    rows = [its for its in ids if its is not None and its.dtype == dtypes["input_ids"]]
    if located and names == ("input_ids",) and len(rows) == len(located):
        return LocatedTokens(merge_rows(rows, order), None, names, is_copied=True)
    parts = [part for part in located.values() if isinstance(part, LocatedTokens)]
    pieces = [part.pieces for part in parts if part.pieces and part.dtypes == dtypes]
    if located and len(pieces) == len(located):
        merged = _merge_pieces(pieces, order)
        return LocatedTokens(merge_rows(rows, order), merged, names, is_copied=True)
    stored = [part for part in located.values() if isinstance(part, LocatedStored)]
    arrays = [part.rows for part in stored if part.dtypes == dtypes]
    if located and len(arrays) == len(located):
        each = {name: merge_rows([its[name] for its in arrays], order) for name in names}
        return LocatedStored(each, is_copied=True)
    return _Merged(sources, located, seq_len, dtypes)


def merge_rows(rows: Sequence[Rows], order: npt.NDArray[np.int64]) -> Rows:
    """All rows of several `Rows`, which have one type and number of items, in one order.

    Args:
        rows: one or more.
        order: int64[rows of all], the new number of each row, of the first `Rows`, then of the
            second and so on: a permutation.
    """
    if all(part.first_piece is None for part in rows):
        pieces, first_piece = np.empty_like(order), None
        pieces[order] = np.arange(len(order))
    else:
        firsts = [
            np.arange(part.num_rows + 1) if part.first_piece is None else part.first_piece
            for part in rows
        ]
        pieces, first_piece = _in_order(firsts, order)
    return Rows(
        np.concatenate([part.addresses for part in rows])[pieces],
        np.concatenate([part.sizes for part in rows])[pieces],
        num_items=rows[0].num_items,
        dtype=rows[0].dtype,
        owner=[part.owner for part in rows],
        first_piece=first_piece,
    )


def _merge_pieces(parts: Sequence[SamplePieces], order: Int64Array) -> SamplePieces:
    """Those of the samples of all parts, in one order, as `merge_rows`."""
    pieces, first = _in_order([part.first for part in parts], order)
    documents = [part.documents for part in parts if part.documents is not None]
    return SamplePieces(
        first,
        np.concatenate([part.lengths for part in parts])[pieces],
        np.concatenate(documents)[pieces] if documents else None,
    )


def _in_order(firsts: Sequence[Int64Array], order: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Which pieces the rows of several parts have, and the first one of each, in one order.

    Args:
        firsts: of each part, int64[rows + 1], the first piece of each row, and how many there are.
        order: as for `merge_rows`.
    """
    before = np.cumsum([0, *(its[-1] for its in firsts)]).tolist()
    bounds = [start + its for start, its in zip(before, firsts, strict=False)]
    first, counts = np.empty_like(order), np.empty_like(order)
    first[order] = np.concatenate([its[:-1] for its in bounds])
    counts[order] = np.concatenate([np.diff(its) for its in bounds])
    return ranges(first, counts), np.append(0, counts.cumsum())


class _Merged:
    """Samples located in each source, and put in place after they were read there."""

    def __init__(
        self,
        sources: npt.NDArray[np.integer[Any]],
        located: Mapping[int, LocatedSamples],
        seq_len: int,
        dtypes: Mapping[str, np.dtype[Any]],
    ) -> None:
        self._sources, self._located = sources, located
        self._seq_len, self._dtypes = seq_len, dtypes
        self._ranks = ranks_in_source(sources, max(located, default=0) + 1)

    @property
    def num_pieces(self) -> int:
        """See `LocatedSamples`."""
        return sum(getattr(part, "num_pieces", 0) for part in self._located.values())

    def read(self, start: int, stop: int) -> Arrays:
        """See `LocatedSamples.read`; the arrays are copies."""
        sources = self._sources[start:stop]
        shape = (len(sources), self._seq_len)
        batch = {name: empty_aligned(shape, dtype) for name, dtype in self._dtypes.items()}
        for number in sorted({*sources.tolist()}):
            rows = np.flatnonzero(sources == number)
            first = int(self._ranks[start + rows[0]])
            for name, array in self._located[number].read(first, first + len(rows)).items():
                batch[name][rows] = array
        return batch


def rows_of_ids(located: LocatedSamples) -> Rows | None:
    """Where the `input_ids` of located samples lie; None for samples that do not know."""
    found = getattr(located, "ids", None)
    return found if isinstance(found, Rows) else None
