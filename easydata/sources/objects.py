"""Objects as sources: datasets, Arrow tables and streams, iterables of dicts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_strings
from easydata.sources.blocks import Block
from easydata.sources.byteblock import ByteBlock
from easydata.sources.replay import Replay
from easydata.sources.row_codec import RowParser, encode_row
from easydata.sources.source import BlockStream, Source, first_records
from easydata.sources.table_readers import MemoryTable, TableReader, hub_features
from easydata.sources.tableblock import needed_columns

__all__ = ["ArrowSource", "DatasetSource", "RowsSource", "is_row", "object_source"]

_ROWS_PER_BATCH = 1000
_PEEK_BYTES = 1 << 20


def object_source(value: object) -> Source | None:
    """The source that `value` is; None when it is neither rows nor a table.

    Raises:
        UsageError: it holds rows, but not in a form that can be read.
    """
    kind = type(value).__name__
    datasets = sys.modules.get("datasets")
    if datasets is not None:
        if isinstance(value, datasets.DatasetDict | datasets.IterableDatasetDict):
            splits = ", ".join(repr(split) for split in value)
            raise UsageError(f"A {kind} holds the splits {splits}. Choose one: data['train'].")
        if isinstance(value, datasets.Dataset):
            return _dataset_source(value)
        if isinstance(value, datasets.IterableDataset):
            features = None if value.features is None else value.features.to_dict()
            return RowsSource(f"rows of {kind}", value.with_format(None), features)
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    if hasattr(value, "__arrow_c_stream__"):
        return _arrow_source(value, f"rows of {kind}")
    if isinstance(value, Mapping):
        raise UsageError(f"One {kind} is one row at most. Pass a list of dicts.")
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview):
        name = f"rows of {kind}"
        return RowsSource(name, Replay(value, name) if isinstance(value, Iterator) else value)
    return None


def is_row(value: object) -> bool:
    """Whether `value` is a dict of fields; a DatasetDict is a dict, but of splits."""
    return isinstance(value, Mapping) and not type(value).__module__.startswith("datasets.")


@dataclass(frozen=True)
class DatasetSource:
    """A `datasets.Dataset`, read through its Arrow table in the order of its indices."""

    dataset: Any
    name: str = "rows of Dataset"
    nbytes: int | None = None
    is_file: bool = False

    @property
    def features(self) -> Mapping[str, object] | None:
        return dict(self.dataset.features.to_dict())

    def stamp(self, *, fresh: bool = False) -> None:  # noqa: ARG002
        return None

    def open(self, field_names: Sequence[str] | None, block_bytes: int) -> TableReader:
        schema = self.dataset.features.arrow_schema
        names = needed_columns(schema, field_names, self.name)
        table = MemoryTable(schema, self._batches(names))
        return TableReader(
            table, field_names, block_bytes, self.name, content_hash=self.read_content_hash
        )

    def peek(self, field_names: Sequence[str] | None, num_records: int) -> Sequence[Block]:
        return first_records(self.open(field_names, _PEEK_BYTES), num_records)

    def read_content_hash(self) -> str | None:
        # The library offers its identity of the content under no public name.
        return fingerprint_strings(["datasets", self.dataset._fingerprint])  # noqa: SLF001

    def _batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        view = self.dataset.select_columns(list(names)).with_format("arrow")
        for table in view.iter(batch_size=_ROWS_PER_BATCH):
            yield from table.combine_chunks().to_batches()


@dataclass(frozen=True)
class ArrowSource:
    """An Arrow table or stream, or anything that exports one (pandas, Polars, DuckDB).

    Attributes:
        schema: of the batches.
        stream: the object; a `Replay` of batches where it can be read only once.
    """

    name: str
    schema: pa.Schema
    stream: Any
    nbytes: int | None = None
    is_file: bool = False

    @property
    def features(self) -> Mapping[str, object] | None:
        return hub_features(self.schema)

    def stamp(self, *, fresh: bool = False) -> None:  # noqa: ARG002
        return None

    def open(self, field_names: Sequence[str] | None, block_bytes: int) -> TableReader:
        # Before anything is taken from a stream that gives its batches once.
        needed_columns(self.schema, field_names, self.name)
        if isinstance(self.stream, Replay):
            batches = self.stream.take()
        else:
            batches = iter(pa.RecordBatchReader.from_stream(self.stream))
        return self._reader(batches, field_names, block_bytes)

    def peek(self, field_names: Sequence[str] | None, num_records: int) -> Sequence[Block]:
        if not isinstance(self.stream, Replay):
            return first_records(self.open(field_names, _PEEK_BYTES), num_records)
        # One batch is a good sample, however few rows it has: each held one costs memory.
        batches = iter(self.stream.peek(1))
        return first_records(self._reader(batches, field_names, _PEEK_BYTES), num_records)

    def read_content_hash(self) -> str | None:
        return None

    def _reader(
        self, batches: Iterator[pa.RecordBatch], names: Sequence[str] | None, block_bytes: int
    ) -> TableReader:
        return TableReader(MemoryTable(self.schema, batches), names, block_bytes, self.name)


@dataclass(frozen=True)
class RowsSource:
    """Rows that are dicts.

    Attributes:
        rows: gives the dicts; a `Replay` where it can do that only once.
    """

    name: str
    rows: Any
    features: Mapping[str, object] | None = None
    nbytes: int | None = None
    is_file: bool = False

    def stamp(self, *, fresh: bool = False) -> None:  # noqa: ARG002
        return None

    def open(self, field_names: Sequence[str] | None, block_bytes: int) -> RowsReader:
        rows = self.rows.take() if isinstance(self.rows, Replay) else iter(self.rows)
        return RowsReader(rows, field_names, block_bytes, self.name)

    def peek(self, field_names: Sequence[str] | None, num_records: int) -> Sequence[Block]:
        if isinstance(self.rows, Replay):
            rows = iter(self.rows.peek(num_records))
        else:
            rows = itertools.islice(self.rows, num_records)
        return first_records(RowsReader(rows, field_names, _PEEK_BYTES, self.name), num_records)

    def read_content_hash(self) -> str | None:
        return None


class RowsReader(BlockStream):
    """Reads dicts as blocks of lines of JSON."""

    def __init__(
        self, rows: Iterator[object], names: Sequence[str] | None, block_bytes: int, source: str
    ) -> None:
        self._rows = rows
        self._names = names
        self._block_bytes = block_bytes
        self._source = source
        self._bytes_read = 0

    @property
    def bytes_read(self) -> int:
        return self._bytes_read

    def blocks(self) -> Iterator[Block]:
        lines: list[bytes] = []
        num_bytes = 0
        record = 0
        for index, row in enumerate(self._rows):
            line = encode_row(row, self._names, f"Row {index} of the {self._source}")
            if lines and num_bytes + len(line) > self._block_bytes:
                yield self._block(lines, record)
                lines, num_bytes, record = [], 0, index
            lines.append(line)
            num_bytes += len(line)
        if lines:
            yield self._block(lines, record)

    def _block(self, lines: list[bytes], first_record: int) -> ByteBlock:
        ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
        self._bytes_read += int(ends[-1])
        return ByteBlock(b"".join(lines), ends, RowParser(), first_record)


def _dataset_source(dataset: Any) -> DatasetSource:
    if dataset.format["type"] == "custom":
        raise UsageError(
            "The Dataset has a transform that runs when a row is read (set_transform), which "
            "easydata would leave out. Apply it with .map, or pass an iterable of its rows."
        )
    return DatasetSource(dataset)


def _arrow_source(value: Any, name: str) -> ArrowSource:
    if isinstance(value, pa.RecordBatchReader):
        return ArrowSource(name, value.schema, Replay(iter(value), name))
    return ArrowSource(name, pa.RecordBatchReader.from_stream(value).schema, value)
