"""The folder of a DatasetCache: entries are found, checked, written and given up."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from easydata._fs import storage_errors
from easydata.cache import clock
from easydata.cache.clock import deadline
from easydata.cache.datasets.entry import Entry, Held
from easydata.cache.datasets.inputs import read_rows, split_input
from easydata.cache.datasets.leases import Lease, settle
from easydata.cache.datasets.names import ENTRY, entry_name
from easydata.cache.datasets.opening import Opened
from easydata.cache.datasets.record import Record
from easydata.cache.datasets.writing import write_dataset
from easydata.cache.stats import Counters
from easydata.cache.stored_metadata import pack
from easydata.errors import (
    CorruptShardError,
    DatasetError,
    FormatVersionError,
    NotADatasetError,
    StorageError,
)
from easydata.fingerprint import fingerprint_bytes
from easydata.format.codecs import Codec, resolve_format
from easydata.format.directory import INFO_FILE, SPLITS_FILE, STATE_FILE, write_splits
from easydata.metadata import CacheMetadata

__all__ = ["DatasetStore", "Draft", "is_expired"]

_log = logging.getLogger("easydata")


class Draft(NamedTuple):
    """A generation that is being written."""

    key: str
    parts: dict[str, object]
    metadata: CacheMetadata | None
    folder: Path
    lease: Lease


class DatasetStore:
    """Entries by key.

    Attributes:
        counters: of everything that was asked of this object.
    """

    def __init__(
        self,
        root: Path,
        codec: Codec,
        expiry_seconds: float | None,
        *,
        readonly: bool,
        check: bool,
    ) -> None:
        """Touch nothing yet.

        Args:
            root: the folder.
            codec: compression of what is written.
            expiry_seconds: how long what is written may be used.
            readonly: never write.
            check: compare all bytes of a generation with their checksums before its first use.
        """
        self.counters = Counters()
        self._root = root
        self._codec = codec
        self._format = resolve_format(None, codec)
        self._expiry_seconds = expiry_seconds
        self._readonly = readonly
        self._check = check
        self._checked: dict[str, str] = {}  # key: the generation that was checked

    def entry(self, key: str) -> Entry:
        """The folder of a key, which need not be there."""
        return Entry(self._root / entry_name(key))

    def entries(self) -> list[Entry]:
        """All folders that may be those of keys."""
        with storage_errors(self._root, "read"):
            try:
                with os.scandir(self._root) as items:
                    names = [item.name for item in items if ENTRY.fullmatch(item.name)]
            except FileNotFoundError:
                return []
        return [Entry(self._root / name) for name in sorted(names)]

    def records(self) -> list[Record]:
        """All that count and are not expired; those that cannot be read are left out."""
        found = []
        for entry in self.entries():
            with contextlib.suppress(FormatVersionError, StorageError):
                found.append(self.record(entry))
        return [record for record in found if record is not None]

    def record(self, entry: Entry) -> Record | None:
        """What counts, if it is there and not expired."""
        try:
            held = entry.hold()
        except CorruptShardError:
            return None
        return None if held is None or is_expired(held.record) else held.record

    def require(self, key: str) -> Held:
        """What counts.

        Raises:
            NotADatasetError: nothing does, or it is expired.
            CorruptShardError: it is damaged.
        """
        entry = self.entry(key)
        held = entry.hold()
        if held is None or is_expired(held.record):
            what = entry.why_missing() if held is None else "it is expired"
            raise NotADatasetError(f"{self._root} has no dataset {key!r}: {what}. Put it first.")
        return held

    def is_checked(self, key: str, held: Held) -> bool:
        """Whether the bytes of a generation need not be compared with their checksums again."""
        return not self._check or self._checked.get(key) == held.record.generation

    def open(self, key: str, held: Held) -> Opened:
        """A generation of which every byte was checked.

        Raises:
            CorruptShardError: it is damaged.
        """
        opened = Opened(held)
        if not self.is_checked(key, held):
            opened.check()
            self._checked[key] = held.record.generation
        return opened

    def check_all(self) -> None:
        """Compare the bytes of everything that counts with their checksums.

        Raises:
            CorruptShardError: something is damaged.
        """
        for entry in self.entries():
            with contextlib.suppress(FormatVersionError):  # whoever asks for it is told
                held = entry.hold()
                if held is not None and not is_expired(held.record):
                    self.open(held.record.key, held)

    def find(
        self,
        key: str,
        is_wanted: Callable[[CacheMetadata | None], bool],
        *,
        is_counted: bool = True,
    ) -> Opened | None:
        """What counts, is not expired, has metadata that is wanted, and is whole; or None.

        What is damaged is set aside. What is expired stays until something takes its place, so
        that `explain` can say so.

        Raises:
            FormatVersionError: a newer easydata wrote it.
        """
        found, held = None, None
        try:
            held = self.entry(key).hold()
            if held is not None and is_expired(held.record):
                self.counters.expired += 1
            elif held is not None and is_wanted(held.record.metadata):
                found = self.open(key, held)
        except CorruptShardError as error:
            self.counters.corrupt += 1
            _log.warning("The dataset %r in %s counts as missing: %s", key, self._root, error)
            if held is not None:
                self._set_aside(held)
        if is_counted:
            self.counters.hits += found is not None
            self.counters.misses += found is None
        return found

    def begin(self, key: str, dataset: Any, metadata: CacheMetadata | None) -> Draft:
        """Prepare a new generation; nothing of `dataset` is read yet.

        Raises:
            UsageError: it is nothing that can be stored.
            UnsupportedValueError: the metadata would not come back as it is.
            StorageError: nothing can be written.
        """
        self.require_writable()
        pack(metadata)  # so that one that cannot be stored fails before anything is written
        parts = split_input(dataset)
        return Draft(key, parts, metadata, *self.entry(key).begin())

    def finish(self, draft: Draft) -> Opened:
        """Write a new generation and let it count. Raises as `DatasetCache.put` does."""
        key, parts, metadata, folder, lease = draft
        entry = self.entry(key)
        try:
            ledgers = self._write_parts(folder, parts, metadata)
            stamp = clock.now()
            expires = deadline(stamp, self._expiry_seconds)
            files = _fingerprints(folder, ledgers)
            record = Record(key, folder.name, stamp, expires, metadata, ledgers, files)
            entry.publish(folder, record)
        except BaseException:  # also Ctrl-C: what nobody will finish goes at once
            lease.close()
            entry.collect()
            raise
        settle()
        entry.collect()
        self.counters.writes += 1
        return Opened(Held(folder, record, lease))

    def invalidate(self, key: str | None) -> None:
        """Let one key or all keys have nothing, and delete what nobody reads.

        Raises:
            StorageError: the folder is read-only.
        """
        self.require_writable()
        settle()
        for entry in self.entries() if key is None else [self.entry(key)]:
            entry.withdraw()
            entry.collect(damaged=True)

    def collect(self) -> None:
        """Delete what killed processes left, what is expired, and what nobody reads any more."""
        settle()
        # It can be done as well by whoever puts next, and has leave to read and write.
        with contextlib.suppress(StorageError):
            for entry in self.entries():
                with contextlib.suppress(DatasetError, StorageError):
                    record = entry.record()
                    if record is not None and is_expired(record):
                        entry.withdraw(record.generation)
                entry.collect()

    def prepare(self) -> None:
        """Make the folder, which the lock file of a flight needs, if that can be."""
        if not self._readonly:
            with contextlib.suppress(OSError):  # what is computed is returned nevertheless
                self._root.mkdir(parents=True, exist_ok=True)

    def require_writable(self) -> None:
        """
        Raises:
            StorageError: this object is to read only.
        """
        if self._readonly:
            raise StorageError(
                errno.EROFS,
                f"{self._root} was opened with readonly=True. Open it without to write.",
            )

    def _write_parts(
        self, folder: Path, parts: dict[str, object], metadata: CacheMetadata | None
    ) -> dict[str, str]:
        """File names of the ledgers by split."""
        ledgers = {}
        for split, part in parts.items():
            target = folder / split
            with storage_errors(target):
                target.mkdir(exist_ok=True)
            ledgers[split] = write_dataset(
                target,
                read_rows(part),
                codec=self._codec,
                shard_format=self._format,
                metadata=metadata,
            )
        if "" not in ledgers:
            write_splits(folder, list(ledgers))
        return ledgers

    def _set_aside(self, held: Held) -> None:
        held.lease.close()
        # Who only reads need not be able to: it stays what it is, a miss.
        if not self._readonly:
            with contextlib.suppress(StorageError):
                Entry(held.folder.parent).set_aside(held.record.generation)


def _fingerprints(folder: Path, splits: Collection[str]) -> dict[str, str]:
    """Of what `datasets.load_from_disk` reads beside the shards, by path in the folder."""
    paths = [folder / split / name for split in splits for name in (STATE_FILE, INFO_FILE)]
    if "" not in splits:
        paths.append(folder / SPLITS_FILE)
    with storage_errors(folder, "read"):
        return {
            path.relative_to(folder).as_posix(): fingerprint_bytes(path.read_bytes())
            for path in paths
        }


def is_expired(record: Record) -> bool:
    """Whether its time is over."""
    return record.expires <= clock.now()
