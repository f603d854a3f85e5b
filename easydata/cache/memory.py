"""MemoryCache: values in the memory of this process."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from easydata._units import format_bytes, parse_bytes
from easydata.cache import clock
from easydata.cache.arguments import (
    Items,
    check_count,
    check_items,
    check_key,
    check_key_or_prefix,
    check_keys,
    check_prefix,
)
from easydata.cache.layer import CacheLayer
from easydata.cache.lru import Entry, Lru
from easydata.cache.stats import FlatStats
from easydata.cache.stored_metadata import pack, unpack
from easydata.cache.values import Frozen, freeze
from easydata.errors import UnsupportedValueError
from easydata.metadata import CacheMetadata

__all__ = ["MemoryCache", "freeze_items"]


class MemoryCache(CacheLayer):
    """The most recently used values, in memory; see `CacheLayer` for what all caches do.

    Pickling gives a new, empty cache with the same limits. A forked child has the entries of its
    parent, and from then on a cache of its own.

    >>> cache = MemoryCache(max_size=2)
    >>> cache.put_many({"a": 1, "b": [2], "c": {"ids": [3]}})
    >>> cache.keys(), cache.get("c")
    (['b', 'c'], ({'ids': [3]}, None))
    """

    def __init__(self, max_size: int = 1000, max_bytes: int | str | None = None) -> None:
        """
        Args:
            max_size: the most entries to keep, at least 1. Expired ones go first, then the least
                recently used.
            max_bytes: the most memory that keys, values and metadata may take together, as far
                as it can be estimated: a number of bytes, text such as "64MB", or None for no
                limit. A value that is larger by itself is not kept (with a warning, once).

        Raises:
            UsageError: a limit is none of those.
        """
        super().__init__()
        size = check_count(max_size, name="max_size", least=1)
        num_bytes = None if max_bytes is None else parse_bytes(max_bytes, name="max_bytes")
        self._lru = Lru(size, num_bytes, self._counters)
        self._warned_of_size = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._lru.max_size, self._lru.max_bytes)

    def put(
        self,
        key: str,
        value: Any,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        key = check_key(key)
        clock.check_expiry(expiry_seconds)
        self._write(freeze_items([(key, value)]), pack(metadata), expiry_seconds)

    def put_many(
        self,
        items: Items,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        pairs = check_items(items)
        clock.check_expiry(expiry_seconds)
        self._write(freeze_items(pairs), pack(metadata), expiry_seconds)

    def get(self, key: str) -> tuple[Any, CacheMetadata | None] | None:
        key = check_key(key)
        entry = self._lru.find(key)
        if entry is None:
            self._counters.misses += 1
            return None
        self._counters.hits += 1
        return entry.frozen.thaw(), unpack(entry.metadata)

    def get_many(self, keys: Iterable[str]) -> dict[str, tuple[Any, CacheMetadata | None]]:
        found = ((key, self.get(key)) for key in check_keys(keys))
        return {key: entry for key, entry in found if entry is not None}

    def contains(self, key: str) -> bool:
        return self._lru.peek(check_key(key)) is not None

    def get_metadata(self, key: str) -> CacheMetadata | None:
        entry = self._lru.peek(check_key(key))
        return None if entry is None else unpack(entry.metadata)

    def invalidate(self, key: str | None = None, *, prefix: str | None = None) -> None:
        key, start = check_key_or_prefix(key, prefix)
        if key is not None:
            self._lru.drop(key)
        else:
            self._lru.drop_prefix(start)

    def keys(self, prefix: str = "") -> list[str]:
        start = check_prefix(prefix)
        return sorted(key for key in self._lru.live_keys() if key.startswith(start))

    def __len__(self) -> int:
        return len(self._lru.live_keys())

    def get_table(self, key_or_keys: str | Iterable[str]) -> pa.Table:
        from easydata.cache.tables import encode_table

        keys = check_keys([key_or_keys] if isinstance(key_or_keys, str) else key_or_keys)
        items = [(key, value) for key, (value, _) in self.get_many(keys).items()]
        return encode_table(items, is_single=len(keys) == 1)

    @property
    def stats(self) -> FlatStats:
        return self._lru.stats()

    def flush(self) -> None:
        """Nothing: there is no disk."""

    def close(self) -> None:
        """Forget everything."""
        self._lru.drop_prefix("")

    def _write(
        self,
        items: Sequence[tuple[str, Frozen]],
        packed: bytes,
        expiry_seconds: float | None,
    ) -> None:
        stamp = clock.now()
        expires = clock.deadline(stamp, expiry_seconds)
        too_large = None
        for key, frozen in items:
            if self._lru.put(key, Entry(frozen, packed, expires, stamp)):
                self._counters.writes += 1
            else:
                too_large = key, frozen
        if too_large is not None and not self._warned_of_size:
            self._warned_of_size = True
            key, frozen = too_large
            warnings.warn(
                f"The value of key {key!r} takes about {format_bytes(frozen.nbytes)}, more than "
                f"max_bytes={self._lru.max_bytes} allows, and is not kept. Raise max_bytes, or "
                "use a DiskCache.",
                RuntimeWarning,
                stacklevel=3,
            )


def freeze_items(items: Sequence[tuple[str, Any]]) -> list[tuple[str, Frozen]]:
    """Snapshots of values, by key.

    Raises:
        UnsupportedValueError: one is not supported; the message names its key and the place.
    """
    frozen = []
    for key, value in items:
        try:
            frozen.append((key, freeze(value)))
        except UnsupportedValueError as error:
            raise UnsupportedValueError(f"Key {key!r}: {error}") from error
    return frozen
