"""Arrow objects and pandas DataFrames as the bytes of an Arrow IPC stream, and back."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from easydata._optional import require
from easydata.cache.values.paths import Path, unsupported

__all__ = ["READERS", "is_frame", "table_kind", "table_stream"]

# What pandas and pyarrow raise for a frame that Arrow cannot hold.
_CONVERSION_ERRORS = (
    pa.ArrowException,
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)
_PLAIN_TYPES = frozenset(
    (
        *("NoneType", "bool", "int", "float", "str", "bytes", "Decimal", "date", "time"),
        *("datetime", "timedelta", "Timestamp", "Timedelta", "NAType", "NaTType"),
    )
)


def is_frame(value: object) -> bool:
    """Whether a value is a pandas DataFrame (no subclass), without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and type(value) is pandas.DataFrame


def table_kind(value: object) -> str | None:
    """The name in recipes of the kind of Arrow object or DataFrame, None for anything else."""
    kind = type(value)
    if kind is pa.Table:
        return "arrow.table"
    if kind is pa.RecordBatch:
        return "arrow.batch"
    if kind is pa.ChunkedArray:
        return "arrow.chunked"
    if isinstance(value, pa.Array):
        return "arrow.array"
    return "pandas.frame" if is_frame(value) else None


def table_stream(kind: str, value: Any, path: Path) -> bytes:
    """The Arrow IPC stream of a value of that kind: one copy of its rows.

    Raises:
        UnsupportedValueError: what would be read back is not the same.
    """
    if kind == "pandas.frame":
        return _frame_stream(value, path)
    table = value
    if kind == "arrow.chunked":
        table = pa.Table.from_arrays([value], names=["item"])
    elif kind == "arrow.array":
        table = pa.RecordBatch.from_arrays([value], names=["item"])
    try:
        stream = _stream(table)
        back = READERS[kind](stream)
    except (pa.ArrowException, NotImplementedError) as error:
        raise unsupported(path, f"cannot be written as Arrow IPC: {error}") from error
    if not _same_type(value, back):
        raise unsupported(
            path,
            "does not come back from Arrow IPC with its type and length. "
            "Register its extension type, or pass the storage array.",
        )
    return stream


def _stream(table: Any) -> bytes:
    sink = io.BytesIO()  # gives its bytes without a copy
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue()


def _same_type(value: Any, back: Any) -> bool:
    if hasattr(value, "schema"):
        same = value.schema.equals(back.schema, check_metadata=True)
        return same and value.num_rows == back.num_rows
    return value.type.equals(back.type) and len(value) == len(back)


def _open(stream: Any) -> Any:
    return pa.ipc.open_stream(pa.py_buffer(stream))


def read_table(stream: Any) -> pa.Table:
    """A table that views the bytes of its stream."""
    table = _open(stream).read_all()
    table.validate(full=True)
    return table


def read_batch(stream: Any) -> pa.RecordBatch:
    """A record batch that views the bytes of its stream."""
    batch = _open(stream).read_next_batch()
    batch.validate(full=True)
    return batch


def read_chunked(stream: Any) -> pa.ChunkedArray:
    """A chunked array that views the bytes of its stream."""
    return read_table(stream).column(0)


def read_array(stream: Any) -> pa.Array:
    """An array that views the bytes of its stream."""
    return read_batch(stream).column(0)


def read_frame(stream: Any) -> Any:
    """A new DataFrame.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    require("pandas", extra="pandas", purpose="A stored DataFrame")
    return read_table(stream).to_pandas()


READERS: dict[str, Callable[[Any], Any]] = {
    "arrow.table": read_table,
    "arrow.batch": read_batch,
    "arrow.array": read_array,
    "arrow.chunked": read_chunked,
    "pandas.frame": read_frame,
}


def _frame_stream(frame: Any, path: Path) -> bytes:
    """The stream of a frame that comes back equal: values, dtypes, index, column labels, attrs."""
    labels = {type(label) for label in frame.columns}
    if len(labels) > 1:
        names = ", ".join(sorted(label.__name__ for label in labels))
        raise unsupported(path, f"has column labels of several types ({names}). Use strings.")
    try:
        stream = _stream(pa.Table.from_pandas(frame))
        difference = _difference(frame, read_frame(stream))
    except _CONVERSION_ERRORS as error:
        difference = str(error)
    if difference:
        raise unsupported(
            path,
            "is a DataFrame that Arrow would change, so it cannot be stored. Convert the columns "
            f"(astype) or store their arrays. The difference: {difference}",
        )
    return stream


def _difference(frame: Any, back: Any) -> str:
    """What differs between two frames, in words; "" for nothing."""
    from pandas.testing import assert_frame_equal

    try:
        assert_frame_equal(
            frame, back, check_exact=True, check_index_type=True, check_column_type="equiv"
        )
    except AssertionError as error:
        return str(error)
    if repr(frame.attrs) != repr(back.attrs):
        return f"attrs {frame.attrs!r} come back as {back.attrs!r}"
    columns = [(frame.iloc[:, at], back.iloc[:, at]) for at in range(frame.shape[1])]
    for level in range(frame.index.nlevels):
        pair = frame.index.get_level_values(level), back.index.get_level_values(level)
        columns.append(pair)
    for before, after in columns:
        if str(before.dtype) == "object" and not _same_objects(list(before), list(after)):
            return f"objects of column {before.name!r} come back as others, or can be changed"
    return ""


def _same_objects(before: list[Any], after: list[Any]) -> bool:
    return all(
        type(left) is type(right)
        and type(left).__name__ in _PLAIN_TYPES
        and repr(left) == repr(right)
        for left, right in zip(before, after, strict=True)
    )
