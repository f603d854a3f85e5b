"""The arrays of a batch: which, and those that follow from others."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader.protocols import Arrays
from easydata.loader.rows import empty_aligned

__all__ = ["IGNORED", "Columns"]

# What the losses of PyTorch and HuggingFace leave out.
IGNORED = -100
_SEGMENTS = ("segment_ids", "positions")
_DERIVED = ("loss_mask", "labels")
_ALL = ("input_ids", *_SEGMENTS, *_DERIVED, "document_ids")

_CACHED_ITEMS = 1 << 17


class Columns:
    """Chooses the arrays of a batch, and works out those that a source does not give.

    * `labels`: int32[n, seq_len] (int64 where `input_ids` has 64 bits), the token after each, and
      -100 where the sample ends, where the next token is padding, and, where documents are told
      apart, where a document ends.
    * `loss_mask`: bool[n, seq_len], all True where nothing is padded.
    """

    def __init__(self, names: Sequence[str] | None, dtype: npt.DTypeLike | None) -> None:
        """
        Args:
            names: of the arrays; None for what the source gives.
            dtype: of `input_ids`; None for what the source gives.

        Raises:
            UsageError: there is no such array, or `dtype` is no type of whole numbers.
        """
        if names is not None and (isinstance(names, str) or not isinstance(names, Iterable)):
            raise UsageError(f"columns is {names!r}; give a list of names.")
        for name in names or ():
            if name not in _ALL:
                close = difflib.get_close_matches(str(name), _ALL, n=1)
                remedy = (
                    f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(_ALL)}."
                )
                raise UsageError(f"there is no column {name!r}; {remedy}")
        self.names = None if names is None else tuple(dict.fromkeys(["input_ids", *names]))
        try:
            self.dtype = None if dtype is None else np.dtype(dtype)
        except TypeError as error:
            raise UsageError(f"dtype is {dtype!r}; give a NumPy type: {error}") from error
        if self.dtype is not None and self.dtype.kind not in "iu":
            raise UsageError(f"dtype is {self.dtype}; token ids are whole numbers.")
        if self.dtype is not None and not self.dtype.isnative:
            raise UsageError(
                f"dtype is {self.dtype}, in another byte order than this machine's; give "
                f"{self.dtype.newbyteorder('=')}."
            )

    def wants_segments(self, *, otherwise: bool) -> bool:
        """Whether the source must tell documents apart.

        Args:
            otherwise: whether it does if nobody says.
        """
        if self.names is None:
            return otherwise
        return not {*_SEGMENTS}.isdisjoint(self.names) or ("labels" in self.names and otherwise)

    @property
    def wants_documents(self) -> bool:
        """Whether the source must say which document each token is of."""
        return self.names is not None and "document_ids" in self.names

    def needed(self, stored: Collection[str]) -> list[str] | None:
        """Which of the arrays that a source has must be read; None for all.

        Raises:
            UsageError: one that is asked for is not there and does not follow from others.
        """
        if self.names is None:
            return None
        wanted = {*self.names}
        found = dict.fromkeys(["input_ids", *stored])
        for name in self.names:
            if name not in found and name not in _DERIVED:
                raise _missing(name, found)
        if "labels" in wanted:
            wanted |= {"segment_ids", "loss_mask"}
        if "loss_mask" in wanted and "loss_mask" not in stored:
            wanted.add("segment_ids")
        return [name for name in stored if name in wanted]

    def finish(self, arrays: Arrays, *, is_own: bool = False) -> Arrays:
        """What a batch holds, from what a source gave.

        Args:
            arrays: of the samples.
            is_own: whoever reads the batch may write to it: what is a read-only view is copied.
        """
        if self.names is not None and arrays.keys() != {*self.names}:
            arrays = {name: self._array(name, arrays) for name in self.names}
        if self.dtype is not None and arrays["input_ids"].dtype != self.dtype:
            arrays = arrays | {"input_ids": _cast(arrays["input_ids"], self.dtype)}
        if is_own and not all(array.flags.writeable for array in arrays.values()):
            arrays = {
                name: array if array.flags.writeable else _copy(array, array.dtype)
                for name, array in arrays.items()
            }
        return arrays

    def _array(self, name: str, arrays: Arrays) -> npt.NDArray[Any]:
        found = arrays.get(name)
        if found is not None:
            return found
        if name == "labels":
            return _labels(arrays)
        if name == "loss_mask":
            mask = empty_aligned(arrays["input_ids"].shape, np.dtype(np.bool_))
            mask[...] = True if "segment_ids" not in arrays else arrays["segment_ids"] != 0
            return mask
        raise _missing(name, arrays)


def _missing(name: str, found: Iterable[str]) -> UsageError:
    return UsageError(
        f"the samples have no {name}, only {', '.join(found)}; pack the documents with it, or "
        "leave it out of columns."
    )


def _cast(ids: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not np.can_cast(ids.dtype, dtype) and ids.size:
        bounds = np.iinfo(dtype)
        for token in (ids.min(), ids.max()):
            if not bounds.min <= token <= bounds.max:
                raise UsageError(
                    f"dtype is {dtype.name}, but there is a token {token}; choose a type that "
                    "holds it."
                )
    return _copy(ids, dtype)


def _copy(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """At an address that is a multiple of 64."""
    copied = empty_aligned(array.shape, dtype)
    copied[...] = array
    return copied


def _labels(arrays: Arrays) -> npt.NDArray[Any]:
    ids = arrays["input_ids"]
    labels = empty_aligned(ids.shape, np.dtype(np.int64 if ids.itemsize == 8 else np.int32))
    needed = {"input_ids", "segment_ids", "loss_mask"} & arrays.keys()
    flat = {name: arrays[name].reshape(-1) for name in needed}
    segments, mask = flat.get("segment_ids"), flat.get("loss_mask")
    # As if all samples were one, so that NumPy has no rows to go through; some at a time, so that
    # what is worked out for them stays in the processor's cache.
    for start in range(0, ids.size - 1, _CACHED_ITEMS):
        stop = min(start + _CACHED_ITEMS, ids.size - 1)
        found, following = labels.reshape(-1)[start:stop], slice(start + 1, stop + 1)
        found[...] = flat["input_ids"][following]
        ignored: list[npt.NDArray[np.bool_]] = []
        if segments is not None:
            ignored += [segments[following] != segments[start:stop], segments[following] == 0]
        if mask is not None:
            ignored.append(~mask[following].astype(np.bool_, copy=False))
        if ignored:
            np.copyto(found, IGNORED, where=functools.reduce(np.logical_or, ignored))
    labels[:, -1:] = IGNORED
    return labels
