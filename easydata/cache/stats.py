"""What a layer counts."""

from __future__ import annotations

__all__ = ["Counters", "FlatStats"]

FlatStats = dict[str, int | float | None]


class Counters:
    """Counts of one layer since it was opened, in this process.

    Attributes:
        hits, misses: of `get` and `get_many`, one for each key.
        evictions: entries removed to keep within a limit.
        expired: entries removed because their time was over.
        corrupt: entries whose bytes were not those that were written.
        writes: entries written.
        wait_seconds: time spent waiting for somebody else's computation.
        decode_seconds: time spent making values out of stored bytes.
    """

    __slots__ = (
        "corrupt",
        "decode_seconds",
        "evictions",
        "expired",
        "hits",
        "misses",
        "wait_seconds",
        "writes",
    )

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.expired = 0
        self.corrupt = 0
        self.writes = 0
        self.wait_seconds = 0.0
        self.decode_seconds = 0.0

    def flat(self, *, size: int, max_size: int | None, num_bytes: int) -> FlatStats:
        """The counts and what a layer holds now, by the names that users see.

        Args:
            size: entries.
            max_size: the most entries that it keeps; None for no limit.
            num_bytes: what they take.
        """
        asked = self.hits + self.misses
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hits / asked if asked else 0.0,
            "size": size,
            "max_size": max_size,
            "bytes": num_bytes,
            "evictions": self.evictions,
            "expired": self.expired,
            "corrupt": self.corrupt,
            "writes": self.writes,
            "wait_seconds": self.wait_seconds,
            "decode_seconds": self.decode_seconds,
        }
