"""ArrayTokens: a NumPy array, also a memory map, as a stream of tokens."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.fingerprint import Hasher
from easydata.loader._checks import check_lengths, check_runs
from easydata.loader.rows import Pieces

__all__ = ["ArrayTokens"]


class ArrayTokens:
    """The items of an array, one after another, perhaps with the lengths of its documents.

    Raw files of tokens are read in this way:
    `ArrayTokens(np.memmap("train.bin", np.uint16, "r"))`.
    """

    def __init__(
        self,
        array: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        fingerprint: str | None = None,
    ) -> None:
        """
        Args:
            array: integer[tokens], not copied if it is contiguous.
            lengths: int64[documents], tokens in each document; None for one document.
            fingerprint: identity of the tokens; None works it out from all of them when needed.

        Raises:
            UsageError: the array is not one of whole numbers in one dimension, or the lengths do
                not add up to it.
        """
        try:
            given = np.asarray(array)
        except ValueError as error:  # lists of several lengths
            raise UsageError(f"this is no stream of tokens: {error}.") from None
        found = np.ascontiguousarray(given)
        if given.ndim != 1 or found.dtype.kind not in "iu" or not found.dtype.isnative:
            raise UsageError(
                f"an array of {found.dtype} in {given.ndim} dimensions is no stream of tokens; "
                "give whole numbers in one dimension."
            )
        self._array = found
        self._lengths = np.array([len(found)]) if lengths is None else check_lengths(lengths).copy()
        if self._lengths.sum() != len(found):
            raise UsageError(
                f"the lengths of the documents add up to {self._lengths.sum()}, but there are "
                f"{len(found)} tokens; give the length of every document."
            )
        self._given = fingerprint

    @property
    def num_tokens(self) -> int:
        """How many tokens there are."""
        return len(self._array)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the tokens."""
        return self._array.dtype

    @cached_property
    def fingerprint(self) -> str:
        """What was given, or 32 hexadecimal digits that follow from the tokens."""
        return Hasher(self._array.data).hexdigest() if self._given is None else self._given

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[documents]: tokens in each."""
        return self._lengths

    def tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        """dtype[stop - start]: a read-only view of the array."""
        if not 0 <= operator.index(start) <= operator.index(stop) <= len(self._array):
            raise IndexError(f"tokens {start} to {stop} of {len(self._array)}")
        found = self._array[start:stop]
        found.flags.writeable = False
        return found

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        """Where runs of tokens lie; see `TokenSource.locate`."""
        check_runs(starts, lengths, len(self._array))
        itemsize = self._array.itemsize
        sizes = np.broadcast_to(np.multiply(lengths, itemsize), starts.shape)
        return Pieces(self._array.ctypes.data + starts * itemsize, sizes, None, self._array)
