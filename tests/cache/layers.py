"""Every layer of the cache, for tests of what they have in common; and a clock to set by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from easydata.cache import clock
from easydata.cache.disk import DiskCache
from easydata.cache.layer import CacheLayer
from easydata.cache.memory import MemoryCache
from easydata.cache.tree import TreeCacheManager

LAYERS: dict[str, Callable[[Path], CacheLayer]] = {
    "memory": lambda folder: MemoryCache(),
    "disk": DiskCache,
    "tree": lambda folder: TreeCacheManager(folder, disk_expiry=None),
}


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.nanoseconds = 3_000_000_000 * 10**9  # after all that was stamped before it stopped

    def now(self) -> int:
        return self.nanoseconds

    def go(self, seconds: float) -> None:
        self.nanoseconds += int(seconds * 10**9)


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the cache uses until the end of the test."""
    stopped = Clock()
    monkeypatch.setattr(clock, "now", stopped.now)
    return stopped


def first_stats(cache: CacheLayer) -> dict[str, Any]:
    """The counts of the layer that is asked first."""
    stats = cache.stats
    return stats.get("memory", stats)
