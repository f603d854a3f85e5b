"""Writers of shards: record batches in, a file and its ledger entry out.

Both write front to back into an open file. A shard has at least one batch, be it an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.format.checksums import block_checksums
from easydata.format.codecs import Codec
from easydata.format.ledger import ShardEntry
from easydata.format.stream import END_OF_STREAM, encode_batch, encode_schema

__all__ = ["IpcShardWriter", "ParquetShardWriter"]

Pieces = Sequence[bytes | memoryview]
Checksums = npt.NDArray[np.uint64]


class IpcShardWriter:
    """Writes an Arrow IPC stream whose buffers are 64-byte aligned."""

    def __init__(
        self,
        file: BinaryIO,
        schema: pa.Schema,
        metadata: Mapping[bytes, bytes],
        codec: Codec,
    ) -> None:
        """Write the schema message.

        Args:
            file: a new binary file, at its start.
            schema: schema of the batches.
            metadata: schema metadata.
            codec: compression of the batches given to `write`.
        """
        self._file = file
        self._codec = codec
        header = encode_schema(schema, metadata)
        file.write(header)
        self._end = len(header)
        self._batches: list[tuple[int, int, int, int]] = []
        self._checksums = [block_checksums([header])]

    def write(self, batch: pa.RecordBatch, tokens: int) -> None:
        """Encode and append a record batch that holds `tokens` tokens."""
        pieces = encode_batch(batch, self._codec)
        self.write_encoded(pieces, block_checksums(pieces), batch.num_rows, tokens)

    def write_encoded(self, pieces: Pieces, checksums: Checksums, rows: int, tokens: int) -> None:
        """Append a batch that was encoded before, with the checksums it had then."""
        size = 0
        for piece in pieces:
            size += self._file.write(piece)
        self._batches.append((self._end, size, rows, tokens))
        self._checksums.append(checksums)
        self._end += size

    def finish(self, name: str) -> ShardEntry:
        """Write the end-of-stream mark; the caller closes the file."""
        self._file.write(END_OF_STREAM)
        self._checksums.append(block_checksums([END_OF_STREAM]))
        return ShardEntry(
            name,
            self._end + len(END_OF_STREAM),
            np.array(self._batches, np.int64),
            np.concatenate(self._checksums),
        )


class ParquetShardWriter:
    """Writes a Parquet file, one row group per record batch, with page checksums."""

    def __init__(
        self,
        file: BinaryIO,
        schema: pa.Schema,
        metadata: Mapping[bytes, bytes],
        codec: Codec,
    ) -> None:
        """Arguments as for `IpcShardWriter`; the file must be readable too."""
        import pyarrow.parquet as pq

        self._file = file
        self._schema = schema.with_metadata(metadata)
        self._writer = pq.ParquetWriter(
            file, self._schema, write_page_checksum=True, **codec.parquet_options()
        )
        self._sizes: list[tuple[int, int]] = []

    def write(self, batch: pa.RecordBatch, tokens: int) -> None:
        """Append a record batch that holds `tokens` tokens, as one row group."""
        table = pa.Table.from_batches([batch]).cast(self._schema)
        self._writer.write_table(table, row_group_size=max(batch.num_rows, 1))
        self._sizes.append((batch.num_rows, tokens))

    def finish(self, name: str) -> ShardEntry:
        """Write the footer, read the layout back; the caller closes the file."""
        import pyarrow.parquet as pq

        self._writer.close()
        self._file.flush()
        self._file.seek(0)
        footer = pq.read_metadata(self._file)
        extents = [_extent(footer.row_group(i)) for i in range(footer.num_row_groups)]
        starts, ends = [start for start, _ in extents], [end for _, end in extents]
        size = self._file.seek(0, 2)
        batches = [
            (start, end - start, rows, tokens)
            for start, end, (rows, tokens) in zip(starts, ends, self._sizes, strict=True)
        ]
        edges = [0, *starts, ends[-1], size]
        checksums = []
        for start, stop in pairwise(edges):
            self._file.seek(start)
            checksums.append(block_checksums([self._file.read(stop - start)]))
        return ShardEntry(name, size, np.array(batches, np.int64), np.concatenate(checksums))


def _extent(group: Any) -> tuple[int, int]:
    """First byte of a row group, and the one after its last."""
    columns = [group.column(i) for i in range(group.num_columns)]
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    ends = [
        start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)
    ]
    return min(starts), max(ends)
