"""Python dicts as lines of JSON and back, with the types that JSON lacks."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from easydata.errors import BadRowError
from easydata.sources.jsonl import JsonParser

__all__ = ["RowParser", "encode_row"]

# Key of an object that stands for a value of another type: {"$easydata:bytes": "aGk="}.
_TAG = "$easydata:"
# datetime is a date too, so it comes first.
_ENCODERS: dict[str, tuple[type, Callable[[Any], str]]] = {
    "bytes": (bytes, lambda value: base64.b64encode(value).decode()),
    "datetime": (dt.datetime, lambda value: value.isoformat()),
    "date": (dt.date, lambda value: value.isoformat()),
    "time": (dt.time, lambda value: value.isoformat()),
    "decimal": (decimal.Decimal, str),
}
_DECODERS: dict[str, Callable[[str], object]] = {
    "bytes": base64.b64decode,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "decimal": decimal.Decimal,
}


@dataclass(frozen=True)
class RowParser(JsonParser):
    """Records are lines that `encode_row` wrote."""

    identity: str = "rows"

    def loads(self, text: str) -> Any:
        if _TAG in text:
            return json.loads(text, object_hook=_untagged)
        return super().loads(text)


def encode_row(row: object, names: Sequence[str] | None, where: str) -> bytes:
    """A row as a line of JSON that `RowParser` turns into an equal one.

    Args:
        row: a dict.
        names: the fields whose values are wanted; None for all. The others become null: their
            names are enough to say what a row has.
        where: of the row, for messages.

    Raises:
        BadRowError: it is no dict with string keys, or a value is of a type that cannot be kept.
    """
    if not isinstance(row, Mapping):
        raise BadRowError(f"{where} is a {type(row).__name__}, not a dict with fields.")
    wanted = set(row if names is None else names)
    plain = {
        _key(key, where): _plain(value, f"{where}: field {key!r}") if key in wanted else None
        for key, value in row.items()
    }
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item(), where)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, where) for key, item in value.items()}
    for tag, (kind, encode) in _ENCODERS.items():
        if isinstance(value, kind):
            return {_TAG + tag: encode(value)}
    raise BadRowError(
        f"{where} holds a {type(value).__name__}, which cannot be kept. "
        "Make it numbers, text, bytes, dates, lists or dicts of these."
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise BadRowError(f"{where} has the key {key!r}, which is not a string.")
    if key.startswith(_TAG):
        raise BadRowError(f"{where} has the key {key!r}; easydata keeps such names for itself.")
    return key


def _untagged(found: dict[str, Any]) -> object:
    if len(found) == 1:
        key, value = next(iter(found.items()))
        if key.startswith(_TAG):
            return _DECODERS[key.removeprefix(_TAG)](value)
    return found
