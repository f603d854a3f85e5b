"""What lies in a cache folder: entry by entry, and as a whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from easydata.cache import clock
from easydata.cache.inspecting import live, problems
from easydata.cache.log.census import newest
from easydata.cache.log.layout import NEVER
from easydata.cache.log.segment import Segment
from easydata.cache.log.store import LogStore
from easydata.cache.stored_metadata import unpack
from easydata.metadata import CacheMetadata

__all__ = ["EntryInfo", "Overview", "list_entries", "overview", "remove_older"]


class EntryInfo(NamedTuple):
    """What is recorded of an entry.

    Attributes:
        key: its key.
        written: when, seconds since 1970.
        expires: when, seconds since 1970; None for never.
        num_bytes: of its key, metadata and value, before compression; numbers that lie in a
            column of fixed width are not counted.
        metadata: what it was made from, if that is known.
    """

    key: str
    written: float
    expires: float | None
    num_bytes: int
    metadata: CacheMetadata | None


@dataclass(frozen=True)
class Overview:
    """A cache folder in numbers.

    Attributes:
        entries: that can be found.
        expired: entries whose time is over, and which still take space.
        bytes: of all files.
        segments: files of entries, growing ones included.
        growing: those to which a process appends, or which it left so when it died.
        codecs: how many sealed segments have which compression and file format, such as
            `{"zstd ipc": 2}`; that of the newest comes first.
        damage: one line for each damaged file.
        oldest, newest: when the first and the last of the entries was written, seconds since
            1970; None if there is none.
    """

    entries: int
    expired: int
    bytes: int
    segments: int
    growing: int
    codecs: dict[str, int]
    damage: list[str]
    oldest: float | None
    newest: float | None


def list_entries(store: LogStore, prefix: str) -> list[EntryInfo]:
    """All entries that can be found and whose keys begin with `prefix`, sorted by key."""
    census, current = live(store)
    found = []
    # In the order of the log, so that a compressed block is decoded once; then by key.
    for index in current.tolist():
        view, row = census.locate(index)
        key = bytes(view[slice(*row.key)]).decode()
        if key.startswith(prefix):
            expires = None if row.expires == NEVER else row.expires / 1e9
            metadata = unpack(bytes(view[slice(*row.metadata)]))
            found.append(EntryInfo(key, row.stamp / 1e9, expires, row.size, metadata))
    return sorted(found, key=lambda entry: entry.key)


def overview(store: LogStore) -> Overview:
    """The folder in numbers. Everything in it is read."""
    segments = store.segments()
    census, current = live(store)
    stamps = census.stamps[current]
    last = newest(census, ())
    expired = ~census.is_tombstone[last] & (census.stamps[last] > store.cleared)
    expired &= census.expires[last] <= clock.now()
    sealed = [segment for segment in segments if segment.is_sealed]
    return Overview(
        entries=len(stamps),
        expired=int(np.count_nonzero(expired)),
        bytes=store.folder.num_bytes(),
        segments=len(segments),
        growing=len(segments) - len(sealed),
        codecs=dict(Counter(map(_codec, sealed))),
        damage=problems(store),
        oldest=stamps.min() / 1e9 if len(stamps) else None,
        newest=stamps.max() / 1e9 if len(stamps) else None,
    )


def remove_older(store: LogStore, seconds: float) -> int:
    """Compact, without the entries that were written more than so many seconds ago.

    Those in segments to which other processes still append stay.

    Returns:
        How many were removed, without those that had expired.

    Raises:
        StorageError: nothing has changed.
    """
    first = clock.now() - int(min(seconds * 1e9, clock.now()))
    with store.upkeep() as upkeep:
        return upkeep.drop(lambda census, current: census.stamps[current] < first).dropped


def _codec(segment: Segment) -> str:
    file_format = "parquet" if segment.path.suffix == ".parquet" else "ipc"
    return f"{segment.kind.compression} {file_format}"
