"""Entries in memory, of which the least recently used go first."""

from __future__ import annotations

import heapq
import os
import sys
import threading
import weakref
from collections import OrderedDict

from easydata.cache import clock
from easydata.cache.log.layout import NEVER
from easydata.cache.stats import Counters, FlatStats
from easydata.cache.values import Frozen

__all__ = ["Entry", "Lru"]

_SPARE_DEADLINES = 64  # so many that are out of date are never worth removing


class Entry:
    """A value in memory.

    Attributes:
        frozen: the value.
        metadata: packed, b"" for None.
        expires: nanoseconds since 1970, or `NEVER`.
        stamp: when it was written, nanoseconds since 1970.
        version: of the layer below, when this entry was last known to be the newest there.
    """

    __slots__ = ("expires", "frozen", "metadata", "stamp", "version")

    def __init__(
        self, frozen: Frozen, metadata: bytes, expires: int, stamp: int, version: int = 0
    ) -> None:
        self.frozen = frozen
        self.metadata = metadata
        self.expires = expires
        self.stamp = stamp
        self.version = version


class Lru:
    """At most `max_size` entries of at most `max_bytes`; safe across threads and `fork`.

    Where room is needed, expired entries go before the least recently used. Evictions and expired
    entries are counted; hits and misses are left to the caller.
    """

    def __init__(self, max_size: int, max_bytes: int | None, counters: Counters) -> None:
        """
        Args:
            max_size: entries; 0 keeps nothing.
            max_bytes: of keys, values and metadata together, estimated; None for no limit.
            counters: where to count.
        """
        self.max_size = max_size
        self.max_bytes = max_bytes
        self._counters = counters
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._deadlines: list[tuple[int, str]] = []  # a heap; some are of entries that are gone
        self._num_bytes = 0
        # Reentrant, as a signal handler or a finalizer may use the cache at any moment.
        self._lock = threading.RLock()
        _all.add(self)

    def find(self, key: str) -> Entry | None:
        """The entry of a key unless it is expired; it is the most recently used one now."""
        with self._lock:
            try:
                self._entries.move_to_end(key)
                entry = self._entries[key]
            except KeyError:
                return None
            if entry.expires != NEVER and entry.expires <= clock.now():
                self._remove(key)
                self._counters.expired += 1
                return None
            return entry

    def peek(self, key: str) -> Entry | None:
        """The entry of a key unless it is expired; the order of use stays as it is."""
        with self._lock:
            entry = self._entries.get(key)
        return entry if entry is not None and entry.expires > clock.now() else None

    def put(self, key: str, entry: Entry) -> bool:
        """Keep an entry in place of any other of its key.

        Returns:
            False if it is too large to be kept. The other one is gone even then.
        """
        size = _size(key, entry)
        with self._lock:
            self._remove(key)
            self._drop_expired()
            if not self.max_size or (self.max_bytes is not None and size > self.max_bytes):
                return False
            self._entries[key] = entry
            self._num_bytes += size
            if entry.expires != NEVER:
                heapq.heappush(self._deadlines, (entry.expires, key))
                if len(self._deadlines) > _SPARE_DEADLINES + 2 * len(self._entries):
                    self._renew_deadlines()
            # The new entry is the last to go, and fits by itself.
            while len(self._entries) > self.max_size or (
                self.max_bytes is not None and self._num_bytes > self.max_bytes
            ):
                self._remove(next(iter(self._entries)))
                self._counters.evictions += 1
            return True

    def drop(self, key: str, entry: Entry | None = None) -> None:
        """Forget the entry of a key; only if it is still `entry`, where that is given."""
        with self._lock:
            if entry is None or self._entries.get(key) is entry:
                self._remove(key)

    def drop_prefix(self, prefix: str) -> None:
        """Forget all entries whose keys begin with `prefix`."""
        with self._lock:
            for key in [key for key in self._entries if key.startswith(prefix)]:
                self._remove(key)

    def drop_expired(self) -> None:
        """Forget the entries whose time is over."""
        with self._lock:
            self._drop_expired()

    def live_keys(self) -> list[str]:
        """The keys of the entries that are not expired, the least recently used first."""
        with self._lock:
            self._drop_expired()
            return list(self._entries)

    def stats(self) -> FlatStats:
        """The counts, and what is kept now."""
        with self._lock:
            self._drop_expired()
            return self._counters.flat(
                size=len(self._entries), max_size=self.max_size, num_bytes=self._num_bytes
            )

    def start_over(self) -> None:
        """In the child of a fork: another thread may have been in the middle of a change."""
        self._lock = threading.RLock()
        self._num_bytes = sum(_size(key, entry) for key, entry in self._entries.items())
        self._renew_deadlines()

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_bytes -= _size(key, entry)

    def _drop_expired(self) -> None:
        if not self._deadlines:
            return
        now = clock.now()
        while self._deadlines and self._deadlines[0][0] <= now:
            key = heapq.heappop(self._deadlines)[1]
            entry = self._entries.get(key)
            if entry is not None and entry.expires <= now:
                self._remove(key)
                self._counters.expired += 1

    def _renew_deadlines(self) -> None:
        deadlines = [(entry.expires, key) for key, entry in self._entries.items()]
        self._deadlines = [deadline for deadline in deadlines if deadline[0] != NEVER]
        heapq.heapify(self._deadlines)


def _size(key: str, entry: Entry) -> int:
    return sys.getsizeof(key) + entry.frozen.nbytes + len(entry.metadata)


def _start_over() -> None:
    for lru in list(_all):
        lru.start_over()


_all: weakref.WeakSet[Lru] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
