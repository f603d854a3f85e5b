"""From the options of a DiskCache to a log."""

from __future__ import annotations

from pathlib import Path

from easydata._units import parse_bytes
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.store import LogStore
from easydata.errors import UsageError
from easydata.format.codecs import Codec, resolve_format

__all__ = ["check_limit", "open_store"]

_SEGMENT_BYTES = 64 << 20
_DECODED_BYTES = 256 << 20
_LEAST_LIMIT = 1_000_000
_VERIFY = ("lazy", "open", "never")


def check_limit(size_limit: int | str | None) -> int | None:
    """The limit of a folder in bytes.

    Raises:
        UsageError: it is none, or too small to work with.
    """
    if size_limit is None:
        return None
    found = parse_bytes(size_limit, name="size_limit")
    if found < _LEAST_LIMIT:
        raise UsageError(f"size_limit is {size_limit!r}; it must be at least 1MB.")
    return found


def open_store(
    path: Path,
    compression: str,
    *,
    size_limit: int | None,
    format: str | None,
    readonly: bool,
    verify: str,
) -> LogStore:
    """The log in a folder; the options are those of `DiskCache`.

    Raises:
        UsageError: an option is none of those; no folder was made.
        NotADatasetError: the folder holds something else, or (readonly) no cache.
        FormatVersionError: a newer easydata wrote it.
        StorageError: the folder cannot be made or used.
    """
    codec = Codec.parse(compression)
    shard_format = resolve_format(format, codec)
    if verify not in _VERIFY:
        raise UsageError(f"verify is {verify!r}; choose one of {', '.join(_VERIFY)}.")
    if shard_format == "parquet":
        # Now, and not in the first `put`: the child of a fork would wait for ever for an import
        # that a thread of its parent had begun.
        import pyarrow.parquet  # noqa: F401

    # What still grows cannot be evicted, and may only be a small part of a limit.
    segment_bytes = _SEGMENT_BYTES if size_limit is None else size_limit // 8
    return LogStore(
        CacheFolder(path, readonly=readonly),
        readonly=readonly,
        compression=codec,
        shard_format=shard_format,
        segment_bytes=min(segment_bytes, _SEGMENT_BYTES),
        decoded_bytes=_DECODED_BYTES,
        check=verify != "never",
    )
