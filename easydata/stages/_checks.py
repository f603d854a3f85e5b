"""Checks on what goes into tokenizers and on what code that is not ours returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from easydata.errors import TokenizerError
from easydata.stages.base import Encoded, Ids, RowTokenizeError

__all__ = ["check_unicode", "flatten_checked", "id_list", "utf8"]

_SHOWN = 40  # characters of a value in a message


def utf8(texts: Sequence[str]) -> list[bytes]:
    """Each text in UTF-8.

    Raises:
        RowTokenizeError: a text holds a lone surrogate, which no encoding can store.
    """
    return [check_unicode(row, text) for row, text in enumerate(texts)]


def check_unicode(row: int, text: str) -> bytes:
    """Text `row` in UTF-8; raises as `utf8` does."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowTokenizeError(
            row,
            f"character {error.start} is {text[error.start]!r}, half of a surrogate pair, which "
            "is not valid Unicode text. Repair the source, or leave the row out",
        ) from error


def id_list(ids: Ids, vocab_size: int, who: str) -> list[int]:
    """The ids of one row as Python ints.

    Raises:
        TokenizerError: an id is not in the vocabulary.
    """
    found: list[int] = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
    if found and (min(found) < 0 or max(found) >= vocab_size):
        wrong = next(i for i in found if not 0 <= i < vocab_size)
        raise TokenizerError(
            f"cannot decode id {wrong}: {who} has the ids 0 to {vocab_size - 1}. "
            "Decode with the tokenizer that made the ids"
        )
    return found


def flatten_checked(result: Any, rows: int, vocab_size: int, who: str) -> Encoded:
    """One list of ids per text, as flat arrays.

    Args:
        result: what came back: a list of lists (or tuples, or 1-D arrays).
        rows: how many texts there were.
        vocab_size: the largest id + 1.
        who: the tokenizer, for messages.

    Raises:
        TokenizerError: the result is anything else, or an id is not below `vocab_size`.
    """
    if not isinstance(result, list | tuple | np.ndarray):
        raise TokenizerError(
            f"{who} returned {_describe(result)} for {rows} texts; it must return a list with "
            "one list of token ids for each text"
        )
    if len(result) != rows:
        raise TokenizerError(
            f"{who} returned {len(result)} lists for {rows} texts; it must return one for each"
        )
    for row, ids in enumerate(result):
        if not isinstance(ids, list | tuple | np.ndarray) or (
            isinstance(ids, np.ndarray) and ids.ndim != 1
        ):
            raise TokenizerError(
                f"{who} returned {_describe(ids)} for text {row}; it must be a list of token ids"
            )
    lengths = np.fromiter(map(len, result), dtype=np.int64, count=rows)
    if not lengths.sum():
        return np.empty(0, dtype=np.uint32), lengths
    try:
        flat = np.array(list(chain.from_iterable(result)))
    except (ValueError, OverflowError):  # nested lists of unequal lengths
        flat = np.empty(0)
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise TokenizerError(_first_wrong(result, vocab_size, who))
    if flat.min() < 0 or flat.max() >= vocab_size:
        raise TokenizerError(_first_wrong(result, vocab_size, who))
    return flat.astype(np.uint32), lengths


def _first_wrong(result: Iterable[Iterable[object]], vocab_size: int, who: str) -> str:
    for row, ids in enumerate(result):
        for position, item in enumerate(ids):
            where = f"{who} returned {_describe(item)} as token {position} of text {row}"
            if isinstance(item, bool) or not isinstance(item, int | np.integer):
                return f"{where}; token ids must be integers"
            if not 0 <= item < vocab_size:
                return (
                    f"{where}; its vocabulary size is {vocab_size}, so ids go from 0 to "
                    f"{vocab_size - 1}. Correct the vocabulary size, or the tokenizer"
                )
    return f"{who} returned integers of types that do not mix; return plain Python ints"


def _describe(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"
