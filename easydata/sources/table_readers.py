"""Reading tables batch by batch: Parquet, Arrow files, Arrow streams, and tables in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from easydata.errors import SourceError
from easydata.sources.blocks import Block
from easydata.sources.source import BlockStream
from easydata.sources.tableblock import TableBlock, needed_columns, table_block

__all__ = [
    "ArrowFile",
    "ArrowStream",
    "MemoryTable",
    "ParquetTable",
    "TableInput",
    "TableReader",
    "hub_features",
]

_ROWS_PER_BATCH = 1024
_BUFFER_BYTES = 1 << 20


class TableInput(Protocol):
    """A table of which batches can be read once, from the first to the last."""

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def share_read(self) -> float | None:
        """How much of the table was read, from 0 to 1; None where that is not known."""

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The batches, with at least the columns `names`."""

    def close(self) -> None: ...


class TableReader(BlockStream):
    """Reads a table as blocks of rows.

    Args:
        table: what to read; closed with this reader.
        names: the text column, then the columns to keep; None for all columns.
        block_bytes: about the most bytes of text in a block.
        source: name of the source, for messages.
        position: the raw bytes read so far, given the share of the table that was read; without
            it the bytes of the texts count.
        content_hash: gives the hash of the content once everything was read.

    Raises:
        SourceError: a column is missing, or holds no text.
    """

    def __init__(
        self,
        table: TableInput,
        names: Sequence[str] | None,
        block_bytes: int,
        source: str,
        *,
        position: Callable[[float | None], int] | None = None,
        content_hash: Callable[[], str | None] | None = None,
    ) -> None:
        try:
            self._names = needed_columns(table.schema, names, source)
        except SourceError:
            table.close()
            raise
        self._whole = names is None
        self._table = table
        self._block_bytes = block_bytes
        self._source = source
        self._position = position
        self._read_hash = content_hash
        self._content_hash: str | None = None
        self._text_bytes = 0

    @property
    def bytes_read(self) -> int:
        if self._position is None:
            return self._text_bytes
        return self._position(self._table.share_read)

    @property
    def content_hash(self) -> str | None:
        return self._content_hash

    def blocks(self) -> Iterator[Block]:
        record = 0
        try:
            for batch in self._table.batches(self._names):
                whole = table_block(batch, self._names, record, whole=self._whole)
                record += whole.num_records
                for block in _cut(whole, self._block_bytes):
                    self._text_bytes += block.nbytes
                    yield block
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{self._source} is damaged after row {record}: {error}. "
                "Download or write it again."
            ) from error
        if self._read_hash is not None:
            self._content_hash = self._read_hash()

    def empty_block(self) -> TableBlock:
        batch = pa.RecordBatch.from_pylist([], schema=self._table.schema)
        return table_block(batch, self._names, 0, whole=self._whole)

    def close(self) -> None:
        self._table.close()


def hub_features(schema: pa.Schema) -> Mapping[str, object] | None:
    """The HuggingFace features that `datasets` writes into a schema, as JSON; None without."""
    written = (schema.metadata or {}).get(b"huggingface")
    if written is None:
        return None
    try:
        features = json.loads(written)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return None
    return features if isinstance(features, dict) else None


def _cut(block: TableBlock, block_bytes: int) -> Iterator[TableBlock]:
    ends = block.ends
    start = 0
    while start < block.num_records:
        begin = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, begin + block_bytes, "right")), start + 1)
        yield block.slice(start, stop)
        start = stop


class ParquetTable:
    """A Parquet file, read column by column through small buffers.

    Args:
        file: what `pyarrow.parquet.ParquetFile` takes: a path or a file open for reading.
    """

    def __init__(self, file: Any) -> None:
        # 40 ms to import, and most sources are not Parquet.
        from pyarrow import parquet

        self._owned = file
        self._file = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self._rows_read = 0

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow

    @property
    def share_read(self) -> float | None:
        return self._rows_read / max(int(self._file.metadata.num_rows), 1)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._file.iter_batches(
            _ROWS_PER_BATCH, columns=list(names), use_threads=False
        ):
            self._rows_read += batch.num_rows
            yield batch

    def close(self) -> None:
        self._file.close()
        _close(self._owned)


class ArrowFile:
    """An Arrow IPC file, which has an index of its batches."""

    def __init__(self, file: Any) -> None:
        self._owned = file
        self._schema = pa.ipc.open_file(file).schema
        self._batches_read = 0
        self._num_batches = 1

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def share_read(self) -> float | None:
        return self._batches_read / self._num_batches

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = [self._schema.get_field_index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        reader = pa.ipc.open_file(self._owned, options=options)
        self._num_batches = max(int(reader.num_record_batches), 1)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            _check(batch)
            self._batches_read += 1
            yield batch

    def close(self) -> None:
        _close(self._owned)


class ArrowStream:
    """An Arrow IPC stream."""

    share_read: float | None = None

    def __init__(self, file: Any) -> None:
        self._owned = file
        self._reader = pa.ipc.open_stream(file)

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._reader:
            needed = batch.select(list(names))
            _check(needed)
            yield needed

    def close(self) -> None:
        _close(self._owned)


class MemoryTable:
    """Batches that exist already, or are made while they are read."""

    share_read: float | None = None

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return (batch.select(list(names)) for batch in self._batches)

    def close(self) -> None:
        """Nothing is held open."""


def _check(batch: pa.RecordBatch) -> None:
    """Refuse offsets that lead outside their buffer: they kill the process when followed.

    Text is checked as bytes. That it is UTF-8 is a matter of single rows, found when they are
    parsed.
    """
    bytes_of = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        kind = bytes_of.get(column.type)
        (column if kind is None else column.view(kind)).validate(full=True)


def _close(file: Any) -> None:
    if hasattr(file, "close"):
        file.close()
