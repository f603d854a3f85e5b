"""Arrow tables of entries: a row for each, with the columns of its value.

Entries of one block are rows of that block's record batch, which views the map of its file.
Entries from here and there are copied into batches of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.cache.log.entry import Entry
from easydata.cache.log.layout import NEVER, NUM_OWN, ColumnKinds, ColumnLayout, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.segment import Segment
from easydata.cache.values import decode, encode, stored_type
from easydata.cache.values.columns import BUFFERS
from easydata.errors import EasyDataError

__all__ = ["TableMaker", "encode_table", "is_run", "whole_table"]

_COPIED_ROWS = 1000
_COPIED_BYTES = 32 << 20
_KEYS, _RECIPES = 3, 5  # places among the cache's own columns
_SHOWN_CHARACTERS = 200
_MOST_BYTES = 2**31 - 1  # that int32 offsets count
_READ_TABLE = b'{"column":"arrow.table"}'
_TABLES = {_READ_TABLE, b'{"column":"arrow.batch"}', b'{"column":"pandas.frame"}'}
_SHOWN = ("value", "text")

_Columns = tuple[ColumnLayout, ...]
_Sort = tuple[str, str]  # a name of columns, and which of those have a type in common


class _Piece(NamedTuple):
    """Rows of one layout: the cache's own columns, then the values'."""

    columns: _Columns
    batch: pa.RecordBatch


class TableMaker:
    """Collects entries, and makes a table of them in the order in which they were added.

    The columns are those of the values, by name. Where an entry lacks one, it is null. Numbers of
    different types become the type that NumPy gives to both, so do lists of them, and text beside
    bytes becomes bytes. Where numbers, lists, and text or bytes have one name, what comes later is
    in a column NAME:number, NAME:list or NAME:text.

    Lists are flat: an array of several dimensions is there without its shape. Nothing is shown of
    None, dates, and what lies inside lists and tuples; but an entry with nothing else is its
    `repr` in the column `value`, cut off after 200 characters.
    """

    def __init__(self, *, with_keys: bool) -> None:
        """
        Args:
            with_keys: begin with a column `key`; a value's own one is called `value.key`.
        """
        self._with_keys = with_keys
        self._pieces: list[tuple[list[_Piece], npt.NDArray[np.int64] | None]] = []
        self._copied: list[tuple[EntryCodec, Entry]] = []
        self._copied_bytes = 0

    def add_rows(self, segment: Segment, unit: int, rows: npt.NDArray[np.int64]) -> None:
        """Add one or more rows of a block: views, if they lie one after another.

        Raises:
            CorruptShardError: the block's bytes are not those that were written.
        """
        self._finish_copied()
        view, start = segment.blocks.block(unit)
        batch = _read(segment.codec, view, start)
        if is_run(rows):
            batch = batch.slice(int(rows[0]), len(rows))
        else:
            columns = [_take(column, rows) for column in batch.columns]
            batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
        self._pieces.append(([_Piece(segment.codec.layout.columns, batch)], None))

    def add_entry(self, codec: EntryCodec, entry: Entry, size: int) -> None:
        """Add an entry, which is copied, now or later.

        Args:
            codec: of its columns.
            entry: what to add.
            size: how many bytes it has.
        """
        if len(self._copied) == _COPIED_ROWS or self._copied_bytes + size > _COPIED_BYTES:
            self._finish_copied()
        self._copied.append((codec, entry))
        self._copied_bytes += size

    def finish(self) -> pa.Table:
        """The table of all that was added."""
        self._finish_copied()
        fields = self._fields()
        schema = pa.schema(list(fields.values()))
        if self._with_keys:
            schema = schema.insert(0, pa.field("key", pa.string()))
        tables = []
        for pieces, order in self._pieces:
            batches = [self._fitted(piece, fields, schema) for piece in pieces]
            table = pa.Table.from_batches(batches, schema)
            tables.append(table if order is None else table.take(_numbers(order)))
        return pa.concat_tables(tables) if tables else pa.Table.from_batches([], schema)

    def _finish_copied(self) -> None:
        if not self._copied:
            return
        by_columns: dict[_Columns, list[int]] = {}
        for at, (codec, _) in enumerate(self._copied):
            by_columns.setdefault(codec.layout.columns, []).append(at)
        pieces = []
        for columns, places in by_columns.items():
            codec = self._copied[places[0]][0]
            message = codec.encode_rows([self._copied[at][1] for at in places])
            pieces.append(_Piece(columns, _read(codec, memoryview(message), 0)))
        order = None
        if len(pieces) > 1:
            order = np.argsort(np.concatenate(list(by_columns.values())))
        self._pieces.append((pieces, order))
        self._copied, self._copied_bytes = [], 0

    def _fields(self) -> dict[_Sort, pa.Field]:
        types: dict[_Sort, pa.DataType] = {}
        layouts = (piece.columns for pieces, _ in self._pieces for piece in pieces)
        for columns in dict.fromkeys(layouts):
            for _, sort, kind in _visible(columns):
                types[sort] = _common_type(types.get(sort, kind), kind)
        names = _names(list(types), {"key"} if self._with_keys else set())
        return {sort: pa.field(names[sort], kind) for sort, kind in types.items()}

    def _fitted(
        self, piece: _Piece, fields: dict[_Sort, pa.Field], schema: pa.Schema
    ) -> pa.RecordBatch:
        """The rows of a piece with the columns of the table."""
        columns, batch = piece
        own: dict[_Sort, pa.Array] = {}
        for at, sort, _ in _visible(columns):
            array = _shown(batch) if at is None else batch.column(NUM_OWN + at)
            kind = fields[sort].type
            # What `safe` forbids is to round integers beyond 2**53, as NumPy does.
            own[sort] = array if array.type == kind else array.cast(kind, safe=False)
        arrays = [batch.column(_KEYS)] if self._with_keys else []
        for sort, field in fields.items():
            arrays.append(own[sort] if sort in own else pa.nulls(batch.num_rows, field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def encode_table(items: Sequence[tuple[str, Any]], *, is_single: bool) -> pa.Table:
    """The table that `TableMaker` makes of values, in their order; without their keys.

    Args:
        items: pairs of key and value.
        is_single: one key was asked for: if its value is a table, record batch or DataFrame, that
            is the result, with all its rows.

    Raises:
        UnsupportedValueError: a value is none of those that can be cached.
    """
    maker = TableMaker(with_keys=False)
    for key, value in items:
        recipe, columns = encode(value)
        if is_single:
            table = whole_table(recipe, [column.data for column in columns])
            if table is not None:
                return table
        kinds = tuple((column.name, stored_type(column.kind)) for column in columns)
        data = [column.data for column in columns]
        entry = Entry(key.encode(), 0, 0, NEVER, b"", recipe, data)
        size = sum(len(item) if hasattr(item, "__len__") else 0 for item in data)
        maker.add_entry(_codec(kinds), entry, size)
    return maker.finish()


def whole_table(recipe: bytes, columns: Sequence[Any]) -> pa.Table | None:
    """The table that a value is, with pandas' index among its columns; None for other values.

    Args:
        recipe: of the value.
        columns: its data, as `decode` takes them. The table views them.

    Raises:
        DatasetError: they are not what was written.
    """
    return decode(_READ_TABLE, columns) if recipe in _TABLES else None


def is_run(rows: npt.NDArray[np.int64]) -> bool:
    """Whether these rows of a block, at least one, lie one after another."""
    return bool(rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all())


@functools.lru_cache(maxsize=64)
def _codec(kinds: ColumnKinds) -> EntryCodec:
    return EntryCodec(EntryLayout(kinds))


def _read(codec: EntryCodec, view: memoryview, start: int) -> pa.RecordBatch:
    """The batch of a plain message: views of its bytes."""
    message = pa.py_buffer(view[start : start + codec.message_bytes(view, start)])
    return pa.ipc.read_record_batch(message, codec.layout.schema)


@functools.lru_cache(maxsize=1024)
def _visible(columns: _Columns) -> list[tuple[int | None, _Sort, pa.DataType]]:
    """Place, sort and type of the columns of values that are shown; of a text of them if none."""
    found: list[tuple[int | None, _Sort, pa.DataType]] = []
    for at, column in enumerate(columns):
        if column.name != BUFFERS:
            # The only numbers of one byte are truth values.
            kind = pa.bool_() if pa.types.is_uint8(column.kind) else column.kind
            found.append((at, (column.name, _family(kind)), kind))
    return found or [(None, _SHOWN, pa.string())]


def _family(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "list"
    return "text" if pa.types.is_string(kind) or pa.types.is_binary(kind) else "number"


def _common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The type that holds the values of both, which are of one family."""
    if left == right:
        return left
    if pa.types.is_list(left):
        return pa.list_(_common_type(left.value_type, right.value_type))
    if _family(left) == "text":
        return pa.binary()
    return pa.from_numpy_dtype(np.promote_types(left.to_pandas_dtype(), right.to_pandas_dtype()))


def _names(sorts: Iterable[_Sort], taken: set[str]) -> dict[_Sort, str]:
    """For each sort of columns another name, none of `taken`."""
    reserved = set(taken)
    names = {}
    for name, family in sorts:  # first, so that nobody else has a name that can be kept
        if name not in taken:
            taken.add(name)
            names[name, family] = name
    for name, family in sorts:
        if (name, family) in names:
            continue
        new = f"value.{name}" if name in reserved else name
        if new in taken:
            new = f"{new}:{family}"
        while new in taken:
            new += "'"
        taken.add(new)
        names[name, family] = new
    return names


def _shown(batch: pa.RecordBatch) -> pa.Array:
    """A text for each value."""
    texts = []
    for row in range(batch.num_rows):
        recipe = batch.column(_RECIPES)[row].as_buffer().to_pybytes()
        buffers = [column[row].as_buffer() for column in batch.columns[NUM_OWN:]]
        texts.append(_shortened(_text(recipe, buffers)).encode("utf-8", "backslashreplace"))
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    data = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.string(), len(texts), data)


def _text(recipe: bytes, columns: Sequence[Any]) -> str:
    try:
        with np.errstate(all="ignore"):
            return repr(decode(recipe, columns))
    except (EasyDataError, ValueError) as error:  # integers of so many digits are not printed
        return f"{type(error).__name__}: {error}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _take(array: pa.Array, rows: npt.NDArray[np.int64]) -> pa.Array:
    """Rows of a column of a block: a copy."""
    if not pa.types.is_list(array.type):
        return array.take(_numbers(rows))
    # Arrow takes runs of bytes 25 times as fast as lists.
    items = array.type.value_type
    width = items.bit_width // 8
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1)
    # Without any items there may be no buffer for them.
    if not 0 < int(offsets[-1]) * width <= _MOST_BYTES:
        return array.take(_numbers(rows))
    data = [None, pa.py_buffer(offsets * np.int32(width)), array.buffers()[3]]
    taken = pa.Array.from_buffers(pa.binary(), len(array), data).take(_numbers(rows))
    _, ends, values = taken.buffers()
    offsets = np.frombuffer(ends, np.int32, len(rows) + 1) // np.int32(width)
    child = pa.Array.from_buffers(items, int(offsets[-1]), [None, values])
    return pa.Array.from_buffers(
        array.type, len(rows), [None, pa.py_buffer(offsets)], children=[child]
    )


def _numbers(rows: npt.NDArray[np.int64]) -> pa.Array:
    # `pa.array` imports pandas, which takes most of a second.
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)])
