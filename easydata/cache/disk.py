"""DiskCache: a log of Arrow tables in a folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from easydata.cache import clock, inspecting
from easydata.cache.arguments import (
    Items,
    check_folder,
    check_items,
    check_key,
    check_key_or_prefix,
    check_keys,
)
from easydata.cache.clock import check_expiry
from easydata.cache.folder_layer import FolderLayer
from easydata.cache.log.control import LAST
from easydata.cache.log.layout import NEVER
from easydata.cache.log.uses import Uses
from easydata.cache.opening import check_limit, open_store
from easydata.cache.reading import Stored
from easydata.cache.stats import FlatStats
from easydata.cache.stored_metadata import pack, unpack
from easydata.cache.writing import ValueWriter
from easydata.errors import DatasetError
from easydata.metadata import CacheMetadata

__all__ = ["DiskCache"]

_MOST_RECENT = 1 << 14  # entries whose places are remembered; each takes about 500 bytes
_UNKNOWN: Any = object()
_hash = xxhash.xxh3_64_intdigest


class DiskCache(FolderLayer):
    """Values in a folder, for all threads and processes of a machine and all later runs.

    What `put` has returned from survives the death of the process, and after `flush` a power
    failure. A `get` that starts after a `put` or `invalidate` returned sees it, in any process
    of this machine. Nothing half-written and nothing damaged is ever served.

    It is pickled by its path and options. The child of a fork may go on using it.

    Attributes:
        words: of `Control`: `words[LAST]` is `version`, for whoever looks at it in every call.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        compression: str = "none",
        expiry_seconds: float | None = None,
        *,
        size_limit: int | str | None = None,
        format: str | None = None,
        readonly: bool = False,
        verify: str = "lazy",
    ) -> None:
        """Open a folder; make it if need be.

        Args:
            cache_dir: a folder that is a cache already, empty, or not there yet.
            compression: "none", "lz4", "zstd", "zstd:LEVEL" or "gzip" (Parquet). It is applied
                when entries are sealed: once there are many, and at `close`.
            expiry_seconds: how long an entry may be used, unless its `put` says otherwise.
            size_limit: the most that all files may take: bytes, or text such as "10GB"; at least
                1 MB. What is expired, replaced, or was used least recently goes first.
            format: "ipc" (Arrow streams) or "parquet"; None for what the compression needs.
            readonly: never write; then `put` and the like raise `StorageError`.
            verify: when checksums are compared: "lazy" at first touch, "open" all of them now,
                "never".

        Raises:
            UsageError: an option is none of those, or the folder is none of this machine.
            NotADatasetError: the folder holds something else, or (readonly) no cache.
            FormatVersionError: a newer easydata wrote it.
            StorageError: the folder cannot be made or written to.
            CorruptShardError: with `verify="open"`, if something is damaged.
        """
        check_expiry(expiry_seconds)
        folder = check_folder(cache_dir)
        self._limit = check_limit(size_limit)
        self._expiry_seconds = expiry_seconds
        self._readonly = readonly
        self._store = open_store(
            folder,
            compression,
            size_limit=self._limit,
            format=format,
            readonly=readonly,
            verify=verify,
        )
        self._folder = self._store.folder
        self._uses = None
        if self._limit is not None and not readonly:
            self._uses = Uses(self._folder.uses, self._limit)
        self.words = self._store.control.words
        # What was looked up, by key, and the version for which it holds.
        self._recent: tuple[int, dict[str, tuple[Any, ...] | None]] = (-1, {})
        self._writer = ValueWriter(self._store, self._limit)
        self._malformed = 0
        super().__init__()
        self._reopen = functools.partial(
            type(self),
            folder,
            compression,
            expiry_seconds,
            size_limit=self._limit,
            format=format,
            readonly=readonly,
            verify=verify,
        )
        if verify == "open":
            inspecting.require_intact(self._store)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._folder.path)!r})"

    @property
    def lock_path(self) -> Path | None:
        return None if self._readonly else self._folder.flights

    @property
    def version(self) -> int:
        """Differs from what it was before if anybody has written to the folder since."""
        return self.words[LAST]

    # Reading

    def get(self, key: str) -> tuple[Any, CacheMetadata | None] | None:
        stored = self.find(check_key(key))
        if stored is None:
            return None
        try:
            value = stored.value()
        except DatasetError:
            self._malformed += 1
            return None
        return value, unpack(stored.metadata) if stored.metadata else None

    def get_many(self, keys: Iterable[str]) -> dict[str, tuple[Any, CacheMetadata | None]]:
        found = {}
        for key in check_keys(keys):
            result = self.get(key)
            if result is not None:
                found[key] = result
        return found

    def find(self, key: str) -> Stored | None:
        """The entry of a key that `check_key` gave, or None; counted as a hit or miss."""
        stored = self._look(key)
        if stored is None:
            self._counters.misses += 1
            return None
        self._counters.hits += 1
        if self._uses is not None:
            self._uses.mark(stored.key_hash)
        return stored

    def stamp(self, key: str) -> int | None:
        """When the entry of a key was written; None if there is none. Not counted."""
        stored = self._look(key)
        return None if stored is None else stored.stamp

    def contains(self, key: str) -> bool:
        return self._look(check_key(key)) is not None

    def get_metadata(self, key: str) -> CacheMetadata | None:
        stored = self._look(check_key(key))
        return None if stored is None else unpack(stored.metadata)

    def _look(self, key: str) -> Stored | None:
        version, recent = self._recent
        now = self.words[LAST]
        if version != now or len(recent) > _MOST_RECENT:
            # A new dict, as another thread may still be adding what it saw to the old one.
            recent = {}
            self._recent = now, recent
        parts = recent.get(key, _UNKNOWN)
        if parts is _UNKNOWN:
            stored = self._read(key)
            if stored is None or stored.is_mapped:
                recent[key] = None if stored is None else stored.parts
        else:
            stored = None if parts is None else Stored(parts)
        if stored is None:
            return None
        expires = stored.parts[2]
        if expires == NEVER or expires > clock.now():
            return stored
        self._counters.expired += 1
        recent[key] = None
        return None

    def _read(self, key: str) -> Stored | None:
        encoded = key.encode()
        hit = self._store.find(encoded, _hash(encoded))
        try:
            return None if hit is None else Stored.of(hit)
        except DatasetError:
            self._malformed += 1
            return None

    # Writing

    def put(
        self,
        key: str,
        value: Any,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        key = check_key(key)
        if expiry_seconds is None:
            expiry_seconds = self._expiry_seconds
        else:
            check_expiry(expiry_seconds)
        self._require_writable()
        packed = b"" if metadata is None else pack(metadata)
        self._writer.write_one(key, value, packed, expiry_seconds)
        self._wrote(1)

    def put_many(
        self,
        items: Items,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        self.write(check_items(items), metadata, expiry_seconds)

    def write(
        self,
        items: Sequence[tuple[str, Any]],
        metadata: CacheMetadata | None,
        expiry_seconds: float | None,
    ) -> list[tuple[int, int]]:
        """Store values by keys that `check_key` gave, each once.

        Returns:
            For each the stamp and the expiry, nanoseconds since 1970.

        Raises:
            UnsupportedValueError, UsageError, StorageError: as `put` does.
        """
        if expiry_seconds is None:
            expiry_seconds = self._expiry_seconds
        else:
            check_expiry(expiry_seconds)
        self._require_writable()
        written = self._writer.write(items, pack(metadata), expiry_seconds)
        self._wrote(len(items))
        return written

    def _wrote(self, entries: int) -> None:
        self._counters.writes += entries
        if self._store.is_overgrown():
            self._store.seal()
            self._keep_limit()

    def invalidate(self, key: str | None = None, *, prefix: str | None = None) -> None:
        key, prefix = check_key_or_prefix(key, prefix)
        self._require_writable()
        if key is not None:
            # A tombstone for what is not there would only cost space. What has expired may be
            # valid again, if the clock steps back.
            encoded = key.encode()
            names = [key] if self._store.find(encoded, _hash(encoded)) is not None else []
        elif prefix:
            names = inspecting.keys(self._store, prefix, with_expired=True)
        else:
            self._store.clear()
            return
        self._store.remove([(name.encode(), _hash(name.encode())) for name in names])

    def flush(self) -> None:
        self._store.flush()

    def close(self) -> None:
        """Seal what was put since the last time; the cache can be used on."""
        self._store.close()
        self._keep_limit()

    def get_table(self, key_or_keys: str | Iterable[str]) -> pa.Table:
        keys = check_keys([key_or_keys] if isinstance(key_or_keys, str) else key_or_keys)
        if self._uses is not None:
            for key in keys:
                self._uses.mark(_hash(key.encode()))
        return inspecting.table_of_keys(self._store, keys)

    @property
    def stats(self) -> FlatStats:
        self._counters.evictions = self._store.evicted
        self._counters.corrupt = self._store.corrupt + self._malformed
        self._counters.decode_seconds = self._store.decoded.decode_seconds
        return self._counters.flat(
            size=len(self), max_size=None, num_bytes=self._folder.num_bytes()
        )
