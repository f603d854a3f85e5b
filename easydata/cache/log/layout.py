"""Where the bytes of a batch of entries lie: one rule for one row and for thousands.

A segment of the log is an Arrow IPC stream of record batches. Each entry is a row: six columns
of the cache's own, then those of its value. Making a message with pyarrow takes 30 µs a row, so
messages are made from a template: a header that pyarrow wrote once for the schema, in which
only lengths and positions are patched. That works because the body is laid out by this rule
alone, for n rows:

    fixed     hash, stamp and expiry: 8 bytes a row; offsets of key, metadata, recipe and of the
              value's lists, strings and bytes: int32[n + 1]; the value's numbers: n items.
              Each run of these is padded to 8 bytes.
    small     bytes of all keys, of all metadata, of all recipes; each padded to 8 bytes
    data      the value's columns, each at a multiple of 64 bytes from the start of the message
    tail      zeros, and as the last 8 bytes the XXH3-64 of all other bytes of the message

A message starts at a multiple of 64 bytes and its size is one, so that views of the data are
aligned in a map. Arrow allows gaps between buffers: plain readers skip the checksum unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from easydata.format.alignment import ALIGNMENT

__all__ = [
    "CHECKSUM_BYTES",
    "NEVER",
    "NUM_OWN",
    "NUM_OWN_RUNS",
    "ColumnKinds",
    "ColumnLayout",
    "EntryLayout",
    "body_bytes",
    "padded",
]

CHECKSUM_BYTES = 8
NEVER = 2**63 - 1  # the expiry of an entry that does not expire

_PREFIX = "easydata:"
_OWN = pa.schema(
    [
        pa.field(f"{_PREFIX}hash", pa.uint64(), nullable=False),
        pa.field(f"{_PREFIX}stamp", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field(f"{_PREFIX}expires", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field(f"{_PREFIX}key", pa.string(), nullable=False),
        pa.field(f"{_PREFIX}metadata", pa.string(), nullable=False),
        pa.field(f"{_PREFIX}recipe", pa.string(), nullable=False),
    ]
)
NUM_OWN = len(_OWN)
NUM_OWN_RUNS = 3  # key, metadata and recipe are runs of characters


ColumnKinds = tuple[tuple[str, pa.DataType], ...]  # name and type of each column of a value


def padded(size: int, multiple: int = 8) -> int:
    """`size` rounded up."""
    return -(-size // multiple) * multiple


class ColumnLayout(NamedTuple):
    """How a column of a value lies in a batch.

    Attributes:
        name: as the value's codec calls it.
        kind: its Arrow type: a list of numbers, string, binary, or a number.
        item_bytes: size of an item of a list, of a character or byte (1), or of a number.
        is_run: it has offsets: each row is a run of items.
    """

    name: str
    kind: pa.DataType
    item_bytes: int
    is_run: bool


class EntryLayout:
    """The schema of a segment, and the positions that follow from it.

    Attributes:
        schema: of the segment: the cache's columns, then the value's.
        columns: the value's columns.
        dtypes: for each of them the dtype of the items of its lists, or None for other kinds.
    """

    def __init__(self, columns: Sequence[tuple[str, pa.DataType]]) -> None:
        """
        Args:
            columns: name and type of each column of the value.

        Raises:
            ValueError: a type that is none of those that `ColumnLayout` names.
        """
        self.columns = tuple(_column(name, kind) for name, kind in columns)
        self.dtypes = tuple(
            np.dtype(c.kind.value_type.to_pandas_dtype()) if pa.types.is_list(c.kind) else None
            for c in self.columns
        )
        fields = [pa.field(physical_name(c.name), c.kind, nullable=False) for c in self.columns]
        self.schema = pa.schema([*_OWN, *fields])

    @classmethod
    def from_schema(cls, schema: pa.Schema) -> Self:
        """The layout of a segment with this schema.

        Raises:
            ValueError: it is not the schema of a segment.
        """
        if schema.names[:NUM_OWN] != _OWN.names:
            raise ValueError("it lacks the columns of a cache")
        columns = [(logical_name(item.name), item.type) for item in list(schema)[NUM_OWN:]]
        found = cls(columns)
        if not found.schema.equals(schema):
            raise ValueError("its columns are not those of a cache")
        return found

    def fixed_bytes(self, rows: int) -> int:
        """Size of the fixed part."""
        starts = self.fixed_starts(rows)
        return starts[-1]

    def fixed_starts(self, rows: int) -> list[int]:
        """Position in the body of each run of the fixed part, then the end of the last:
        hash, stamp, expiry, offsets of key, metadata, recipe, then one for each column.
        """
        offsets_bytes = padded(4 * (rows + 1))
        sizes = [8 * rows] * 3 + [offsets_bytes] * 3
        sizes += [offsets_bytes if c.is_run else padded(c.item_bytes * rows) for c in self.columns]
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + size)
        return starts

    def data_starts(self, fixed_bytes: int, sizes: Sequence[int]) -> list[int]:
        """Position in the body of each run of bytes: keys, metadata, recipes, then of each
        column that has offsets; then the end of the last.

        Args:
            fixed_bytes: the size of the fixed part.
            sizes: bytes of each run.
        """
        starts = []
        position = fixed_bytes
        for index, size in enumerate(sizes):
            if index >= NUM_OWN_RUNS:
                position = padded(position, ALIGNMENT)
            starts.append(position)
            position += padded(size)
        return [*starts, position]


def body_bytes(end_of_data: int) -> int:
    """Size of a body whose data ends there."""
    return padded(end_of_data + CHECKSUM_BYTES, ALIGNMENT)


def physical_name(name: str) -> str:
    """The name in the segment's schema of a value's column; the cache's own stay apart."""
    return f"{_PREFIX}{name}" if name.startswith(_PREFIX) else name


def logical_name(name: str) -> str:
    """The inverse of `physical_name`."""
    return name.removeprefix(_PREFIX)


def _column(name: str, kind: pa.DataType) -> ColumnLayout:
    types = pa.types
    if types.is_list(kind) and _is_number(kind.value_type):
        return ColumnLayout(name, kind, kind.value_type.bit_width // 8, is_run=True)
    if types.is_string(kind) or types.is_binary(kind):
        return ColumnLayout(name, kind, 1, is_run=True)
    if _is_number(kind):
        return ColumnLayout(name, kind, kind.bit_width // 8, is_run=False)
    raise ValueError(f"no layout for a column of type {kind}")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)
