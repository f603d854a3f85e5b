"""Checks of the arguments that every way of packing shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError

__all__ = ["check_count", "check_lengths", "check_pad_id", "check_samples"]


def check_count(value: object, name: str) -> None:
    """Refuse what is not a whole number from 1 up.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is {value!r}; it must be a whole number from 1 up.")


def check_pad_id(pad_id: object, dtype: np.dtype[Any]) -> None:
    """Refuse a pad id that is no token id of this type.

    Raises:
        UsageError: it is not a whole number that `dtype` can hold.
    """
    if isinstance(pad_id, bool) or not isinstance(pad_id, int) or pad_id < 0:
        raise UsageError(f"pad_token_id is {pad_id!r}; it must be a whole number from 0 up.")
    if pad_id > np.iinfo(dtype).max:
        raise UsageError(
            f"pad_token_id is {pad_id}, but the tokens are stored as {dtype.name}, which ends at "
            f"{np.iinfo(dtype).max}; choose a smaller id or build with a wider token type."
        )


def check_lengths(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """int64[documents]: the lengths of documents, not copied if they have this type already.

    Raises:
        UsageError: they are no whole numbers in one dimension, or one is negative.
    """
    given = np.asarray(lengths)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise UsageError(
            f"the lengths are {given.dtype.name} in {given.ndim} dimensions; give one whole "
            "number per document."
        )
    found = given.astype(np.int64, copy=False)
    if len(found) and found.min() < 0:
        document = int(found.argmin())
        raise UsageError(f"document {document} has length {found[document]}; lengths start at 0.")
    return found


def check_samples(samples: npt.NDArray[np.int64], num_samples: int) -> None:
    """Refuse sample numbers outside 0 to `num_samples`.

    Raises:
        IndexError: one is outside.
    """
    if len(samples) and (samples.min() < 0 or samples.max() >= num_samples):
        bad = samples[(samples < 0) | (samples >= num_samples)][0]
        raise IndexError(f"sample {bad} of {num_samples}")
