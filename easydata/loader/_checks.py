"""Checks of arguments that several modules of the loader share."""

from __future__ import annotations

import operator
import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError

__all__ = [
    "check_count",
    "check_flag",
    "check_lengths",
    "check_numbers",
    "check_pad_token_id",
    "check_runs",
    "check_seed",
    "check_shuffle",
    "has_all",
    "memory_bytes",
    "whole_number",
]

_MAX_TOKENS = 1 << 62


def whole_number(value: Any) -> int | None:
    """The value as `int` if it is a whole number of any type, NumPy's too; else None.

    Truth values are no numbers here.

    >>> whole_number(np.uint8(7)), whole_number(7.0), whole_number(True)
    (7, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_count(value: object, name: str, *, least: int = 1) -> int:
    """The value as `int`.

    Raises:
        UsageError: it is no whole number, or below `least`.
    """
    found = whole_number(value)
    if found is None or found < least:
        raise UsageError(f"{name} is {value!r}; it must be a whole number from {least} up.")
    return found


def check_flag(value: object, name: str) -> bool:
    """The value as `bool`.

    Raises:
        UsageError: it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} is {value!r}; it must be True or False.")
    return bool(value)


def memory_bytes() -> int:
    """How much memory the machine has."""
    if not hasattr(os, "sysconf"):  # Windows does not say it so simply
        return 1 << 62
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_shuffle(shuffle: object) -> bool | Literal["block"]:
    """The value as `bool` or "block".

    Raises:
        UsageError: it is neither.
    """
    if isinstance(shuffle, str) and shuffle == "block":
        return "block"
    if not isinstance(shuffle, bool | np.bool_):
        raise UsageError(f"shuffle is {shuffle!r}; choose True, 'block' or False.")
    return bool(shuffle)


def check_seed(seed: object) -> int:
    """The seed as `int`.

    Raises:
        UsageError: it is no whole number from 0 to 2^64 - 1.
    """
    found = whole_number(seed)
    if found is None or not 0 <= found < 1 << 64:
        raise UsageError(f"seed is {seed!r}; it must be a whole number from 0 to 2^64 - 1.")
    return found


def check_pad_token_id(pad_token_id: object, dtype: np.dtype[Any]) -> int:
    """The pad id as `int`.

    Raises:
        UsageError: it is not a whole number that `dtype` can hold.
    """
    found = check_count(pad_token_id, "pad_token_id", least=0)
    if found > np.iinfo(dtype).max:
        raise UsageError(
            f"pad_token_id is {found}, but the tokens are stored as {dtype.name}, which ends at "
            f"{np.iinfo(dtype).max}; choose a smaller id or build with a wider token type."
        )
    return found


def check_lengths(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """int64[documents]: the lengths of documents, not copied if they have this type already.

    Raises:
        UsageError: they are no whole numbers in one dimension, one is negative, or they add up to
            more than 2^62.
    """
    try:
        given = np.asarray(lengths)
    except ValueError as error:  # lists of several lengths
        raise UsageError(
            f"the lengths are no array: {error}; give one whole number each."
        ) from None
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise UsageError(
            f"the lengths are {given.dtype.name} in {given.ndim} dimensions; give one whole "
            "number per document."
        )
    if len(given) and given.min() < 0:
        document = int(given.argmin())
        raise UsageError(f"document {document} has length {given[document]}; lengths start at 0.")
    total = given.sum(dtype=np.float64)  # which cannot wrap
    if total > _MAX_TOKENS:
        raise UsageError(f"the lengths add up to about {total:.3g}; at most 2^62 can be packed.")
    return given.astype(np.int64, copy=False)


def check_numbers(numbers: npt.NDArray[np.integer[Any]], count: int, what: str) -> None:
    """Refuse numbers outside 0 to `count`.

    Raises:
        IndexError: one is outside; the message calls it `what`.
    """
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        bad = numbers[(numbers < 0) | (numbers >= count)][0]
        raise IndexError(f"{what} {bad} of {count}")


def has_all(value: object, *names: str) -> bool:
    """True if the value has all these attributes."""
    return all(hasattr(value, name) for name in names)


def check_runs(
    starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int, num_tokens: int
) -> None:
    """Refuse runs that do not lie within a stream of tokens.

    Raises:
        IndexError: one does not.
        UsageError: the numbers are not int64.
    """
    for name, numbers in (("starts", starts), ("lengths", lengths)):
        if not isinstance(numbers, int | np.integer) and numbers.dtype != np.int64:
            raise UsageError(f"the {name} of runs are {numbers.dtype}; give int64.")
    if not len(starts):
        return
    # In unsigned numbers, what is negative becomes huge.
    room = np.subtract(num_tokens, lengths)
    is_wrong = (np.min(room) < 0) | (np.max(room) > num_tokens)
    if is_wrong or (starts.view(np.uint64) > np.asarray(room).view(np.uint64)).any():
        bad = int(np.flatnonzero((starts < 0) | (starts > room) | (room > num_tokens))[0])
        length = np.broadcast_to(lengths, starts.shape)[bad]
        raise IndexError(f"{length} tokens from {starts[bad]} on, of {num_tokens}")
