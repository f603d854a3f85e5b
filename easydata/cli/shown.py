"""Cached values on a screen: as a few words, as lines, as JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.errors import UsageError

__all__ = ["as_json", "printable", "summary", "text_lines"]

_ITEMS = 8
_CHARACTERS = 1000
_FIELDS = 6
_WIDTH = 60


def printable(text: str) -> str:
    """A name as it is, or as Python writes it if it would do something to a terminal."""
    return text if text.isprintable() else repr(text)


def summary(value: Any) -> str:
    """What a value is, without what is in it.

    >>> summary({"ids": np.zeros(3, np.uint16), "text": "abc"})
    '{ids: uint16[3], text: str}'
    """
    if isinstance(value, dict):
        shown = [
            f"{_cut(printable(key))}: {_kind(item)}" for key, item in list(value.items())[:_FIELDS]
        ]
        return "{" + ", ".join(shown + ["…"] * (len(value) > _FIELDS)) + "}"
    return _kind(value)


def text_lines(value: Any) -> Iterator[str]:
    """A value for people, long arrays and texts cut; a dict has a line for each field.

    >>> list(text_lines({"ids": np.arange(20, dtype=np.uint16), "n": 3}))
    ['ids: uint16[20] 0 1 2 3 4 5 6 7 …', 'n: 3']
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield f"{printable(key)}: {_shown(item)}"
    else:
        yield _shown(value)


def as_json(value: Any, key: str) -> Any:
    """What `json.dumps` takes: arrays and tuples as lists, times as text, tables as lists of rows.

    Raises:
        UsageError: some part has no form in JSON; the message names `key` and the place.
    """
    return _plain(value, f"The value of {key!r}")


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, bool | str | int) or type(value) is float:
        if type(value) is float and not np.isfinite(value):
            raise UsageError(f"{place} is {value}, which JSON does not have. Leave out --json.")
        return value
    if isinstance(value, dict):
        return {name: _plain(item, f"{place}[{name!r}]") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return _plain(value.tolist(), place)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        return _plain(value.to_pylist(), place)
    if hasattr(value, "to_dict"):  # a DataFrame
        return _plain(value.to_dict("records"), place)
    raise UsageError(f"{place} is of type {type(value).__name__}, which JSON does not have.")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, list | tuple | dict):
        return f"{type(value).__name__}[{len(value)}]"
    if isinstance(value, pa.Table | pa.RecordBatch) or hasattr(value, "to_dict"):
        return f"{type(value).__name__}[{', '.join(map(str, value.shape))}]"
    return type(value).__name__


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        items = value.reshape(-1)[:_ITEMS].tolist()
        more = " …" if value.size > _ITEMS else ""
        return f"{_kind(value)} {' '.join(map(str, items))}{more}".rstrip()
    text = repr(value) if not isinstance(value, pa.Table | pa.RecordBatch) else str(value)
    rest = len(text) - _CHARACTERS
    return text if rest <= 0 else f"{text[:_CHARACTERS]} … ({rest:,} more characters)"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
