"""What Parquet can hold: it has fewer types than Arrow, and gives some back as others."""

from __future__ import annotations

import io

import pyarrow as pa

from easydata.errors import UsageError
from easydata.format.arrays import empty_batch

__all__ = ["ParquetTypes", "as_written"]


def as_written(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """What was read from Parquet, its columns cast to the types of `schema` where they differ."""
    for number, (there, here) in enumerate(zip(table.schema, schema, strict=True)):
        if there.type != here.type:
            table = table.set_column(number, here, table.column(number).cast(here.type))
    return table


class ParquetTypes:
    """The types that the columns of a schema have in Parquet."""

    def __init__(self, schema: pa.Schema) -> None:
        """Try with no rows.

        Raises:
            UsageError: Parquet cannot hold one of the columns.
        """
        import pyarrow.parquet as pq

        file = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_batches([empty_batch(schema)]), file)
            found = pq.ParquetFile(file).read()
            as_written(found, schema)
        except pa.ArrowException as error:
            raise UsageError(
                f"Parquet (compression 'gzip') cannot hold these columns: {error} "
                "Use compression='zstd', or cast them to other types."
            ) from error
        self._stored = found.schema
        self._differ = [
            number
            for number, (there, here) in enumerate(zip(found.schema, schema, strict=True))
            if there.type != here.type
        ]

    def check(self, batch: pa.RecordBatch) -> None:
        """
        Raises:
            UsageError: a value would come back as another, or not at all.
        """
        for number in self._differ:
            column, kind = batch.column(number), self._stored.field(number).type
            try:
                if column.cast(kind).cast(column.type).equals(column):
                    continue
                why = "some values would be rounded"
            except pa.ArrowException as error:
                why = str(error)
            raise UsageError(
                f"Parquet (compression 'gzip') stores the column {batch.schema.names[number]!r} as "
                f"{kind}, which cannot hold all of its {column.type}: {why}. "
                "Use compression='zstd', or cast it to another type."
            )
