"""The folder of one key: its generations, and the record that says which of them counts.

Nothing is locked to read. A generation counts from the rename of the record on; none ever counts
again after another did. So whoever has the exclusive lock of a generation's lease, and then finds
that the record does not name it, knows that nobody reads it, writes it or ever will.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from easydata._fs import publish_bytes, storage_errors, sync_directory
from easydata.cache.datasets.leases import Lease, move_unheld, remove_unheld, take
from easydata.cache.datasets.names import (
    COMMIT_LOCK,
    DAMAGED_PREFIX,
    GENERATION,
    RECORD_FILE,
    REMOVED,
    entry_name,
    new_generation,
)
from easydata.cache.datasets.record import Record
from easydata.cache.log import locks
from easydata.errors import CorruptShardError, DatasetError, FormatVersionError, StorageError

__all__ = ["Entry", "Held"]


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
        while True:
            folder = self.path / new_generation()
            with storage_errors(folder):
                self.path.mkdir(parents=True, exist_ok=True)
                try:
                    folder.mkdir()
                except FileNotFoundError:  # somebody removed the empty folder of the key
                    continue
            lease = take(folder, create=True)
            if lease is not None:
                return folder, lease

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
            self._record.unlink(missing_ok=True)
            sync_directory(self.path)

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
        """Delete what does not count and nobody holds, and the folder if it is empty then.

        Args:
            damaged: what was set aside too.
        """
        for path in self._folders(lambda name: GENERATION.fullmatch(name) is not None):
            if self._names(path.name):
                continue
            with contextlib.suppress(StorageError):  # the next one tries again
                remove_unheld(path, lambda name=path.name: self._names(name))  # type: ignore[misc]
        for path in self._folders(
            lambda name: (
                REMOVED.fullmatch(name) is not None or (damaged and name.startswith(DAMAGED_PREFIX))
            )
        ):
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def why_missing(self) -> str:
        """Why nothing counts, in words."""
        damaged = [*self._folders(lambda name: name.startswith(DAMAGED_PREFIX))]
        return f"damaged: it was moved aside as {damaged[-1]}" if damaged else "no entry"

    def num_bytes(self) -> int:
        """Size of all files that this key has on the disk, earlier generations included."""
        total = 0
        for parent, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += Path(parent, name).lstat().st_size
        return total

    def _folders(self, is_meant: Callable[[str], bool]) -> Iterator[Path]:
        try:
            with os.scandir(self.path) as items:
                found = [item.name for item in items if item.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from (self.path / name for name in sorted(found) if is_meant(name))

    def _names(self, generation: str) -> bool:
        """Whether the record names a generation, or cannot be read, so that nobody knows."""
        try:
            record = self.record()
        except DatasetError:
            return True
        return record is not None and record.generation == generation

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        """One at a time changes records: else what a put has just published could be withdrawn."""
        with locks.exclusive(self.path.parent / COMMIT_LOCK, wait=True):
            yield
