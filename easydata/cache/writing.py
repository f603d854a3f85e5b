"""From values to entries in the log."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from easydata._units import format_bytes
from easydata.cache.log.store import Group, Item, LogStore, Written
from easydata.cache.values import Encoded, encode, encode_whole, stored_type
from easydata.errors import UnsupportedValueError

__all__ = ["ValueWriter"]

_MOST_RECIPES = 4096
_hash = xxhash.xxh3_64_intdigest


class ValueWriter:
    """Encodes values and appends them to the segment for their columns."""

    def __init__(self, store: LogStore, size_limit: int | None) -> None:
        """
        Args:
            store: where to.
            size_limit: a larger value is not kept; None for no limit.
        """
        self._store = store
        self._limit = size_limit
        self._groups: dict[bytes, Group | None] = {}
        self._warned = False

    def write(
        self, items: Sequence[tuple[str, Any]], metadata: bytes, expiry_seconds: float | None
    ) -> list[Written]:
        """Store values, all with the same metadata and time to live.

        Returns:
            For each the stamp and the expiry, nanoseconds since 1970; zeros if it was too large.

        Raises:
            UnsupportedValueError: nothing was written.
            StorageError: some were not written.
        """
        groups: dict[Group, list[Item]] = {}
        too_large = []
        order: list[Group | None] = []
        for key, value in items:
            encoded, group = self._encode(key, value)
            name = key.encode()
            item = name, _hash(name), encoded.recipe, [column[2] for column in encoded.columns]
            if self._limit is not None and _size(encoded) > self._limit:
                too_large.append(item[:2])
                order.append(None)
                self._warn(key, value, _size(encoded))
            else:
                groups.setdefault(group, []).append(item)
                order.append(group)
        written: dict[Group | None, Written] = {None: (0, 0)}
        for group, some in groups.items():
            written[group] = self._store.append(group, some, metadata, expiry_seconds)
        # What was there before must not be taken for what is too large.
        self._store.remove(too_large)
        return [written[found] for found in order]

    def write_one(
        self, key: str, value: Any, metadata: bytes, expiry_seconds: float | None
    ) -> Written:
        """As `write` of one value, in half the time."""
        if self._limit is not None:
            return self.write([(key, value)], metadata, expiry_seconds)[0]
        encoded, group = self._encode(key, value)
        name = key.encode()
        item = name, _hash(name), encoded.recipe, [column[2] for column in encoded.columns]
        return self._store.append(group, (item,), metadata, expiry_seconds)

    def _encode(self, key: str, value: Any) -> tuple[Encoded, Group]:
        try:
            encoded = encode(value)
            group = self._groups.get(encoded.recipe) or self._group(encoded)
            if group is None:
                encoded = encode_whole(value)
                group = self._group(encoded)
        except UnsupportedValueError as error:
            raise UnsupportedValueError(f"Key {key!r}: {error}") from error
        assert group is not None  # there is always room for those without columns of their own
        return encoded, group

    def _group(self, encoded: Encoded) -> Group | None:
        """The segments for such values; None if there is no room for their columns.

        Columns follow from the recipe.
        """
        columns = tuple((name, stored_type(kind)) for name, kind, _ in encoded.columns)
        group = self._store.group(columns)
        if len(self._groups) >= _MOST_RECIPES:
            self._groups.clear()
        self._groups[encoded.recipe] = group
        return group

    def _warn(self, key: str, value: Any, size: int) -> None:
        if not self._warned:
            self._warned = True
            assert self._limit is not None
            warnings.warn(
                f"The {type(value).__name__} of key {key!r} takes {format_bytes(size)} and is "
                f"not kept: size_limit is {format_bytes(self._limit)}.",
                RuntimeWarning,
                stacklevel=5,
            )


def _size(encoded: Encoded) -> int:
    size = len(encoded.recipe)
    for _, _, data in encoded.columns:
        if isinstance(data, np.ndarray):
            size += data.nbytes
        elif isinstance(data, bytes):
            size += len(data)
    return size
