"""A row group of a Parquet shard as a record batch."""

from __future__ import annotations

import pyarrow as pa

from easydata.format.arrays import empty_batch

__all__ = ["read_row_group"]


def read_row_group(data: pa.Buffer, index: int, schema: pa.Schema) -> pa.RecordBatch:
    """A row group, decoded, its pages compared with their checksums, and validated.

    Args:
        data: the whole file.
        index: of the row group in it.
        schema: of the record batch.

    Raises:
        pyarrow.ArrowException: the bytes are no such row group.
        OSError: a page does not match its checksum.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    table = file.read_row_group(index).replace_schema_metadata(None)
    batches = table.cast(schema).combine_chunks().to_batches()
    if not batches:
        return empty_batch(schema)
    batches[0].validate(full=True)
    return batches[0]
