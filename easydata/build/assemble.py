"""From finished parts to shards, and from shards to a published dataset."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from easydata._fs import publish_file, storage_errors
from easydata.build.store import PartStore, StoredPart
from easydata.errors import StorageError
from easydata.fingerprint import fingerprint_strings
from easydata.format.arrays import empty_batch
from easydata.format.codecs import Codec, ShardFormat
from easydata.format.ledger import PartEntry, ShardEntry
from easydata.format.shards import IpcShardWriter, ParquetShardWriter
from easydata.format.stream import decode_batch

__all__ = ["ShardAssembler", "place_file"]

# Schema metadata of a shard, from the keys of its parts and the number of its rows.
HeaderOf = Callable[[Sequence[str], int], dict[bytes, bytes]]


class ShardAssembler:
    """Groups whole parts into shards of up to `shard_size` bytes, in order.

    Attributes:
        folder: where the finished shards lie.
        shards: the finished shards.
        parts: all parts with their number of batches in those shards.
    """

    def __init__(
        self,
        store: PartStore,
        schema: pa.Schema,
        header_of: HeaderOf,
        *,
        shard_format: ShardFormat,
        codec: Codec,
        shard_size: int,
    ) -> None:
        self.folder = store.folder
        self.shards: list[ShardEntry] = []
        self.parts: list[PartEntry] = []
        self._store = store
        self._schema = schema
        self._header_of = header_of
        self._format = shard_format
        self._codec = codec
        self._shard_size = shard_size
        self._group: list[StoredPart] = []

    def add(self, part: StoredPart) -> None:
        """Take the next part; writes a shard when it no longer fits into the current one."""
        if self._group and sum(p.nbytes for p in self._group) + part.nbytes > self._shard_size:
            self._seal()
        self._group.append(part)

    def finish(self) -> None:
        """Write the last shard. There is always at least one, be it empty."""
        if self._group or not self.shards:
            self._seal()

    def _seal(self) -> None:
        # Equal content gives equal parts: another shard may hold one of these by now.
        group = [self._store.current(part) for part in self._group]
        self._group = []
        keys = [part.entry.key for part in group]
        stem = f"shard-{fingerprint_strings(keys)}"
        shard = self._store.sealed(stem)
        if shard is None:
            shard = self._write(stem, keys, group)
            self._store.seal(shard, _as_sealed(group), self._schema)
        self.shards.append(shard)
        self.parts += [part.entry for part in _as_sealed(group)]

    def _write(self, stem: str, keys: list[str], group: Sequence[StoredPart]) -> ShardEntry:
        rows = sum(part.rows for part in group)
        header = self._header_of(keys, rows)
        suffix = "parquet" if self._format == "parquet" else "arrow"
        path = self.folder / f"{stem}.{suffix}"
        empty = empty_batch(self._schema)
        with publish_file(path) as file:
            if self._format == "parquet":
                parquet = ParquetShardWriter(file, self._schema, header, self._codec)
                for part in group:
                    for piece, row in zip(_read(part), part.batches.tolist(), strict=True):
                        if row[2]:
                            batch = decode_batch(pa.py_buffer(piece), self._schema)
                            parquet.write(batch, row[3])
                if not rows:
                    parquet.write(empty, 0)
                return parquet.finish(path.name)
            ipc = IpcShardWriter(file, self._schema, header, self._codec)
            for part in group:
                for piece, row, checksums in zip(
                    _read(part), part.batches.tolist(), part.checksums, strict=True
                ):
                    if row[2]:
                        ipc.write_encoded([piece], checksums, row[2], row[3])
            if not rows:
                ipc.write(empty, 0)
            return ipc.finish(path.name)


def place_file(source: Path, target: Path) -> None:
    """Let `target` be the file `source`, which stays; atomic, and without copying if possible."""
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    with storage_errors(target):
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            # No hard links here. The build folder is not needed again once this is published.
            with publish_file(target) as file, source.open("rb") as original:
                while chunk := original.read(1 << 24):
                    file.write(chunk)
            return
        try:
            temporary.replace(target)
        finally:
            # Renaming one link over another of the same file does nothing and leaves both.
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def _read(part: StoredPart) -> list[memoryview]:
    pieces = part.read()
    if pieces is None:
        raise StorageError(
            f"The finished part {part.path} changed while it was used. "
            f"Delete {part.path.parent} and run again."
        )
    return pieces


def _as_sealed(group: Sequence[StoredPart]) -> list[StoredPart]:
    """The parts with the number of batches that each has in their shard."""
    parts = [_without_empty(part) for part in group]
    if parts and not any(part.entry.batches for part in parts):
        # The shard's one empty batch must belong to a part, or all later parts are misplaced.
        parts[0] = replace(parts[0], entry=replace(parts[0].entry, batches=1))
    return parts


def _without_empty(part: StoredPart) -> StoredPart:
    """The part as it lies in a shard: batches without rows are not written."""
    full = np.flatnonzero(part.batches[:, 2])
    entry = replace(part.entry, batches=len(full))
    checksums = tuple(part.checksums[i] for i in full.tolist())
    return StoredPart(entry, part.path, part.batches[full], checksums)
