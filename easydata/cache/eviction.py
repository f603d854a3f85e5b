"""Which entries have to go so that a folder keeps within its limit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from easydata.cache.log.census import Census
from easydata.cache.log.store import LogStore
from easydata.cache.log.uses import Uses

__all__ = ["evict", "least_used"]

_FULL = 0.8  # of the limit: what is kept, so that not every seal has to evict
_ENTRY_BYTES = 64  # beside its data: its stamps, offsets, and place in the table


def evict(store: LogStore, uses: Uses | None, max_bytes: int) -> int:
    """Compact, without the entries that were used least recently.

    Args:
        store: where they are.
        uses: when they were used; None if only known is when they were written.
        max_bytes: what all files of the folder should take.

    Returns:
        How many were removed, without those that had expired.

    Raises:
        StorageError: nothing has changed.
    """

    def choose(census: Census, current: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        used = census.stamps[current]
        if uses is not None:
            used = np.maximum(used, uses.last(census.hashes[current]))
        return least_used(census, current, used, max_bytes, store.folder.num_bytes())

    with store.upkeep() as upkeep:
        return upkeep.drop(choose).dropped


def least_used(
    census: Census,
    current: npt.NDArray[np.int64],
    used: npt.NDArray[np.int64],
    max_bytes: int,
    now_bytes: int,
) -> npt.NDArray[np.bool_]:
    """bool[m]: the entries that were used least recently, of those that count.

    Args:
        census: of the segments that are rewritten.
        current: int64[m]: the entries of it that count.
        used: int64[m]: when each was used last, nanoseconds since 1970.
        max_bytes: what all files of the folder should take.
        now_bytes: what they take now.
    """
    files = sum(segment.blocks.num_bytes for segment in census.segments)
    sizes = census.sizes + _ENTRY_BYTES
    per_byte = min(files / max(int(sizes.sum()), 1), 1.0)  # compression; a log has wide margins
    room = _FULL * max_bytes - max(now_bytes - files, 0)
    order = np.argsort(-used, kind="stable")
    ends = np.cumsum(sizes[current][order] * per_byte)
    drop = np.zeros(len(current), np.bool_)
    drop[order[ends > room]] = True
    if len(current):  # what was written last fits by itself, and stays
        drop[np.argmax(census.stamps[current])] = False
    return drop
