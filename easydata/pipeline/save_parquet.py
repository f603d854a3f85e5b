"""Saving as Parquet, with page checksums."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from easydata.format.codecs import Codec
from easydata.pipeline.save_formats import Piece, schema_metadata

if TYPE_CHECKING:
    from easydata.pipeline.save_rows import SavedRows

__all__ = ["ParquetFormat"]

# Parquet has no integers of 16 bits: without compression, an id takes 32, and where a dictionary
# did not help, the dictionary and the numbers into it lie in the file as well.
_MOST_GROWTH = 3.5
_CHUNK_BYTES = 512  # headers and footer of one column in one row group
_FOOTER_BYTES = 1024


class ParquetFormat:
    """See `Format`. Each piece is a row group."""

    suffix = ".parquet"
    piece_bytes = 32 << 20
    piece_rows: int | None = None

    def __init__(self, rows: SavedRows, codec: Codec) -> None:
        self._schema = rows.schema.with_metadata(schema_metadata(rows.schema, rows))
        self._codec = codec
        self._num_leaves = sum(_count_leaves(item.type) for item in self._schema)

    def encode(self, batch: pa.RecordBatch) -> Piece:
        num_bytes = int(batch.nbytes * _MOST_GROWTH) + self._num_leaves * _CHUNK_BYTES
        return Piece(batch.num_rows, num_bytes, batch)

    def open(self, file: BinaryIO) -> ParquetFile:
        return ParquetFile(file, self._schema, self._codec, self._num_leaves)

    def finish(self, folder: Path, names: Sequence[str], files: Sequence[Any]) -> None:
        pass  # the files say all


class ParquetFile:
    """See `ShardFile`."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, codec: Codec, num_leaves: int) -> None:
        import pyarrow.parquet as pq

        self._file = file
        self._schema = schema
        # Those of text can be long and are of little use: no bound of a file's size needs them.
        counted = [item.name for item in schema if pa.types.is_primitive(item.type)]
        self._writer = pq.ParquetWriter(
            file,
            schema,
            write_page_checksum=True,
            write_statistics=counted,
            **codec.parquet_options(),
        )
        # The Arrow schema lies in the footer too, in base 64, and repeats the metadata.
        self._footer_bytes = _FOOTER_BYTES + 3 * len(schema.serialize()) + num_leaves * _CHUNK_BYTES
        self._group_bytes = num_leaves * _CHUNK_BYTES

    @property
    def num_bytes(self) -> int:
        return self._file.tell() + self._footer_bytes

    def write(self, piece: Piece) -> None:
        batch: pa.RecordBatch = piece.data
        table = pa.Table.from_batches([batch]).cast(self._schema)
        self._writer.write_table(table, row_group_size=max(batch.num_rows, 1))
        self._footer_bytes += self._group_bytes

    def finish(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        # It writes a footer at last, for which there may be no room.
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()


def _count_leaves(kind: pa.DataType) -> int:
    if pa.types.is_struct(kind):
        return sum(_count_leaves(item.type) for item in kind)
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return _count_leaves(kind.value_type) if is_list else 1
