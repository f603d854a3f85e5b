"""The ledger: the file that says what a dataset consists of.

It is an Arrow IPC stream of our own kind (64-byte aligned) with one batch of one row, whose
columns are lists: shards, batches, checksums, parts, spans, sources. Opening it maps the file
and takes views; nothing is parsed per shard, so it costs the same for 1 shard and for 10,000.
Its name holds the XXH3-128 of its bytes, so that whoever names a ledger names its content.

Everything that can be added up from the lists (first row of a batch, blocks of a shard) is
derived, not stored.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._fs import publish_bytes
from easydata._lazy import cached_property
from easydata.errors import CorruptShardError, FormatVersionError
from easydata.fingerprint import fingerprint_bytes
from easydata.format.alignment import message_header_bytes
from easydata.format.arrays import bytes_array, number_array, number_view, struct_array
from easydata.format.checksums import block_count
from easydata.format.codecs import Codec
from easydata.format.mapping import map_file
from easydata.format.stream import (
    END_OF_STREAM,
    decode_batch,
    decode_schema,
    encode_batch,
    encode_schema,
)

__all__ = ["FORMAT_VERSION", "METADATA_KEY", "Ledger", "PartEntry", "ShardEntry", "SpanEntry"]

FORMAT_VERSION = 1
METADATA_KEY = b"easydata"

_SHARD = pa.struct({"name": pa.string(), "bytes": pa.int64(), "batches": pa.int64()})
_BATCH = pa.struct({name: pa.int64() for name in ("offset", "bytes", "rows", "tokens")})
_PART = pa.struct(
    {
        "key": pa.string(),
        "batches": pa.int64(),
        "spans": pa.int64(),
    }
)
_SPAN = pa.struct(
    {
        "source": pa.int32(),
        "first_record": pa.int64(),
        "records": pa.int64(),
        "rows": pa.int64(),
        "kept": pa.binary(),
        "key": pa.string(),
        "skipped": pa.int64(),
        "short": pa.int64(),
        "truncated": pa.int64(),
    }
)
_SOURCE = pa.struct(
    {"name": pa.string(), "bytes": pa.int64(), "hash": pa.string(), "stamp": pa.string()}
)
_SCHEMA = pa.schema(
    {
        "schema": pa.binary(),
        "shards": pa.list_(_SHARD),
        "batches": pa.list_(_BATCH),
        "checksums": pa.list_(pa.uint64()),
        "parts": pa.list_(_PART),
        "spans": pa.list_(_SPAN),
        "sources": pa.list_(_SOURCE),
    }
)

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardEntry:
    """A written shard.

    Attributes:
        name: file name in the dataset directory.
        nbytes: size of the file.
        batches: int64[batches, 4]: offset, bytes, rows and tokens of each record batch; at
            least one.
        checksums: uint64[blocks] over the header, each batch, and the tail, in this order.
    """

    name: str
    nbytes: int
    batches: Int64Array
    checksums: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SpanEntry:
    """Consecutive records of one source, and which of them became rows.

    Attributes:
        source: index in the list of sources.
        first_record: index of the first record in that source.
        records: how many records.
        rows: how many of them are rows of this dataset.
        kept: one bit per record (most significant first) that tells which, or None for all.
        key: identity of the records and of the options that shaped the rows.
        skipped: records left out because they are broken.
        short: rows left out because they have too few tokens.
        truncated: rows cut to the maximal length.
    """

    source: int
    first_record: int
    records: int
    rows: int
    kept: bytes | None
    key: str = ""
    skipped: int = 0
    short: int = 0
    truncated: int = 0


@dataclass(frozen=True)
class PartEntry:
    """A run of source rows that is tokenized and reused as one.

    Attributes:
        key: identity of the records and of the options that shaped them.
        batches: how many record batches it has.
        spans: where its records came from.
    """

    key: str
    batches: int
    spans: Sequence[SpanEntry] = ()


class Ledger:
    """An opened ledger. All arrays are read-only views of the mapped file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        """Take `batch` as it is: the one row of a ledger, with the metadata in its schema."""
        self._batch = batch
        self.metadata: dict[str, Any] = json.loads(batch.schema.metadata[METADATA_KEY])

    @classmethod
    def build(
        cls,
        schema: pa.Schema,
        metadata: Mapping[str, Any],
        *,
        shards: Sequence[ShardEntry],
        parts: Sequence[PartEntry] = (),
        sources: Sequence[Mapping[str, Any]] = (),
    ) -> Self:
        """A ledger in memory. `schema` is that of the data, without metadata."""
        batches = np.concatenate([np.empty((0, 4), np.int64), *(s.batches for s in shards)])
        columns = {
            "schema": encode_schema(schema),
            "shards": [
                {"name": s.name, "bytes": s.nbytes, "batches": len(s.batches)} for s in shards
            ],
            "batches": pa.StructArray.from_arrays(
                [number_array(batches[:, i]) for i in range(4)],
                fields=list(_BATCH),
            ),
            "checksums": number_array(
                np.concatenate([np.empty(0, np.uint64), *(s.checksums for s in shards)])
            ),
            "parts": [{**vars(part), "spans": len(part.spans)} for part in parts],
            "spans": [vars(span) for part in parts for span in part.spans],
            "sources": list(sources),
        }
        text = json.dumps({"format": FORMAT_VERSION, **metadata}, sort_keys=True)
        return cls(
            pa.record_batch(
                [_one_row(columns[item.name], item.type) for item in _SCHEMA],
                schema=_SCHEMA.with_metadata({METADATA_KEY: text}),
            )
        )

    def to_bytes(self) -> bytes:
        """The file's content."""
        schema = self._batch.schema
        return b"".join(
            [
                encode_schema(schema, schema.metadata),
                *encode_batch(self._batch, Codec("none")),
                END_OF_STREAM,
            ]
        )

    def publish(self, directory: Path, *, prefix: str = "ledger", sync: bool = True) -> str:
        """Write the ledger under a name made from its content; return the name."""
        data = self.to_bytes()
        name = f"{prefix}-{fingerprint_bytes(data)}.arrow"
        publish_bytes(directory / name, data, sync=sync)
        return name

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a ledger that was published under the name `path`.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptShardError: its bytes are not those it was published with.
            FormatVersionError: a newer version wrote it.
        """
        data = map_file(path)
        if fingerprint_bytes(data) != path.stem.rpartition("-")[2]:
            raise CorruptShardError(
                f"Ledger {path} is damaged: its content does not match its name. "
                "Restore it from a copy, or build the dataset again with --overwrite."
            )
        schema = pa.ipc.read_schema(data)
        version = json.loads(schema.metadata[METADATA_KEY])["format"]
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"{path} has format version {version}; this easydata reads up to "
                f"{FORMAT_VERSION}. Upgrade easydata."
            )
        header_bytes = message_header_bytes(memoryview(data))
        message = data.slice(header_bytes, data.size - header_bytes - len(END_OF_STREAM))
        return cls(decode_batch(message, schema))

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema of the data, without metadata."""
        return decode_schema(self._batch["schema"][0].as_buffer())

    @property
    def num_shards(self) -> int:
        return len(self._values("shards"))

    def shard_name(self, shard: int) -> str:
        """File name of a shard."""
        return str(self._shard_names[shard])

    @cached_property
    def _shard_names(self) -> pa.StringArray:
        return self._field("shards", "name")

    @cached_property
    def shard_bytes(self) -> Int64Array:
        """int64[shards]: file sizes."""
        return self._numbers("shards", "bytes")

    @cached_property
    def first_batches(self) -> Int64Array:
        """int64[shards + 1]: index of each shard's first batch, then the number of batches."""
        return _starts(self._numbers("shards", "batches"))

    @cached_property
    def batch_offsets(self) -> Int64Array:
        """int64[batches]: where each batch starts in its shard."""
        return self._numbers("batches", "offset")

    @cached_property
    def batch_bytes(self) -> Int64Array:
        """int64[batches]: encoded size of each batch."""
        return self._numbers("batches", "bytes")

    @cached_property
    def first_rows(self) -> Int64Array:
        """int64[batches + 1]: index of each batch's first row, then the number of rows."""
        return _starts(self._numbers("batches", "rows"))

    @cached_property
    def first_tokens(self) -> Int64Array:
        """int64[batches + 1]: index of each batch's first token, then the number of tokens."""
        return _starts(self._numbers("batches", "tokens"))

    @cached_property
    def checksums(self) -> npt.NDArray[np.uint64]:
        """uint64[blocks]: of all shards, one after another."""
        return number_view(self._values("checksums"))

    @cached_property
    def region_ends(self) -> Int64Array:
        """int64[shards, 2]: where the header of each shard ends, and where its tail starts."""
        last = self.first_batches[1:] - 1
        header_end = self.batch_offsets[self.first_batches[:-1]]
        return np.stack([header_end, self.batch_offsets[last] + self.batch_bytes[last]], axis=1)

    @cached_property
    def first_blocks(self) -> Int64Array:
        """int64[shards + 1]: index of each shard's first checksum, then their number."""
        header, tail = (
            block_count(self.region_ends[:, 0]),
            self.shard_bytes - self.region_ends[:, 1],
        )
        batches = np.diff(_starts(block_count(self.batch_bytes))[self.first_batches])
        return _starts(header + batches + block_count(tail))

    @cached_property
    def batch_first_blocks(self) -> Int64Array:
        """int64[batches]: index of each batch's first checksum."""
        running = _starts(block_count(self.batch_bytes))
        before = self.first_blocks[:-1] + block_count(self.region_ends[:, 0])
        shift = before - running[self.first_batches[:-1]]
        return running[:-1] + np.repeat(shift, np.diff(self.first_batches))

    @property
    def num_parts(self) -> int:
        return len(self._values("parts"))

    def parts(self) -> list[PartEntry]:
        """All parts with their spans, as Python objects."""
        spans = [SpanEntry(**span) for span in self._values("spans").to_pylist()]
        entries, start = [], 0
        for part in self._values("parts").to_pylist():
            stop = start + part["spans"]
            entries.append(PartEntry(**{**part, "spans": tuple(spans[start:stop])}))
            start = stop
        return entries

    def repair_command(self, directory: Path) -> str:
        """The command line that builds the dataset at `directory` again."""
        words = self.metadata.get("command") or ["build", "…"]
        out = directory if self.metadata.get("split") is None else directory.parent
        return shlex.join(["easydata", *words, "--out", str(out), "--overwrite"])

    def total(self, count: str) -> int:
        """Sum of a count ("skipped", "short" or "truncated") over all spans."""
        return int(self._numbers("spans", count).sum())

    @cached_property
    def span_first_rows(self) -> Int64Array:
        """int64[spans + 1]: index of each span's first row, then the number of rows."""
        return _starts(self._numbers("spans", "rows"))

    def span(self, index: int) -> SpanEntry:
        """One span."""
        return SpanEntry(**self._values("spans")[index].as_py())

    @property
    def num_sources(self) -> int:
        return len(self._values("sources"))

    def source(self, index: int) -> dict[str, Any]:
        """Name, size in bytes, content hash and stamp (JSON) of one source."""
        entry: dict[str, Any] = self._values("sources")[index].as_py()
        return entry

    def sources(self) -> list[dict[str, Any]]:
        """As `source`, of all sources."""
        entries: list[dict[str, Any]] = self._values("sources").to_pylist()
        return entries

    def problems(self) -> list[str]:
        """What does not add up between the lists; empty for a sound ledger."""
        found = []
        if self.first_batches[-1] != len(self.batch_offsets):
            found.append("the shards and the list of batches disagree")
        elif self.first_blocks[-1] != len(self.checksums):
            found.append("the batches and the list of checksums disagree")
        if self.num_parts and self._numbers("parts", "batches").sum() != len(self.batch_offsets):
            found.append("the parts and the list of batches disagree")
        if self.num_parts and self.span_first_rows[-1] != self.first_rows[-1]:
            found.append("the spans and the batches disagree about the number of rows")
        return found

    def _values(self, column: str) -> pa.Array:
        return self._batch[column].values

    def _field(self, column: str, name: str) -> pa.Array:
        return self._values(column).field(name)

    def _numbers(self, column: str, name: str) -> Int64Array:
        return number_view(self._field(column, name))


def _one_row(values: Any, kind: pa.DataType) -> pa.Array:
    """A column of one row: `values` itself, or the list of them."""
    if not pa.types.is_list(kind):
        return bytes_array([values], kind)
    items = values if isinstance(values, pa.Array) else struct_array(values, kind.value_type)
    offsets = number_array(np.array([0, len(items)], np.int32))
    return pa.ListArray.from_arrays(offsets, items, type=kind)


def _starts(sizes: Int64Array) -> Int64Array:
    """Exclusive running sum with the total at the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
