"""Between Arrow and NumPy arrays, by way of buffers.

The first call of `pyarrow.array` or `Array.to_numpy` in a process imports pandas, if it is
installed, and that of `ListArray.flatten` imports `pyarrow.compute`: half a second, and a tenth
of one, that opening a dataset should not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = [
    "bytes_array",
    "count_values",
    "empty_batch",
    "number_array",
    "number_view",
    "struct_array",
]


def number_array(values: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array that views a one-dimensional array of numbers or (copied) truth values."""
    if values.dtype == np.bool_:
        bits = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])
    kind = pa.from_numpy_dtype(values.dtype)
    contiguous = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(contiguous)])


def number_view(array: pa.Array) -> npt.NDArray[Any]:
    """A read-only NumPy view of an Arrow array of numbers without nulls."""
    data = array.buffers()[1]
    if data is None:
        return np.empty(0, array.type.to_pandas_dtype())
    dtype = array.type.to_pandas_dtype()
    values = np.frombuffer(data, dtype, len(array), array.offset * dtype().itemsize)
    if values.flags.writeable:  # a decompressed buffer
        values.flags.writeable = False
    return values


def count_values(lists: pa.Array) -> int:
    """How many values the lists of a list array hold together."""
    offsets = number_view(lists.offsets)
    return int(offsets[-1] - offsets[0]) if len(offsets) else 0


def bytes_array(values: Sequence[str | bytes | None], kind: pa.DataType) -> pa.Array:
    """An Arrow array of strings or byte strings (`kind` with int32 offsets), copied."""
    items = [b"" if v is None else v.encode() if isinstance(v, str) else v for v in values]
    offsets = np.array([0, *accumulate(map(len, items))], np.int32)
    is_valid = np.array([value is not None for value in values], np.bool_)
    validity = None if is_valid.all() else pa.py_buffer(np.packbits(is_valid, bitorder="little"))
    return pa.Array.from_buffers(
        kind,
        len(items),
        [
            validity,
            pa.py_buffer(offsets),
            pa.py_buffer(b"".join(items)),
        ],
    )


def struct_array(rows: Sequence[dict[str, Any]], kind: pa.StructType) -> pa.Array:
    """An Arrow array of structs of integers, strings and byte strings."""
    columns = []
    for item in kind:
        values = [row[item.name] for row in rows]
        if pa.types.is_integer(item.type):
            is_valid = np.array([value is not None for value in values], np.bool_)
            known = np.array([value or 0 for value in values], item.type.to_pandas_dtype())
            bits = None if is_valid.all() else number_array(is_valid).buffers()[1]
            buffers = [bits, number_array(known).buffers()[1]]
            columns.append(pa.Array.from_buffers(item.type, len(values), buffers))
        else:
            columns.append(bytes_array(values, item.type))
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A record batch without rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, item.type) for item in schema], schema=schema)
