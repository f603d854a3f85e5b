"""DatasetCache: HuggingFace datasets by key, memory-mapped."""

from __future__ import annotations

import functools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import xxhash

from easydata.cache import clock
from easydata.cache.arguments import check_callable, check_folder, check_key, check_prefix
from easydata.cache.clock import check_expiry
from easydata.cache.computing import Validate, is_valid
from easydata.cache.datasets.hashes import Hashes
from easydata.cache.datasets.inputs import can_be_read_again
from easydata.cache.datasets.leases import Lease
from easydata.cache.datasets.names import FLIGHT_LOCK
from easydata.cache.datasets.opening import Opened
from easydata.cache.datasets.store import DatasetStore, is_expired
from easydata.cache.flight import SingleFlight
from easydata.cache.stats import FlatStats
from easydata.cache.stored_metadata import pack
from easydata.dataset import TokenDataset
from easydata.errors import CorruptShardError, NotADatasetError, StorageError, UsageError
from easydata.format.codecs import Codec
from easydata.metadata import CacheMetadata

__all__ = ["DatasetCache"]

_VERIFY = ("lazy", "open", "never")


class DatasetCache:
    """Whole datasets in a folder, for all threads and processes of a machine and all later runs.

    A `put` is seen whole or not at all, and survives a power failure once it has returned. What
    `get`, `open` and `path` gave is not disturbed by anybody's later `put` or `invalidate`.

    It is pickled by its path and options. The child of a fork may go on using it.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        compression: str = "none",
        expiry_seconds: float | None = None,
        *,
        readonly: bool = False,
        verify: str = "lazy",
    ) -> None:
        """
        Args:
            cache_dir: a folder; made when first needed. Other files in it are left alone.
            compression: "none" (datasets are memory-mapped, without copies), "lz4", "zstd",
                "zstd:LEVEL" (decompressed into memory by `get`) or "gzip" (Parquet).
            expiry_seconds: how long what is put may be used.
            readonly: never write; then `put` and `invalidate` raise `StorageError`.
            verify: when checksums are compared: "lazy" before a dataset is first handed out,
                "open" all of them now, "never".

        Raises:
            UsageError: an option is none of those, or the folder is none of this machine.
            NotADatasetError: `cache_dir` is a file, or (readonly) not there.
            CorruptShardError: with `verify="open"`, if something is damaged.
        """
        check_expiry(expiry_seconds)
        self._root = check_folder(cache_dir)
        codec = Codec.parse(compression)
        if verify not in _VERIFY:
            raise UsageError(f"verify is {verify!r}; choose one of {', '.join(_VERIFY)}.")
        if self._root.exists() and not self._root.is_dir():
            raise NotADatasetError(f"{self._root} is a file. Give the path of a folder.")
        if readonly and not self._root.exists():
            raise NotADatasetError(f"{self._root} does not exist. Open it without readonly first.")
        if codec.name == "gzip":
            import pyarrow.parquet  # noqa: F401 - not in the child of a fork, where it may hang
        self._store = DatasetStore(
            self._root, codec, expiry_seconds, readonly=readonly, check=verify != "never"
        )
        self._flight = SingleFlight(None if readonly else self._root / FLIGHT_LOCK)
        self._warned_of_storage = False
        self._shown: dict[str, Lease] = {}  # of generations whose path was given
        self._reopen = functools.partial(
            type(self),
            self._root,
            compression,
            expiry_seconds,
            readonly=readonly,
            # What was checked when this was opened need not be in every worker.
            verify="lazy" if verify == "open" else verify,
        )
        if not readonly:
            self._store.collect()
        if verify == "open":
            self._store.check_all()

    # Writing

    def put(self, key: str, dataset: Any, metadata: CacheMetadata | None = None) -> None:
        """Store a dataset in place of what is there, metadata and expiry included.

        Args:
            key: any string.
            dataset: a `datasets.Dataset` (its rows in the order of its indices; its format does
                not matter) or `DatasetDict`; an `IterableDataset` or `IterableDatasetDict`, a
                pyarrow `RecordBatchReader`, an iterable of record batches: these are written as
                they come, without being in memory as a whole; a pyarrow table or batch, or
                anything else with an `__arrow_c_stream__`, such as DataFrames. Images and the
                like that lie in files are stored with their bytes.
            metadata: what it was made from; None leaves no older one behind.

        Raises:
            UsageError: it is something else, or says not what columns it has, or has rows that
                do not fit them; or the key is no string.
            UnsupportedValueError: the metadata would not come back as it is.
            StorageError: the disk is full, read-only or fails; what was there is still there.
            Exception: whatever reading the dataset raised.
        """
        self._store.finish(self._store.begin(check_key(key), dataset, metadata))

    def invalidate(self, key: str | None = None) -> None:
        """Forget one dataset, or all. Files that this cache did not make are left alone.

        Raises:
            UsageError: the key is no string.
            StorageError: the folder is read-only.
        """
        self._store.invalidate(None if key is None else check_key(key))

    # Reading

    def get(
        self,
        key: str,
        *,
        config_hash: str | None = None,
        source_hash: str | None = None,
        tokenizer_hash: str | None = None,
        transform_hash: str | None = None,
    ) -> Any:
        """The dataset of a key as a `Dataset` or `DatasetDict`, memory-mapped.

        None if there is none, if it is expired or damaged, or if one of the hashes is given and
        its metadata has another. A damaged one is moved aside.

        Raises:
            UsageError: the key is no string.
            FormatVersionError: a newer easydata wrote it.
            StorageError: it cannot be read, for instance as too many files are open.
        """
        wanted = Hashes(config_hash, source_hash, tokenizer_hash, transform_hash)
        opened = self._store.find(check_key(key), lambda metadata: not wanted.differences(metadata))
        return None if opened is None else opened.load()

    def path(self, key: str) -> Path:
        """A directory for `datasets.load_from_disk`; it stays as long as this object is open.

        Raises:
            NotADatasetError: there is no such dataset.
            CorruptShardError: it is damaged.
            UsageError: it is Parquet, which `load_from_disk` cannot read.
        """
        opened = self._store.open(check_key(key), self._store.require(key))
        if not opened.is_loadable:
            raise UsageError(
                f"The dataset {key!r} is stored as Parquet (gzip), which load_from_disk cannot "
                "read. Use get, or put it into a cache with compression='zstd'."
            )
        self._shown[opened.folder.name] = opened.lease
        return opened.folder

    def open(self, key: str, split: str | None = None) -> TokenDataset:
        """The same rows as a `TokenDataset`: its column `input_ids` are the tokens.

        Args:
            key: any string.
            split: which one, if the dataset has several.

        Raises:
            NotADatasetError: there is no such dataset or split.
            DatasetError: there is no column of tokens, or it has nulls.
            CorruptShardError: it is damaged; what is noticed later, its methods raise.
        """
        held = self._store.require(check_key(key))
        return Opened(held).tokens(split, checked=self._store.is_checked(key, held))

    def contains(self, key: str) -> bool:
        """Whether there is a whole dataset that is not expired. Not counted as a hit or miss."""
        return not self.explain(key)

    def get_metadata(self, key: str) -> CacheMetadata | None:
        """The metadata of a key; None if it has none, or there is no dataset. Not counted."""
        record = self._store.record(self._store.entry(check_key(key)))
        return None if record is None else record.metadata

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted.

        Without those of datasets that are expired, damaged, or of a newer easydata.
        """
        check_prefix(prefix)
        keys = (record.key for record in self._store.records())
        return sorted(key for key in keys if key.startswith(prefix))

    def explain(
        self,
        key: str,
        *,
        config_hash: str | None = None,
        source_hash: str | None = None,
        tokenizer_hash: str | None = None,
        transform_hash: str | None = None,
    ) -> list[str]:
        """Why `get` with these arguments would find nothing, in words; empty if it would.

        Nothing is counted, and no checksums are compared.

        Raises:
            UsageError: the key is no string.
            FormatVersionError: a newer easydata wrote it.
        """
        wanted = Hashes(config_hash, source_hash, tokenizer_hash, transform_hash)
        entry = self._store.entry(check_key(key))
        try:
            held = entry.hold()
            if held is None:
                return [entry.why_missing()]
            Opened(held)
        except CorruptShardError as error:
            return [f"damaged: {error}"]
        reasons = wanted.differences(held.record.metadata)
        if is_expired(held.record):
            ago = _duration(clock.now() - held.record.expires)
            reasons.insert(0, f"expired {ago} ago")
        return reasons

    def get_or_compute(
        self,
        key: str,
        compute_fn: Callable[[], Any],
        metadata: CacheMetadata | None = None,
        validate_fn: Validate | None = None,
    ) -> Any:
        """The dataset of a key as `get` gives it, made and stored if it is not there.

        What several threads and processes of a machine ask for at once is made once. If it
        cannot be written, what `compute_fn` returned is returned, if all its rows still are there.

        Args:
            key: any string.
            compute_fn: returns anything that `put` takes. It may ask for other keys.
            metadata: stored with it.
            validate_fn: called with the metadata of a dataset that was found; if what it returns
                is false, it is made again. A dataset without metadata never passes.

        Raises:
            Exception: whatever `compute_fn` raised, here or in the thread that computed this
                key; and as `put`.
            StorageError: it cannot be written, some of it was read for that, and it is no dataset
                of HuggingFace, Arrow table or list, so that it may be readable only once.

        Warns:
            RuntimeWarning: once for this object, if a dataset could not be written.
        """
        key = check_key(key)
        check_callable(compute_fn, name="compute_fn")
        if validate_fn is not None:
            check_callable(validate_fn, name="validate_fn")
        pack(metadata)  # so that one that cannot be stored fails before anything is computed

        def is_content(found: CacheMetadata | None) -> bool:
            return is_valid(found, validate_fn)

        opened = self._store.find(key, is_content)
        if opened is not None:
            return opened.load()
        turn_at: list[float] = []  # when it was this thread's turn to look and compute

        def look() -> tuple[Opened] | None:
            turn_at.append(time.perf_counter())
            # The miss was counted above.
            there = self._store.find(key, is_content, is_counted=False)
            return None if there is None else (there,)

        def compute() -> Opened | _Unwritten:
            turn_at.append(time.perf_counter())
            value = compute_fn()
            is_read = False
            try:
                draft = self._store.begin(key, value, metadata)
                is_read = True
                return self._store.finish(draft)
            except StorageError as error:
                if is_read and not can_be_read_again(value):
                    raise
                return _Unwritten(value, error)

        self._store.prepare()
        while True:
            asked_at = time.perf_counter()
            try:
                made = self._flight.run(xxhash.xxh3_64_intdigest(key.encode()), key, look, compute)
            finally:
                until = turn_at[0] if turn_at else time.perf_counter()
                self._store.counters.wait_seconds += until - asked_at
            if isinstance(made, _Unwritten):
                self._warn_of_storage(made.error)
                return made.value
            # Another thread was content with its result, which may be of no use here.
            if turn_at or is_content(made.record.metadata):
                return made.load()

    @property
    def stats(self) -> FlatStats:
        """What was counted, by name; see `Counters`. `bytes` is all that lies on the disk."""
        num_bytes = sum(entry.num_bytes() for entry in self._store.entries())
        return self._store.counters.flat(size=len(self), max_size=None, num_bytes=num_bytes)

    def close(self) -> None:
        """Give back the directories that `path` gave; what `get` and `open` gave stays good."""
        for lease in self._shown.values():
            lease.close()
        self._shown.clear()

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: str) -> bool:
        return self.contains(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._root)!r})"

    def _warn_of_storage(self, error: StorageError) -> None:
        if not self._warned_of_storage:
            self._warned_of_storage = True
            warnings.warn(
                f"Datasets are computed but not stored: {error}", RuntimeWarning, stacklevel=3
            )


class _Unwritten(NamedTuple):
    """A computed dataset that could not be stored, and why."""

    value: Any
    error: StorageError


def _duration(nanoseconds: int) -> str:
    """About how long, for people."""
    seconds = nanoseconds / 1e9
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
