"""The files of a cache folder: which are there, and whether the folder is a cache at all.

    easydata-cache.json      the marker: format version, and up to which stamp all was cleared
    easydata-cache.control   see `control`
    easydata-cache.lock      single flight, see `flight`
    easydata-cache.merging   held by whoever merges segments
    easydata-cache.uses      when entries were used last, if there is a size limit
    log-STAMP-ID.arrow       a growing segment, or one whose writer died; -.table: see `segment`
    seg-STAMP-ID.arrow       a sealed segment, or .parquet; its entries are older than STAMP
    easydata-cache.retired-… names of segments that are being deleted, and do not count
    damaged-…                bytes that were not those that were written, kept for inspection

All lie flat in the folder. Names of entries never become names of files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from easydata._fs import is_temporary, publish_bytes, storage_errors, sync_directory
from easydata.cache.log import locks
from easydata.errors import FormatVersionError, NotADatasetError

__all__ = ["CacheFolder"]

FORMAT = 1
_PREFIX = "easydata-cache"
_RETIRED = f"{_PREFIX}.retired-"
_SUFFIXES = {".arrow", ".parquet"}


class CacheFolder:
    """Paths and names in the folder of a cache.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        """Check the folder; make it and its marker if need be.

        Raises:
            NotADatasetError: it holds something else, or (to read only) nothing.
            FormatVersionError: it was written by a newer version.
            StorageError: it cannot be made.
        """
        self.path = path
        if not self._is_marked():
            if readonly:
                raise NotADatasetError(f"{path} is not a cache: it has no {self._marker.name}.")
            self._refuse_what_is_not_ours()
            with storage_errors(path):
                path.mkdir(parents=True, exist_ok=True)
            self.write_cleared(0)

    @property
    def control(self) -> Path:
        return self.path / f"{_PREFIX}.control"

    @property
    def flights(self) -> Path:
        return self.path / f"{_PREFIX}.lock"

    @property
    def merging(self) -> Path:
        return self.path / f"{_PREFIX}.merging"

    @property
    def uses(self) -> Path:
        return self.path / f"{_PREFIX}.uses"

    @property
    def _marker(self) -> Path:
        return self.path / f"{_PREFIX}.json"

    def read_cleared(self) -> int:
        """Entries with this stamp or an older one do not exist."""
        return int(self._read_marker()["cleared"])

    def write_cleared(self, stamp: int) -> None:
        """Let entries with this stamp or an older one not exist.

        Raises:
            StorageError: the marker cannot be written.
        """
        values = {"format": FORMAT, "cleared": stamp, "checksum": _checksum(stamp)}
        publish_bytes(self._marker, json.dumps(values).encode())
        sync_directory(self.path)

    def segments(self) -> dict[str, Path]:
        """Name and data file of each segment."""
        names = sorted(self._names())
        gone: set[str] = set()
        for name in names:
            if name.startswith(_RETIRED):
                with contextlib.suppress(FileNotFoundError):
                    gone.update(json.loads((self.path / name).read_bytes()))
        return {
            Path(name).stem: self.path / name
            for name in names
            if name.startswith(("log-", "seg-"))
            and Path(name).suffix in _SUFFIXES
            and name not in gone
        }

    def new_name(self, kind: str, stamp: int) -> str:
        """The name of a new segment: "log" grows, "seg" is sealed."""
        return f"{kind}-{stamp:016x}-{os.urandom(8).hex()}"

    def table(self, name: str) -> Path:
        """The table of a segment."""
        return self.path / f"{name}.table"

    def num_bytes(self) -> int:
        """Size on the disk of all files of the cache; what is reserved and not written is none."""
        total = 0
        with storage_errors(self.path, "list"), os.scandir(self.path) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        total += min(status.st_size, 512 * getattr(status, "st_blocks", 1 << 53))
        return total

    def retire(self, gone: Sequence[Path], *, aside: Sequence[Path] = ()) -> None:
        """Delete segments, all at once: either all are there or none. Readers of theirs read on.

        One of them may hold what another of them deletes, so no order would be right.

        Args:
            gone: their data files.
            aside: data files to be kept under another name, for inspection.
        """
        names = [path.name for path in (*gone, *aside)]
        if not names:
            return
        record = self.path / f"{_RETIRED}{os.urandom(8).hex()}.json"
        publish_bytes(record, json.dumps(names).encode())
        sync_directory(self.path)
        for path in aside:
            with storage_errors(path, "rename"), contextlib.suppress(FileNotFoundError):
                path.replace(path.with_name(f"damaged-{path.name}"))
        self._finish(record)

    def _finish(self, record: Path) -> None:
        for name in json.loads(record.read_bytes()):
            for path in (self.path / name, self.table(Path(name).stem)):
                with storage_errors(path, "delete"), contextlib.suppress(FileNotFoundError):
                    path.unlink()
        with storage_errors(record, "delete"):
            record.unlink()

    def remove_damaged(self) -> None:
        """Delete what was kept for inspection."""
        for path in self.path.glob("damaged-*"):
            with storage_errors(path, "delete"), contextlib.suppress(FileNotFoundError):
                path.unlink()

    def sweep(self) -> None:
        """Delete what killed processes left unfinished. Call only while holding `merging`."""
        for name in self._names():
            path = self.path / name
            if name.startswith(_RETIRED):
                self._finish(path)
                continue
            with contextlib.suppress(OSError):
                # Files under temporary names belong to segments, whose writers lock them, or to
                # markers: two processes that open a new folder both write one.
                if is_temporary(name):
                    if not name.endswith(self._marker.name):
                        locks.delete_unlocked(path)
                elif path.suffix == ".table" and not self._has_data(path.stem):
                    path.unlink()

    def _names(self) -> list[str]:
        with storage_errors(self.path, "list"), os.scandir(self.path) as found:
            return [entry.name for entry in found]

    def _has_data(self, name: str) -> bool:
        # Under a temporary name, too, before its own: the table of a growing segment is made
        # between the two.
        names = [found for found in self._names() if Path(found).stem.endswith(name)]
        return any(Path(found).suffix in _SUFFIXES for found in names) or any(
            (self.path / f"{name}{suffix}").exists() for suffix in _SUFFIXES
        )

    def _is_marked(self) -> bool:
        try:
            version = self._read_marker()["format"]
        except FileNotFoundError:
            return False
        if version > FORMAT:
            raise FormatVersionError(
                f"{self.path} is a cache of format {version!r}; this easydata reads up to "
                f"{FORMAT}. Upgrade easydata, or use another folder."
            )
        return True

    def _read_marker(self) -> Any:
        try:
            found = json.loads(self._marker.read_bytes())
            version, cleared = found["format"], found.get("cleared")
            if type(version) is not int or version < 1:
                raise ValueError(f"its format is {version!r}")
            if version <= FORMAT and found["checksum"] != _checksum(cleared):
                raise ValueError("its checksum is wrong")
            return {"format": version, "cleared": cleared}
        except NotADirectoryError as error:
            raise NotADatasetError(f"{self.path} is a file; a cache is a folder.") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotADatasetError(
                f"{self._marker} is not the marker of a cache: {error}. Delete it if the folder "
                "should be one: what is stored in it is found again."
            ) from error

    def _refuse_what_is_not_ours(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise NotADatasetError(f"{self.path} is a file; a cache is a folder.")
        if not self.path.exists():
            return
        with os.scandir(self.path) as found:
            foreign = sorted(
                entry.name
                for entry in found
                if not entry.name.startswith((".", _PREFIX, "log-", "seg-", "damaged-"))
            )
        if foreign:
            raise NotADatasetError(
                f"{self.path} is not a cache: it holds {foreign[0]!r}. Choose another folder."
            )


def _checksum(cleared: object) -> str:
    return xxhash.xxh3_64_hexdigest(str(cleared).encode())
