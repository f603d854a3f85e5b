"""From values to entries in the log."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from easydata._units import format_bytes
from easydata.cache.log import pieces
from easydata.cache.log.growing import Group
from easydata.cache.log.store import Item, LogStore, Written
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
        batches: list[_Batch] = []
        filling: dict[Group, _Batch] = {}
        too_large = []
        order: list[_Batch | None] = []
        for key, value in items:
            encoded, group = self._encode(key, value)
            item, size = _item(key, encoded), _size(encoded)
            batch = None
            if self._limit is not None and size > self._limit:
                too_large.append(item[:2])
                self._warn(key, value, size)
            else:
                batch = filling.get(group)
                if batch is None or batch.num_bytes + size > pieces.PIECE_BYTES:
                    batch = filling[group] = _Batch(group)
                    batches.append(batch)
                batch.items.append(item)
                batch.num_bytes += size
            order.append(batch)
        for batch in batches:
            batch.written = self._append(batch, metadata, expiry_seconds)
        # What was there before must not be taken for what is too large.
        self._store.remove(too_large)
        return [(0, 0) if batch is None else batch.written for batch in order]

    def write_one(
        self, key: str, value: Any, metadata: bytes, expiry_seconds: float | None
    ) -> Written:
        """As `write` of one value, in half the time."""
        if self._limit is not None:
            return self.write([(key, value)], metadata, expiry_seconds)[0]
        encoded, group = self._encode(key, value)
        if _size(encoded) > pieces.LARGE_BYTES:
            return self.write([(key, value)], metadata, expiry_seconds)[0]
        return self._store.append(group, (_item(key, encoded),), metadata, expiry_seconds)

    def _append(self, batch: _Batch, metadata: bytes, expiry_seconds: float | None) -> Written:
        group, items = batch.group, batch.items
        if batch.num_bytes > pieces.LARGE_BYTES:  # a single item
            return self._store.append_large(group.columns, items[0], metadata, expiry_seconds)
        return self._store.append(group, items, metadata, expiry_seconds)

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


class _Batch:
    """Entries of one group that are written together.

    Attributes:
        group: for their columns.
        items: the entries; if they take more than `PIECE_BYTES`, a single one.
        num_bytes: what they take.
        written: stamp and expiry of each.
    """

    __slots__ = ("group", "items", "num_bytes", "written")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.items: list[Item] = []
        self.num_bytes = 0
        self.written: Written = (0, 0)


def _item(key: str, encoded: Encoded) -> Item:
    name = key.encode()
    return name, _hash(name), encoded.recipe, [column[2] for column in encoded.columns]


def _size(encoded: Encoded) -> int:
    size = len(encoded.recipe)
    for _, _, data in encoded.columns:
        if isinstance(data, np.ndarray):
            size += data.nbytes
        elif isinstance(data, bytes):
            size += len(data)
    return size
