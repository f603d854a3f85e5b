"""Saving one result to one place: in a format, cut into files, unless it is there already."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from easydata._fs import storage_errors
from easydata._units import format_bytes, format_count
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.pipeline.save_formats import DEFAULT_CODECS, Format, make_format
from easydata.pipeline.save_manifest import MANIFEST, Manifest
from easydata.pipeline.save_rows import SavedRows
from easydata.pipeline.save_shards import ShardFolder, write_by_size, write_by_value, write_evenly
from easydata.pipeline.save_target import Target

__all__ = ["Layout", "log_saved", "save_rows", "write_files"]

_log = logging.getLogger("easydata")
_SPOOL = "rows.spool"


@dataclass(frozen=True)
class Layout:
    """How rows become files.

    Attributes:
        format: "parquet", "arrow" or "jsonl".
        compression: of the files; None for what is usual.
        num_shards: files to write; None: by `max_shard_bytes`.
        max_shard_bytes: bytes in a file at most.
        shard_column: rows with the same value in this column go to the same file.
    """

    format: str
    compression: str | None = None
    num_shards: int | None = None
    max_shard_bytes: int = 500_000_000
    shard_column: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What shapes the files, as a JSON value."""
        values = dict(vars(self))
        values["compression"] = self.compression or DEFAULT_CODECS[self.format]
        if self.num_shards is not None:
            del values["max_shard_bytes"]
        return values

    def check(self, name: str, rows: SavedRows) -> None:
        """Check that these rows can become these files.

        Raises:
            UsageError: they cannot.
        """
        make_format(self.format, self.compression, rows)
        if self.shard_column is not None and self.shard_column not in rows.schema.names:
            remedy = (
                "Samples have no fields of documents: save without packing"
                if rows.samples is not None
                else f"Keep it: additional_fields=[{self.shard_column!r}]"
            )
            raise UsageError(
                f"shard_column of {name!r} is {self.shard_column!r}, but its rows have "
                f"{', '.join(rows.schema.names)}. {remedy}, or leave shard_column out."
            )
        if self.shard_column is None and self.num_shards is not None and rows.num_rows is not None:
            self.check_count(name, rows.num_rows)

    def check_count(self, name: str, num_rows: int) -> None:
        """Check that every file gets a row.

        Raises:
            UsageError: there are not enough.
        """
        if self.num_shards is not None and num_rows < self.num_shards:
            raise UsageError(
                f"num_shards is {self.num_shards}, but {name!r} has {num_rows} rows; ask for "
                f"{max(num_rows, 1)} files at most."
            )


def save_rows(
    name: str,
    rows: SavedRows,
    layout: Layout,
    target: Target,
    *,
    overwrite: bool,
) -> str:
    """Save rows at a place, unless they are there already.

    Args:
        name: of the rows, for messages.
        rows: what to save.
        layout: how.
        target: where.
        overwrite: replace another result.

    Returns:
        The path or URL.

    Raises:
        OutputExistsError: something is there that must not be replaced.
        UsageError: the rows cannot be saved in this way.
        StorageError: they cannot be written; what was there is still there.
    """
    layout.check(name, rows)
    identity = None
    if rows.identity is not None:
        identity = fingerprint_json(
            {
                "rows": rows.identity,
                "schema": str(rows.schema),
                "features": dict(rows.features),
                "tokenizer": dict(rows.tokenizer),
                **layout.to_json(),
            }
        )
        if _is_there(target, identity):
            target.tidy()
            _log.info("%s: %s is saved there already; nothing to do.", target.path, name)
            return target.path
    saved: list[Manifest] = []

    def write(folder: Path) -> Manifest:
        files, num_rows = write_files(name, rows, layout, folder)
        saved.append(Manifest(identity, num_rows, files, rows.known_metadata()))
        return saved[0]

    target.save(write, overwrite=overwrite)
    log_saved(name, target.path, saved[0])
    return target.path


def log_saved(name: str, path: str, manifest: Manifest) -> None:
    """Say what was saved, in one line."""
    count = sum(name.startswith("data-") for name in manifest.files)
    _log.info(
        "%s: %s, %s rows in %s, %s.",
        path,
        name,
        format_count(manifest.num_rows),
        "1 file" if count == 1 else f"{format_count(count)} files",
        format_bytes(sum(manifest.files.values())),
    )


def write_files(
    name: str, rows: SavedRows, layout: Layout, folder: Path
) -> tuple[Mapping[str, int], int]:
    """Write rows into an empty folder; everything in it is on the disk when this returns.

    Returns:
        Bytes of all files by path below the folder, and the number of rows.

    Raises:
        UsageError: there are fewer rows than files.
        StorageError: they cannot be written.
    """
    form = make_format(layout.format, layout.compression, rows)
    is_even = layout.num_shards is not None and layout.shard_column is None
    if is_even and rows.num_rows is None:
        rows = _counted(rows, folder / _SPOOL)
        layout.check_count(name, rows.num_rows or 0)
    with ShardFolder(folder, form, rows.schema) as shards:
        _write(rows, layout, form, shards)
        num_rows = sum(count for _, count in shards.finish())
    (folder / _SPOOL).unlink(missing_ok=True)
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, ".lease")
    }
    return files, num_rows


def _write(rows: SavedRows, layout: Layout, form: Format, shards: ShardFolder) -> None:
    batches: Iterable[pa.RecordBatch] = rows.batches()
    if layout.num_shards is None:
        write_by_size(batches, shards, form, layout.max_shard_bytes)
    elif layout.shard_column is not None:
        write_by_value(batches, shards, form, layout.num_shards, layout.shard_column)
    else:
        assert rows.num_rows is not None
        write_evenly(batches, shards, form, layout.num_shards, rows.num_rows)


def _counted(rows: SavedRows, spool: Path) -> SavedRows:
    """The same rows, counted, from the disk: they may be too many for the memory."""
    num_rows = 0
    with (
        pa.OSFile(str(spool), "wb") as file,
        pa.ipc.new_stream(file, rows.schema) as stream,
    ):
        for batch in rows.batches():
            num_rows += batch.num_rows
            with storage_errors(spool):
                stream.write_batch(batch)

    def read() -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(spool)) as file, pa.ipc.open_stream(file) as stream:
            yield from stream

    return replace(rows, num_rows=num_rows, batches=read)


def _is_there(target: Target, identity: str) -> bool:
    found = target.manifest()
    return found is not None and found.identity == identity
