"""How samples of one length lie in record batches; whoever writes samples writes them like this.

Every column is a `fixed_size_list`, so that a sample is an address and nothing else. A record
batch holds a number of samples that most batch sizes divide, so that a batch of neighbours lies
in one record batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.format.arrays import number_array

__all__ = ["Arrays", "SampleLayout"]

# 2^10 · 15, its halves down to 15, and 1.
_BATCH_ROWS = (15360, 7680, 3840, 1920, 960, 480, 240, 120, 60, 30, 15, 1)
_BATCH_BYTES = 64 << 20
_RUN_BYTES = 4 << 20

Arrays = Mapping[str, npt.NDArray[Any]]


class SampleLayout:
    """Columns and record batches of samples.

    Attributes:
        schema: of the batches: `input_ids` and whatever else the samples have, truth values as
            uint8, which NumPy can view.
        row_bytes: bytes in a sample, of all columns.
        rows_per_batch: samples in each record batch but the last.
        rows_per_run: samples that are best read together.
    """

    def __init__(self, arrays: Arrays, seq_len: int) -> None:
        """
        Args:
            arrays: some samples, for the names and types of their columns.
            seq_len: tokens in a sample.
        """
        self._seq_len = seq_len
        self._dtypes = {
            name: np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype
            for name, array in arrays.items()
        }
        self.schema = pa.schema(
            {
                name: pa.list_(pa.from_numpy_dtype(dtype), seq_len)
                for name, dtype in self._dtypes.items()
            }
        )
        self.row_bytes = seq_len * sum(dtype.itemsize for dtype in self._dtypes.values())
        fitting = [rows for rows in _BATCH_ROWS if rows * self.row_bytes <= _BATCH_BYTES]
        self.rows_per_batch = fitting[0] if fitting else 1
        self.rows_per_run = max(_RUN_BYTES // self.row_bytes, 1)

    def batches(self, runs: Iterable[Arrays]) -> Iterator[pa.RecordBatch]:
        """All samples as record batches, each copied into buffers of its own.

        Args:
            runs: the samples in order, any number at a time: dtype[n, seq_len] by name.
        """
        columns, filled = self._columns(), 0
        for run in runs:
            start, stop = 0, len(run["input_ids"])
            while start < stop:
                count = min(stop - start, self.rows_per_batch - filled)
                for name, column in columns.items():
                    column[filled : filled + count] = run[name][start : start + count]
                start, filled = start + count, filled + count
                if filled == self.rows_per_batch:
                    yield self._batch(columns)
                    columns, filled = self._columns(), 0
        if filled:
            # Copied, because the end of a buffer would be written with what follows it.
            yield self._batch({name: column[:filled].copy() for name, column in columns.items()})

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        shape = self.rows_per_batch, self._seq_len
        return {name: np.empty(shape, dtype) for name, dtype in self._dtypes.items()}

    def _batch(self, columns: Arrays) -> pa.RecordBatch:
        lists = [
            pa.FixedSizeListArray.from_arrays(number_array(column.reshape(-1)), self._seq_len)
            for column in columns.values()
        ]
        return pa.RecordBatch.from_arrays(lists, schema=self.schema)
