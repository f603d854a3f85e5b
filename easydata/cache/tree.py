"""TreeCacheManager: memory over disk."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from easydata._units import parse_bytes
from easydata.cache.arguments import (
    Items,
    check_count,
    check_folder,
    check_items,
    check_key,
    check_key_or_prefix,
    check_keys,
)
from easydata.cache.clock import check_expiry
from easydata.cache.disk import DiskCache
from easydata.cache.layer import CacheLayer
from easydata.cache.log.control import LAST
from easydata.cache.lru import Entry, Lru
from easydata.cache.memory import freeze_items
from easydata.cache.stats import FlatStats
from easydata.cache.stored_metadata import pack, unpack
from easydata.cache.values import freeze
from easydata.errors import DatasetError
from easydata.metadata import CacheMetadata

__all__ = ["TreeCacheManager"]


class TreeCacheManager(CacheLayer):
    """The most recently used values in memory, all of them on disk.

    A `get` that starts after a `put` or `invalidate` returned sees it, also that of another
    process of this machine: an entry in memory is used only while the disk has no newer one.

    It is pickled by its path and options; the copy opens the same folder, with an empty memory.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        memory_size: int = 100,
        disk_expiry: float | None = 86400,
        compression: str = "none",
        *,
        memory_bytes: int | str | None = None,
        size_limit: int | str | None = None,
        format: str | None = None,
        readonly: bool = False,
        verify: str = "lazy",
    ) -> None:
        """
        Args:
            cache_dir: as for `DiskCache`.
            memory_size: the most entries to keep in memory; 0 for none.
            disk_expiry: seconds that an entry may be used, in memory too, unless its `put` says
                otherwise; None for ever.
            compression: as for `DiskCache`.
            memory_bytes: the most memory that entries may take together, as far as it can be
                estimated: a number of bytes, text such as "64MB", or None for no limit.
            size_limit: as for `DiskCache`.
            format: as for `DiskCache`.
            readonly: as for `DiskCache`.
            verify: as for `DiskCache`.

        Raises:
            UsageError: an option is none of those.
            StorageError: the folder cannot be made.
        """
        size = check_count(memory_size, name="memory_size", least=0)
        num_bytes = None
        if memory_bytes is not None:
            num_bytes = parse_bytes(memory_bytes, name="memory_bytes")
        check_expiry(disk_expiry, name="disk_expiry")
        self._disk = DiskCache(
            cache_dir,
            compression,
            disk_expiry,
            size_limit=size_limit,
            format=format,
            readonly=readonly,
            verify=verify,
        )
        self._words = self._disk.words
        super().__init__()
        self._lru = Lru(size, num_bytes, self._counters)
        self._reopen = functools.partial(
            type(self),
            check_folder(cache_dir),
            size,
            disk_expiry,
            compression,
            memory_bytes=num_bytes,
            size_limit=size_limit,
            format=format,
            readonly=readonly,
            verify=verify,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, ()

    @property
    def lock_path(self) -> Path | None:
        return self._disk.lock_path

    def put(
        self,
        key: str,
        value: Any,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        check_expiry(expiry_seconds)
        self._write([(check_key(key), value)], metadata, expiry_seconds)

    def put_many(
        self,
        items: Items,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        pairs = check_items(items)
        check_expiry(expiry_seconds)
        self._write(pairs, metadata, expiry_seconds)

    def get(self, key: str) -> tuple[Any, CacheMetadata | None] | None:
        key = check_key(key)
        # Before the disk is looked at, so that a write in between makes the entry look older.
        version = self._words[LAST]
        entry = self._lru.find(key)
        if entry is not None and entry.version == version:
            self._counters.hits += 1
        else:
            entry = self._check(key, entry, version)
        if entry is not None:
            return entry.frozen.thaw(), unpack(entry.metadata) if entry.metadata else None
        stored = self._disk.find(key)
        if stored is None:
            return None
        try:
            value = stored.value()
        except DatasetError:  # a damaged entry is a miss
            self._counters.corrupt += 1
            return None
        if self._lru.max_size:
            entry = Entry(freeze(value), stored.metadata, stored.expires, stored.stamp, version)
            self._lru.put(key, entry)
        return value, unpack(stored.metadata)

    def get_many(self, keys: Iterable[str]) -> dict[str, tuple[Any, CacheMetadata | None]]:
        """What `get` gives for each key that is there, in the order of `keys`.

        What is not in memory is read from the disk together, and does not enter the memory.
        """
        wanted = check_keys(keys)
        version = self._disk.version
        entries = {key: self._check(key, self._lru.find(key), version) for key in wanted}
        missing = [key for key, entry in entries.items() if entry is None]
        from_disk = self._disk.get_many(missing) if missing else {}
        found = {}
        for key, entry in entries.items():
            if entry is not None:
                found[key] = entry.frozen.thaw(), unpack(entry.metadata)
            elif key in from_disk:
                found[key] = from_disk[key]
        return found

    def contains(self, key: str) -> bool:
        return self._disk.contains(key)

    def get_metadata(self, key: str) -> CacheMetadata | None:
        return self._disk.get_metadata(key)

    def invalidate(self, key: str | None = None, *, prefix: str | None = None) -> None:
        key, start = check_key_or_prefix(key, prefix)
        self._disk.invalidate(key, prefix=prefix)
        if key is not None:
            self._lru.drop(key)
        else:
            self._lru.drop_prefix(start)

    def keys(self, prefix: str = "") -> list[str]:
        return self._disk.keys(prefix)

    def __len__(self) -> int:
        return len(self._disk)

    def get_table(self, key_or_keys: str | Iterable[str]) -> pa.Table:
        return self._disk.get_table(key_or_keys)

    def to_table(self, prefix: str = "") -> pa.Table:
        """As `DiskCache.to_table`."""
        return self._disk.to_table(prefix)

    def to_pandas(self, prefix: str = "") -> Any:
        """As `DiskCache.to_pandas`."""
        return self._disk.to_pandas(prefix)

    def expire(self) -> int:
        """As `DiskCache.expire`; in memory too."""
        self._lru.drop_expired()
        return self._disk.expire()

    def compact(self) -> None:
        """As `DiskCache.compact`."""
        self._disk.compact()

    def verify(self, repair: bool = False) -> list[str]:
        """As `DiskCache.verify`."""
        return self._disk.verify(repair=repair)

    @property
    def stats(self) -> dict[str, FlatStats]:
        """What was counted: `{"memory": …, "disk": …}`."""
        return {"memory": self._lru.stats(), "disk": self._disk.stats}

    def flush(self) -> None:
        self._disk.flush()

    def close(self) -> None:
        self._lru.drop_prefix("")
        self._disk.close()

    def _check(self, key: str, entry: Entry | None, version: int) -> Entry | None:
        """The entry in memory if it is the newest one; counted.

        Args:
            key: a key.
            entry: what the memory has for it.
            version: of the disk, read before that.
        """
        if entry is not None and entry.version != version:
            if self._disk.stamp(key) == entry.stamp:
                entry.version = version
            else:
                self._lru.drop(key, entry)
                entry = None
        if entry is None:
            self._counters.misses += 1
        else:
            self._counters.hits += 1
        return entry

    def _write(
        self,
        items: list[tuple[str, Any]],
        metadata: CacheMetadata | None,
        expiry_seconds: float | None,
    ) -> None:
        packed = pack(metadata)
        # Only the last ones will stay in memory; the disk refuses what it cannot hold of the rest.
        first = max(0, len(items) - self._lru.max_size)
        kept = freeze_items(items[first:])
        version = self._disk.version
        stamps = self._disk.write(items, metadata, expiry_seconds)
        self._counters.writes += len(kept)
        for (key, frozen), (stamp, expires) in zip(kept, stamps[first:], strict=True):
            self._lru.put(key, Entry(frozen, packed, expires, stamp, version))
