"""FolderLayer: what one does with a cache folder as a whole."""

from __future__ import annotations

import errno
from typing import Any

import pyarrow as pa

from easydata._optional import require
from easydata._units import parse_bytes
from easydata.cache import inspecting, listing
from easydata.cache.arguments import check_prefix
from easydata.cache.clock import check_age
from easydata.cache.eviction import evict
from easydata.cache.layer import CacheLayer
from easydata.cache.listing import EntryInfo, Overview
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.store import LogStore
from easydata.cache.log.uses import Uses
from easydata.errors import StorageError

__all__ = ["FolderLayer"]


class FolderLayer(CacheLayer):
    """A layer in a folder: upkeep, and looking at all entries."""

    _folder: CacheFolder
    _store: LogStore
    _uses: Uses | None
    _limit: int | None
    _readonly: bool

    def expire(self) -> int:
        """Remove expired entries from the disk; how many there were.

        Raises:
            StorageError: the folder is read-only, or the disk is full.
        """
        self._require_writable()
        with self._store.upkeep() as upkeep:
            return upkeep.expire().expired

    def compact(self) -> None:
        """Rewrite everything so that it takes the least space and is read fastest.

        What is replaced, deleted or expired is gone from the disk, entries that were put one by
        one lie together, and the compression of this object holds for all. Readers are not
        disturbed. Segments that other processes still append to are left as they are.

        Raises:
            StorageError: the folder is read-only, or the disk has no room for the new files
                beside the old ones; nothing has changed.
        """
        self._require_writable()
        with self._store.upkeep() as upkeep:
            upkeep.compact()

    def shrink(self, max_bytes: int | str) -> int:
        """Remove the least recently used entries until all files take at most so much.

        Returns:
            How many were removed, without those that had expired.

        Raises:
            StorageError: as `compact`.
        """
        self._require_writable()
        return evict(self._store, self._uses, parse_bytes(max_bytes, name="max_bytes"))

    def verify(self, repair: bool = False) -> list[str]:
        """Read everything and compare it with what was written.

        Args:
            repair: rewrite what is damaged without the entries that are lost. The files as they
                were are kept beside the cache as `damaged-…`, until everything is invalidated.

        Returns:
            One line for each damaged file; none if all is well.

        Raises:
            StorageError: the folder is read-only, or full, and should be repaired.
        """
        problems = inspecting.problems(self._store)
        if repair and problems:
            self._require_writable()
            with self._store.upkeep() as upkeep:
                upkeep.compact()
        return problems

    def keys(self, prefix: str = "") -> list[str]:
        return inspecting.keys(self._store, check_prefix(prefix))

    def __len__(self) -> int:
        return inspecting.count(self._store)

    def to_table(self, prefix: str = "") -> pa.Table:
        """All entries, or those whose keys begin with `prefix`: a row for each.

        The column `key` comes first, then the columns of the values as `get_table` has them; a
        value's own field `key` is the column `value.key`. The rows are in the order of the log:
        what was put together stands together. Columns of one batch view the file.
        """
        return inspecting.table(self._store, check_prefix(prefix))

    def to_pandas(self, prefix: str = "") -> Any:
        """`to_table` as a DataFrame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        require("pandas", extra="pandas", purpose="to_pandas")
        return self.to_table(prefix).to_pandas()

    def entries(self, prefix: str = "") -> list[EntryInfo]:
        """What is recorded of the entries whose keys begin with `prefix`, sorted by key."""
        return listing.list_entries(self._store, check_prefix(prefix))

    def overview(self) -> Overview:
        """The folder in numbers, for which everything in it is read and checked."""
        return listing.overview(self._store)

    def remove_older(self, seconds: float) -> int:
        """`compact`, without entries written longer ago than that; how many were removed.

        Raises:
            UsageError: `seconds` is no number above 0.
            StorageError: as `compact`.
        """
        check_age(seconds)
        self._require_writable()
        return listing.remove_older(self._store, seconds)

    def _require_writable(self) -> None:
        if self._readonly:
            raise StorageError(
                errno.EROFS,
                f"{self._folder.path} was opened with readonly=True. Open it without to write.",
            )

    def _keep_limit(self) -> None:
        if self._limit is None or self._readonly:
            return
        if self._folder.num_bytes() > self._limit:
            evict(self._store, self._uses, self._limit)
