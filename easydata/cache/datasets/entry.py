"""The folder of one key: its generations, and the record that says which of them counts.

Nothing is locked to read. A generation counts from the rename of the record on; none ever counts
again after another did. So whoever has the exclusive lock of a generation's lease, and then finds
that the record does not name it, knows that nobody reads it, writes it or ever will.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from easydata._fs import publish_bytes, storage_errors, sync_directory
from easydata.cache.datasets.leases import Lease, move_unheld, remove_unheld, take, unless_gone
from easydata.cache.datasets.names import (
    COMMIT_LOCK,
    DAMAGED,
    DAMAGED_PREFIX,
    GENERATION,
    LEASE_FILE,
    RECORD_FILE,
    REMOVED,
    entry_name,
    new_generation,
)
from easydata.cache.datasets.record import Record
from easydata.cache.log import locks
from easydata.errors import CorruptShardError, DatasetError, FormatVersionError, StorageError

__all__ = ["Entry", "Held"]

_TRIES = 100  # to make a folder that others remove when it is empty


class Held(NamedTuple):
    """A generation that stays as long as its lease lives."""

    folder: Path
    record: Record
    lease: Lease


class Entry:
    """The folder of one key, which need not be there.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / RECORD_FILE

    def record(self) -> Record | None:
        """What counts now; None if there is nothing.

        Raises:
            CorruptShardError: the record is damaged, or belongs to another folder.
            FormatVersionError: a newer easydata wrote it.
            StorageError: it cannot be read.
        """
        with storage_errors(self._record, "read"):
            try:
                data = self._record.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except IsADirectoryError:
                raise CorruptShardError(f"{self._record} is a folder, not a record") from None
        try:
            record = Record.from_bytes(data)
        except (CorruptShardError, FormatVersionError) as error:
            raise type(error)(f"{self.path}: {error}") from error
        if entry_name(record.key) != self.path.name:
            raise CorruptShardError(f"{self.path} holds the record of the key {record.key!r}")
        return record

    def hold(self) -> Held | None:
        """What counts now, with a lease; None if there is nothing.

        Raises:
            CorruptShardError: the record is damaged, or names a generation that is not there.
            FormatVersionError: a newer easydata wrote it.
            StorageError: it cannot be read.
        """
        before = None
        while (record := self.record()) is not None:
            folder = self.path / record.generation
            lease = take(folder)
            if lease is not None:
                return Held(folder, record, lease)
            if record == before:
                raise CorruptShardError(f"{folder} is missing")
            before = record  # a put may have replaced it meanwhile: look again
        return None

    def begin(self) -> tuple[Path, Lease]:
        """The folder of a new generation, and the lease of whoever writes it.

        Raises:
            StorageError: it cannot be made.
        """
        for left in reversed(range(_TRIES)):
            folder = self.path / new_generation()
            with storage_errors(folder):
                try:
                    self.path.mkdir(parents=True, exist_ok=True)
                    folder.mkdir()
                except (FileNotFoundError, FileExistsError):  # somebody removed the empty folder
                    if left:
                        continue
                    raise
            lease = take(folder, create=True)
            if lease is not None:
                return folder, lease
        raise StorageError(errno.EIO, f"Cannot write {self.path}: what is made there goes at once.")

    def publish(self, folder: Path, record: Record) -> None:
        """Let a generation count.

        Raises:
            StorageError: the record cannot be written.
        """
        # In the generation's folder, so that what a killed process leaves goes with it.
        new = folder / RECORD_FILE
        publish_bytes(new, record.to_bytes())
        sync_directory(folder)
        with self._commit(), storage_errors(self._record):
            new.replace(self._record)
        sync_directory(self.path)
        sync_directory(self.path.parent)

    def withdraw(self, generation: str | None = None) -> None:
        """Let nothing count any more, or, if `generation` is given, not that one.

        Raises:
            StorageError: the record cannot be deleted.
        """
        if not self.path.is_dir():
            return
        with self._commit(), storage_errors(self._record, "delete"):
            if generation is not None and not self._names(generation):
                return
            try:
                self._record.unlink()
            except FileNotFoundError:
                return
        with unless_gone():  # another process removed the generation, then the folder
            sync_directory(self.path)
        self._remove_if_empty()

    def set_aside(self, generation: str) -> None:
        """Keep a damaged generation for inspection, out of the way.

        Raises:
            StorageError: it cannot be renamed.
        """
        self.withdraw(generation)
        folder = self.path / generation
        target = folder.with_name(DAMAGED_PREFIX + generation.rpartition("-")[2])
        # If somebody reads it, it is deleted once nobody does.
        move_unheld(folder, target, lambda: self._names(generation))

    def collect(self, *, damaged: bool = False) -> None:
        """Delete what does not count and nobody holds, and the folder if that empties it.

        What cannot be deleted now is left to the next who collects.

        Args:
            damaged: what was set aside too.
        """
        removed = False
        for path in self._folders(GENERATION):
            if self._names(path.name):
                continue
            if not (path / LEASE_FILE).exists():  # it is not ours, or a process was killed here
                with contextlib.suppress(OSError):
                    path.rmdir()
                    removed = True
                continue
            with contextlib.suppress(StorageError):
                removed |= remove_unheld(path, functools.partial(self._names, path.name))
        for path in [*self._folders(REMOVED), *(self._leased(DAMAGED) if damaged else ())]:
            shutil.rmtree(path, ignore_errors=True)
            removed = True
        if removed:
            self._remove_if_empty()

    def why_missing(self) -> str:
        """Why nothing counts, in words."""
        damaged = self._leased(DAMAGED)
        return f"damaged: it was moved aside as {damaged[-1]}" if damaged else "no entry"

    def num_bytes(self) -> int:
        """Size of all files that this key has on the disk, earlier generations included."""
        paths = [self._record]
        for folder in (*self._leased(GENERATION), *self._folders(REMOVED), *self._leased(DAMAGED)):
            paths += [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
        total = 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                total += path.lstat().st_size
        return total

    def _remove_if_empty(self) -> None:
        # Only where something of ours was: an empty folder is anybody's.
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _leased(self, name: re.Pattern[str]) -> list[Path]:
        """Folders of that name which are ours for certain."""
        return [path for path in self._folders(name) if (path / LEASE_FILE).exists()]

    def _folders(self, name: re.Pattern[str]) -> list[Path]:
        try:
            with os.scandir(self.path) as items:
                found = [item.name for item in items if item.is_dir(follow_symlinks=False)]
        except OSError:  # it is gone, or others may not read it
            return []
        return [self.path / item for item in sorted(found) if name.fullmatch(item)]

    def _names(self, generation: str) -> bool:
        """Whether the record names a generation, or cannot be read, so that nobody knows."""
        try:
            record = self.record()
        except (DatasetError, StorageError):
            return True
        return record is not None and record.generation == generation

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """One at a time changes records: else what a put has just published could be withdrawn."""
        with locks.exclusive(self.path.parent / COMMIT_LOCK, wait=True):
            yield
