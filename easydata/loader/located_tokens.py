"""Samples that were cut or packed from a stream of tokens, once it is known where these lie."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easydata.loader.packing_segments import TYPES, Filling
from easydata.loader.protocols import Arrays
from easydata.loader.rows import Rows

__all__ = ["LocatedTokens", "SamplePieces", "array_names"]

Int64Array = npt.NDArray[np.int64]


class SamplePieces(NamedTuple):
    """The pieces of documents that fill samples from their start on.

    Attributes:
        first: int64[n + 1]; those of sample i are first[i] to first[i + 1].
        lengths: int64[pieces], tokens in each.
        documents: int64[pieces], the document that each is of; None if nobody asks.
    """

    first: Int64Array
    lengths: Int64Array
    documents: Int64Array | None


def array_names(*, segment_ids: bool, document_ids: bool, loss_mask: bool) -> tuple[str, ...]:
    """The names of the arrays of samples, in their order; `positions` come with `segment_ids`."""
    names = {
        "input_ids": True,
        "segment_ids": segment_ids,
        "positions": segment_ids,
        "document_ids": document_ids,
        "loss_mask": loss_mask,
    }
    return tuple(name for name, is_there in names.items() if is_there)


class LocatedTokens:
    """See `LocatedSamples`.

    Attributes:
        ids, pieces, names: as they were given.
    """

    def __init__(
        self,
        ids: Rows,
        pieces: SamplePieces | None,
        names: tuple[str, ...],
        *,
        is_copied: bool = False,
    ) -> None:
        """
        Args:
            ids: the rows of `input_ids`.
            pieces: of the samples; None where all arrays do without.
            names: of the arrays.
            is_copied: `input_ids` is a copy, also where its rows follow one another in memory.
        """
        self.ids = ids
        self.pieces = pieces
        self.names = names
        self._is_copied = is_copied

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Of the arrays, by name."""
        known = {"input_ids": self.ids.dtype, **TYPES}
        return {name: known[name] for name in self.names}

    @property
    def num_pieces(self) -> int:
        """In how many pieces they lie, or of how many they are made."""
        return max(len(self.ids.addresses), 0 if self.pieces is None else len(self.pieces.lengths))

    def read(self, start: int, stop: int) -> Arrays:
        """See `LocatedSamples.read`."""
        read = self.ids.copy if self._is_copied else self.ids.read
        if self.pieces is None:
            return {"input_ids": read(start, stop)}
        first, lengths, documents = self.pieces
        bounds = first[start : stop + 1]
        of_these = slice(bounds[0], bounds[-1])
        filling = Filling(np.diff(bounds), lengths[of_these], self.ids.num_items)
        arrays = {
            "input_ids": lambda: read(start, stop),
            "segment_ids": filling.segment_ids,
            "positions": filling.positions,
            "loss_mask": filling.loss_mask,
        }
        if documents is not None:
            arrays["document_ids"] = lambda: filling.spread(documents[of_these])
        return {name: arrays[name]() for name in self.names}
