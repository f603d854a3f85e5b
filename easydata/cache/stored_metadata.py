"""CacheMetadata as the bytes that are stored with an entry, and back, exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from easydata.errors import UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata

__all__ = ["pack", "unpack"]

_MAX_DEPTH = 100
_MAX_INT_BITS = 10_000  # Python reads and writes ints of at most 4,300 digits
_MAX_PARSED = 256
_MAX_PARSED_BYTES = 4096
_ATOMS = {type(None), bool, float}
_parsed: dict[bytes, dict[str, Any]] = {}

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def pack(metadata: CacheMetadata | None) -> bytes:
    """ASCII JSON that `CacheMetadata.from_json` reads too; b"" for None.

    `extra` may hold None, bools, ints, floats (NaN and infinities too), strings, lists, and dicts
    with string keys: what JSON gives back as it was.

    Raises:
        UsageError: it is something else than a `CacheMetadata`.
        UnsupportedValueError: a field or a part of `extra` would come back changed, or not at
            all; the message names the place, such as `metadata.extra['a'][3]`.
    """
    if metadata is None:
        return b""
    if type(metadata) is not CacheMetadata:
        raise UsageError(
            f"metadata is a {type(metadata).__name__}; pass an easydata.CacheMetadata or None."
        )
    fields = dict(vars(metadata))
    if type(fields["created_at"]) not in (int, float):
        raise UsageError(
            f"metadata.created_at is {fields['created_at']!r}; give seconds since 1970."
        )
    if not isinstance(fields["extra"], Mapping):
        raise _refusal(("extra",), f"is {fields['extra']!r}; pass a dict.")
    fields["extra"] = dict(fields["extra"])
    for name, value in fields.items():
        _check(value, (name,))
    return _encode(fields).encode("ascii")


def unpack(packed: bytes) -> CacheMetadata | None:
    """The inverse of `pack`: a new object, of which nothing is shared.

    Raises:
        DatasetError: these are not bytes that `pack` gave.
    """
    if not packed:
        return None
    fields = _parsed.get(packed)
    if fields is None:
        fields = vars(CacheMetadata.from_json(packed))
        if len(packed) <= _MAX_PARSED_BYTES:
            if len(_parsed) >= _MAX_PARSED:
                _parsed.clear()
            _parsed[packed] = fields
    # The generated __init__ of a frozen class takes four times as long.
    metadata = CacheMetadata.__new__(CacheMetadata)
    own = vars(metadata)
    own.update(fields)
    extra = own["extra"]
    own["extra"] = _copy(extra) if extra else {}
    return metadata


def _copy(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if kind is list else value


def _check(value: Any, path: tuple[str | int, ...]) -> None:
    kind = type(value)
    if kind in _ATOMS:
        return
    if kind is str:
        _check_text(value, path)
    elif kind is int:
        if value.bit_length() > _MAX_INT_BITS:
            raise _refusal(path, f"is an int of more than {_MAX_INT_BITS} bits; pass a string.")
    elif len(path) > _MAX_DEPTH:
        raise _refusal(path, f"lies deeper than {_MAX_DEPTH} containers; pass something flatter.")
    elif kind is list:
        for at, item in enumerate(value):
            _check(item, (*path, at))
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise _refusal(path, f"has the key {key!r}; keys are strings. Pass str(key).")
            _check_text(key, path)
            _check(item, (*path, key))
    else:
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise _refusal(
            path,
            f"is a {name}, which JSON does not give back. "
            "Pass None, a bool, int, float, str, list, or a dict with string keys.",
        )


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise _refusal(path, f"has the string {text!r} with a lone surrogate.") from None


def _refusal(path: tuple[str | int, ...], why: str) -> UnsupportedValueError:
    field, *steps = path
    shown = "".join(f"[{step!r}]" for step in steps[:12]) + ("…" if len(steps) > 12 else "")
    return UnsupportedValueError(f"metadata.{field}{shown} {why}")
