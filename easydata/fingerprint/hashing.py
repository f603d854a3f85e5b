"""Deterministic identities of content: the same in every process, on every machine.

All are XXH3-128 (128 bits: two different contents meet with odds of 1 in 2^64 after about
2^32 contents), written as 32 lower-case hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Hasher", "fingerprint_bytes", "fingerprint_json", "fingerprint_strings"]

Hasher = xxhash.xxh3_128


def fingerprint_bytes(data: Buffer) -> str:
    """Identity of a run of bytes."""
    return Hasher(data).hexdigest()


def fingerprint_json(value: object) -> str:
    """Identity of a JSON value, independent of the order of the keys in its objects.

    Raises:
        TypeError: the value holds something that JSON cannot, or a key that is not a string.
    """
    _check_keys(value)
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    return fingerprint_bytes(text.encode("ascii"))


def fingerprint_strings(values: Iterable[str]) -> str:
    """Identity of a sequence of strings; their order counts."""
    return fingerprint_json(list(values))


def _check_keys(value: object) -> None:
    # json.dumps turns {1: x} into {"1": x}: two different values would share one identity.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not a string")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)
