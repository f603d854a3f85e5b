"""Values to recipes and columns: every value, whatever its structure.

Leaves that are reached from the root through dicts become columns. Everything inside lists and
tuples, and everything where there would be more than `MAX_COLUMNS` columns, stands in the recipe,
large things in the buffers column.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.cache.values import leaves
from easydata.cache.values.columns import BUFFER_ALIGNMENT, BUFFERS, Column, Encoded
from easydata.cache.values.dtypes import dtype_node, storage
from easydata.cache.values.paths import Nesting, Path, column_name, unsupported
from easydata.cache.values.recipe import dump_recipe
from easydata.cache.values.tables import table_kind, table_stream
from easydata.cache.values.times import time_node

__all__ = ["MAX_COLUMNS", "encode_any", "encode_whole", "pack_numbers"]

MAX_COLUMNS = 32  # leaves with columns of their own, in one value
MAX_ITEMS = (1 << 31) - 1  # Arrow's offsets of lists, strings and bytes are int32
_INLINE_CHARACTERS = 64  # longer strings and bytes go to the buffers
_INLINE_ITEMS = 16  # longer lists of numbers go to the buffers


def encode_any(value: object) -> Encoded:
    """The recipe and columns of any supported value.

    Raises:
        UnsupportedValueError: some part of it is not supported; the message names the place.
    """
    try:
        writer = _Writer(with_columns=True)
        encoded = writer.run(value)
        if writer.num_columns > MAX_COLUMNS:
            encoded = _Writer(with_columns=False).run(value)
    except RecursionError:
        raise unsupported((), "nests too deeply for the stack that is left here.") from None
    return encoded


def encode_whole(value: object) -> Encoded:
    """As `encode_any`, without columns of its own: all data in the recipe and the buffers.

    Raises:
        UnsupportedValueError: some part of it is not supported; the message names the place.
    """
    try:
        return _Writer(with_columns=False).run(value)
    except RecursionError:
        raise unsupported((), "nests too deeply for the stack that is left here.") from None


def _pack_ints(items: Sequence[Any]) -> npt.NDArray[Any] | None:
    """int64[items] of Python ints, or None if one is beyond 64 bits."""
    try:
        return np.frombuffer(struct.pack(f"<{len(items)}q", *items), "<i8")
    except struct.error:
        return None


def _pack_floats(items: Sequence[Any]) -> npt.NDArray[Any]:
    """float64[items] of Python floats, bit by bit."""
    return np.frombuffer(struct.pack(f"<{len(items)}d", *items), "<f8")


def _pack_bools(items: Sequence[Any]) -> npt.NDArray[Any]:
    """uint8[items] of Python truth values."""
    return np.frombuffer(bytes(items), np.uint8)


class _Writer:
    """One walk through one value."""

    def __init__(self, *, with_columns: bool) -> None:
        self._with_columns = with_columns
        self._columns: list[Column] = []
        self._buffers: list[bytes] = []
        self._end = 0  # of the buffers, in bytes
        self._has_buffers = False
        self._nesting = Nesting()

    @property
    def num_columns(self) -> int:
        """How many leaves have columns of their own."""
        return len(self._columns)

    def run(self, value: object) -> Encoded:
        """The recipe and columns of the value."""
        recipe = dump_recipe(self._node(value, (), self._with_columns))
        columns = tuple(self._columns)
        if self._has_buffers:
            columns += (Column(BUFFERS, "binary", b"".join(self._buffers)),)
        return Encoded(recipe, columns)

    def _node(self, value: Any, path: Path, as_column: bool) -> Any:
        method = _METHODS.get(type(value))
        if method is not None:
            return method(self, value, path, as_column)
        if isinstance(value, np.generic):
            return self._numpy_scalar(value, path, as_column)
        kind = table_kind(value)
        if kind is not None:
            return self._place(kind, "binary", table_stream(kind, value, path), path, as_column)
        mapping = leaves.batch_encoding(value)
        if mapping is None:
            raise leaves.refuse(value, path)
        return self.write_dict(mapping, path, as_column)

    # Containers

    def write_dict(self, value: dict[Any, Any], path: Path, as_column: bool) -> Any:
        self._nesting.enter(value, path)
        nodes = []
        for key, item in value.items():
            if type(key) is not str:
                raise refuse_key(key, path)
            nodes.append(leaves.text_node(key))
            nodes.append(self._node(item, (*path, key), as_column))
        self._nesting.leave(value)
        return {"dict": nodes}

    def write_list(self, value: Sequence[Any], path: Path, as_column: bool) -> Any:
        self._nesting.enter(value, path)
        node = self._packed_list(value, path, as_column)
        if node is None:
            node = [self._node(item, (*path, at), False) for at, item in enumerate(value)]
        self._nesting.leave(value)
        return node

    def _packed_list(self, value: Sequence[Any], path: Path, as_column: bool) -> Any:
        packed = _packed(value) if as_column or len(value) > _INLINE_ITEMS else None
        if packed is None:
            return None
        leaf, items = packed
        return self._place(leaf, items.dtype.str, items, path, as_column)

    def write_tuple(self, value: tuple[Any, ...], path: Path, as_column: bool) -> Any:
        return {"tuple": self.write_list(value, path, as_column)}

    # Leaves

    def write_none(self, value: None, path: Path, as_column: bool) -> Any:  # noqa: ARG002
        return value

    def write_bool(self, value: bool, path: Path, as_column: bool) -> Any:
        return self._place("bool", "bool", value, path, True) if as_column else value

    def write_int(self, value: int, path: Path, as_column: bool) -> Any:
        if as_column and leaves.INT64_MIN <= value <= leaves.INT64_MAX:
            return self._place("int", "int64", value, path, True)
        return leaves.int_node(value)

    def write_float(self, value: float, path: Path, as_column: bool) -> Any:
        if as_column:
            return self._place("float", "float64", value, path, True)
        return leaves.float_node(value)

    def write_str(self, value: str, path: Path, as_column: bool) -> Any:
        if as_column or len(value) > _INLINE_CHARACTERS:
            try:
                return self._place("str", "utf8", value.encode(), path, as_column)
            except UnicodeEncodeError:
                pass  # lone surrogates: `text_node` keeps them
        return leaves.text_node(value)

    def write_bytes(self, value: bytes, path: Path, as_column: bool) -> Any:
        if as_column or len(value) > _INLINE_CHARACTERS:
            return self._place("bytes", "binary", value, path, as_column)
        return leaves.bytes_node(value)

    def write_time(self, value: Any, path: Path, as_column: bool) -> Any:  # noqa: ARG002
        return time_node(value, path)

    def _numpy_scalar(self, value: np.generic, path: Path, as_column: bool) -> Any:
        column = leaves.scalar_column(value, path) if as_column else None
        if column is None:
            return leaves.scalar_value_node(value, path)
        dtype, kind, number = column
        return self._place({"numpy": dtype}, kind, number, path, True)

    def write_array(self, value: npt.NDArray[Any], path: Path, as_column: bool) -> Any:
        leaf = {"array": dtype_node(value.dtype, path)}
        if value.ndim != 1:
            leaf["shape"] = _shape_node(value.shape)
        flat = _contiguous(value).reshape(-1)
        kind = storage(value.dtype)
        if value.dtype.itemsize:
            items = flat.view(kind)
        else:
            items = np.empty(0, np.uint8)
            leaf["shape"] = list(value.shape)
        return self._place(leaf, kind, items, path, as_column)

    # Places

    def _place(self, leaf: Any, kind: str, data: Any, path: Path, as_column: bool) -> Any:
        """The node of a leaf whose data go to a column of its own, or to the buffers."""
        if isinstance(data, (bytes, np.ndarray)) and len(data) > MAX_ITEMS:
            raise _too_large(path, len(data))
        if as_column:
            self._columns.append(Column(column_name(path), kind, data))
            return {"column": leaf}
        raw = data if isinstance(data, bytes) else data.tobytes()
        offset = self._end
        padding = -len(raw) % BUFFER_ALIGNMENT
        self._buffers += (raw, bytes(padding))
        self._end += len(raw) + padding
        self._has_buffers = True
        if self._end > MAX_ITEMS:
            raise _too_large(path, self._end)
        return {"buffer": [leaf, offset, len(raw)]}


def refuse_key(key: object, path: Path) -> Exception:
    """The error for a dict key that is not exactly a string."""
    kind = type(key).__name__
    return unsupported(
        path,
        f"has the key {key!r} of type {kind}; keys of a cached dict must be str. "
        "Use str(key), or store a list of pairs.",
    )


def _too_large(path: Path, size: int) -> Exception:
    return unsupported(
        path,
        f"needs {size} items or bytes in one column; the limit is {MAX_ITEMS}. "
        "Store it in pieces, or as a dataset.",
    )


def _packed(items: Sequence[Any]) -> tuple[str, npt.NDArray[Any]] | None:
    """The leaf and array of a list of numbers of one type. An empty list is one of ints."""
    kinds = set(map(type, items))
    if not kinds:
        return "list[int]", np.empty(0, "<i8")
    if len(kinds) > 1:
        return None
    (kind,) = kinds
    return pack_numbers(kind, items)


def pack_numbers(kind: type, items: Sequence[Any]) -> tuple[str, Any] | None:
    """What the recipe calls a run of numbers of one Python type, and its column's data.

    None for other types, and for integers beyond 64 bits.
    """
    if kind is int:
        packed = _pack_ints(items)
        return None if packed is None else ("list[int]", packed)
    if kind is float:
        return "list[float]", _pack_floats(items)
    if kind is bool:
        return "list[bool]", _pack_bools(items)
    return None


def _contiguous(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in C order: itself or a copy."""
    if array.dtype.names is None or array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    copied = np.zeros(array.shape, array.dtype)  # padding must not be what was in memory before
    copied[...] = array
    return copied


def _shape_node(shape: tuple[int, ...]) -> list[int]:
    """The shape, with -1 for the first length where it follows from the number of items."""
    if len(shape) > 1 and math.prod(shape[1:]) > 0:
        return [-1, *shape[1:]]
    return list(shape)


_Method = Callable[[_Writer, Any, Path, bool], Any]
_METHODS: dict[type, _Method] = {
    dict: _Writer.write_dict,
    list: _Writer.write_list,
    tuple: _Writer.write_tuple,
    type(None): _Writer.write_none,
    bool: _Writer.write_bool,
    int: _Writer.write_int,
    float: _Writer.write_float,
    str: _Writer.write_str,
    bytes: _Writer.write_bytes,
    np.ndarray: _Writer.write_array,
    **dict.fromkeys((dt.date, dt.time, dt.datetime, dt.timedelta), _Writer.write_time),
}
