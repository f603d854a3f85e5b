"""The integer types that token ids are stored in."""

from __future__ import annotations

from typing import Any

import numpy as np

from easydata.errors import UsageError

__all__ = ["TOKEN_DTYPES", "choose_dtype"]

TOKEN_DTYPES = ("uint8", "uint16", "uint32", "int32", "int64")


def choose_dtype(vocab_size: int, dtype: str = "auto") -> np.dtype[Any]:
    """The type to store the ids of a vocabulary in.

    Args:
        vocab_size: the largest id + 1.
        dtype: one of `TOKEN_DTYPES`, or "auto": uint16 where every id fits, else uint32. A type
            that is too small for the vocabulary is allowed, as it may fit the ids that occur.

    Raises:
        UsageError: another type.

    >>> choose_dtype(65_536), choose_dtype(65_537), choose_dtype(100, "int32")
    (dtype('uint16'), dtype('uint32'), dtype('int32'))
    """
    if dtype == "auto":
        return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    if dtype not in TOKEN_DTYPES:
        raise UsageError(
            f"dtype {dtype!r} is no type for token ids. Use auto, {', '.join(TOKEN_DTYPES)}"
        )
    return np.dtype(dtype)
