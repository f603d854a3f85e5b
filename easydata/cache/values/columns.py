"""What an encoded value consists of: a recipe and columns; the closed set of column kinds.

kind                                     Arrow               data
|i1 |u1 <i2 <u2 <i4 <u4 <i8 <u8          list<int8> …        ndarray of that dtype, [items]
<f2 <f4 <f8                              list<halffloat> …   ndarray of that dtype, [items]
utf8                                     string              bytes, valid UTF-8
binary                                   binary              bytes
int64, float64, bool                     the same            int, float, bool
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

__all__ = [
    "BUFFERS",
    "BUFFER_ALIGNMENT",
    "LIST_KINDS",
    "Column",
    "Encoded",
    "arrow_type",
    "stored_type",
]

BUFFERS = "\\buffers"  # no key is ever escaped to this
BUFFER_ALIGNMENT = 64

LIST_KINDS = {
    "|i1": pa.int8(),
    "|u1": pa.uint8(),
    "<i2": pa.int16(),
    "<u2": pa.uint16(),
    "<i4": pa.int32(),
    "<u4": pa.uint32(),
    "<i8": pa.int64(),
    "<u8": pa.uint64(),
    "<f2": pa.float16(),
    "<f4": pa.float32(),
    "<f8": pa.float64(),
}
_ARROW_TYPES = {
    **{kind: pa.list_(item) for kind, item in LIST_KINDS.items()},
    "utf8": pa.string(),
    "binary": pa.binary(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}


class Column(NamedTuple):
    """One column of one entry.

    `name` is unique in the entry. `kind` is one of the table above. `data` is what the table
    says: an array is one-dimensional, contiguous, and may be a view of the value that was encoded,
    so that it has to be written before the caller can change it.
    """

    name: str
    kind: str
    data: Any


class Encoded(NamedTuple):
    """A value as a recipe (ASCII JSON, see `recipe.py`) and its columns, in order."""

    recipe: bytes
    columns: tuple[Column, ...]


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of a column of this kind.

    Raises:
        KeyError: there is no such kind.

    >>> str(arrow_type("<u2")), str(arrow_type("utf8"))
    ('list<item: uint16>', 'string')
    """
    return _ARROW_TYPES[kind]


def stored_type(kind: str) -> pa.DataType:
    """The Arrow type of such a column in the log, where bits would need a layout of their own."""
    return pa.uint8() if kind == "bool" else arrow_type(kind)
