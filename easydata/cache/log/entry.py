"""What a cache records for a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Entry"]


class Entry(NamedTuple):
    """A key, its value as its codec gives it, and what the cache records.

    Attributes:
        key: UTF-8.
        key_hash: XXH3-64 of `key`.
        stamp: nanoseconds since 1970; later entries of a key have greater ones.
        expires: nanoseconds since 1970, or `NEVER`.
        metadata: UTF-8; empty if there is none.
        recipe: UTF-8; how the value is made from its columns.
        data: for each column that has offsets its bytes, for each other column its number.
    """

    key: bytes
    key_hash: int
    stamp: int
    expires: int
    metadata: bytes
    recipe: bytes
    data: Sequence[Any]
