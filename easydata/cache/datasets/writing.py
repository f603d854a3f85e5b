"""Rows become a dataset directory: shards, a ledger, and what `datasets.load_from_disk` wants."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from easydata._fs import storage_errors
from easydata.cache.datasets.content import ContentHasher
from easydata.cache.datasets.inputs import Rows
from easydata.cache.datasets.parquet import ParquetTypes
from easydata.format.arrays import count_values, empty_batch
from easydata.format.codecs import Codec, ShardFormat
from easydata.format.directory import TOKENS, write_state
from easydata.format.features import HUGGINGFACE_KEY
from easydata.format.ledger import METADATA_KEY, Ledger, ShardEntry
from easydata.format.shards import IpcShardWriter, ParquetShardWriter
from easydata.metadata import CacheMetadata

__all__ = ["SHARD_BYTES", "write_dataset"]

SHARD_BYTES = 256_000_000
BATCH_BYTES = 32 << 20


def write_dataset(
    folder: Path,
    rows: Rows,
    *,
    codec: Codec,
    shard_format: ShardFormat,
    metadata: CacheMetadata | None,
) -> str:
    """Write all rows, as they come; everything is on the disk when this returns.

    Args:
        folder: an empty folder.
        rows: read once.
        codec: compression of the shards.
        shard_format: "ipc" or "parquet".
        metadata: what the rows were made from.

    Returns:
        The file name of the ledger.

    Raises:
        StorageError: the disk is full, or fails.
        UsageError: rows do not fit the features, or Parquet cannot hold them.
    """
    features = rows.features.to_dict()
    shards = _ShardFiles(folder, rows.schema, _header(features, metadata), codec, shard_format)
    content = ContentHasher(features)
    tokens = _TokenColumn(rows.schema)
    parquet = ParquetTypes(rows.schema) if shard_format == "parquet" else None
    try:
        for batch in _regroup(rows.batches):
            if parquet is not None:
                parquet.check(batch)
            content.update(batch)
            shards.write(batch, tokens.count(batch))
        entries = shards.finish(content.fingerprint())
    except BaseException:
        shards.abandon()
        raise
    num_rows = sum(int(entry.batches[:, 2].sum()) for entry in entries)
    cache = metadata or CacheMetadata()
    ledger = Ledger.build(
        rows.schema,
        {
            "fingerprint": content.fingerprint(),
            "split": rows.split,
            "shard_format": shard_format,
            "compression": str(codec),
            "token_column": TOKENS if tokens.why_not is None else None,
            "why_no_tokens": tokens.why_not,
            "tokenizer": {},
            "cache": {**vars(cache), "extra": dict(cache.extra), "num_examples": num_rows},
        },
        shards=entries,
    )
    name = ledger.publish(folder)
    write_state(
        folder,
        shard_names=[entry.name for entry in entries],
        ledger_name=name,
        fingerprint=content.fingerprint(),
        split=rows.split,
    )
    return name


def _header(features: dict[str, object], metadata: CacheMetadata | None) -> dict[bytes, bytes]:
    """Schema metadata of the shards: nothing that is known only once they are written."""
    shown = replace(metadata or CacheMetadata(), num_examples=None)
    return {
        HUGGINGFACE_KEY: json.dumps({"info": {"features": features}}).encode(),
        METADATA_KEY: shown.to_json(content_only=True).encode(),
    }


class _ShardFiles:
    """Batches in, shards of up to SHARD_BYTES out."""

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        header: dict[bytes, bytes],
        codec: Codec,
        shard_format: ShardFormat,
    ) -> None:
        self._folder = folder
        self._schema = schema
        self._header = header
        self._codec = codec
        self._kind = ParquetShardWriter if shard_format == "parquet" else IpcShardWriter
        self._suffix = "parquet" if shard_format == "parquet" else "arrow"
        self._file: BinaryIO | None = None
        self._writer: IpcShardWriter | ParquetShardWriter | None = None
        self._entries: list[ShardEntry] = []

    def write(self, batch: pa.RecordBatch, tokens: int) -> None:
        """Append a batch."""
        with storage_errors(self._folder):
            if self._file is not None and self._file.tell() + batch.nbytes > SHARD_BYTES:
                self._seal()
            if self._writer is None:
                self._file = (self._folder / f"{len(self._entries)}.part").open("x+b")
                self._writer = self._kind(self._file, self._schema, self._header, self._codec)
            self._writer.write(batch, tokens)

    def finish(self, fingerprint: str) -> list[ShardEntry]:
        """Give the shards their names; there is at least one, be it empty."""
        if self._writer is None and not self._entries:
            self.write(empty_batch(self._schema), 0)
        with storage_errors(self._folder):
            if self._writer is not None:
                self._seal()
            entries = []
            for number, entry in enumerate(self._entries):
                name = f"data-{number:05d}-of-{len(self._entries):05d}-{fingerprint}.{self._suffix}"
                (self._folder / entry.name).rename(self._folder / name)
                entries.append(replace(entry, name=name))
        return entries

    def abandon(self) -> None:
        """Close the file that is being written, if any; what it holds is of no use."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # the disk is full still
                self._file.close()

    def _seal(self) -> None:
        assert self._file is not None
        assert self._writer is not None
        self._entries.append(self._writer.finish(Path(self._file.name).name))
        self._writer = None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None


class _TokenColumn:
    """Whether the rows can be read as tokens.

    Attributes:
        why_not: None as long as they can.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.why_not: str | None = None
        if TOKENS not in schema.names:
            have = ", ".join(schema.names) or "none"
            self.why_not = f"there is no column {TOKENS!r} of token ids (there is: {have})"
            return
        kind = schema.field(TOKENS).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not is_list or not pa.types.is_integer(kind.value_type):
            self.why_not = f"the column {TOKENS!r} is a {kind} and no list of token ids"

    def count(self, batch: pa.RecordBatch) -> int:
        """Tokens in a batch; 0 once it is clear that there are none."""
        if self.why_not is not None:
            return 0
        lists = batch[TOKENS]
        if lists.null_count or lists.values.null_count:
            self.why_not = f"the column {TOKENS!r} has nulls"
            return 0
        return count_values(lists)


def _regroup(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about BATCH_BYTES, or a row that is larger."""
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        for piece in _cut(batch):
            if group and size + piece.nbytes > BATCH_BYTES:
                yield pa.concat_batches(group)
                group, size = [], 0
            group.append(piece)
            size += piece.nbytes
    if group:
        yield pa.concat_batches(group)


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if not batch.num_rows:
        return
    if batch.nbytes <= BATCH_BYTES or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _cut(batch.slice(0, half))
    yield from _cut(batch.slice(half))
