"""Recipes and columns back to values.

A recipe is compiled to a function once; the functions of short recipes are kept, because most
entries of a cache share theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.cache.values import leaves, times
from easydata.cache.values.paths import MAX_DEPTH
from easydata.cache.values.readers import Reader, leaf_reader, native_dtype
from easydata.cache.values.recipe import load_recipe, malformed

__all__ = ["decode", "view_names"]

_Columns = Sequence[Any]
_Decoder = Callable[[_Columns], Any]
_Step = Callable[[Iterator[Any], Any], Any]  # next columns, buffers → value

_MAX_DECODERS = 512
_MAX_KEPT_BYTES = 2048
_decoders: dict[bytes, _Decoder] = {}
_view_names: dict[bytes, tuple[str, ...]] = {}  # of some recipes in `_decoders`

# What damaged recipes and columns of other types lead to.
_ERRORS = (
    pa.ArrowException,
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,  # time zones are files
    StopIteration,
    TypeError,
    ValueError,
)


def decode(recipe: bytes, columns: _Columns) -> Any:
    """The value that was encoded.

    Args:
        recipe: `Encoded.recipe`.
        columns: what was written for `Encoded.columns`, in order. For a list kind a contiguous,
            one-dimensional, read-only array of that dtype; for utf8 and binary bytes, str, or a
            read-only buffer; for scalar kinds a number.

    Returns:
        A new value. Its arrays and Arrow objects are read-only views of the columns where the
        dtype's alignment allows, else read-only copies: they keep the columns' memory alive.

    Raises:
        DatasetError: the recipe is malformed, or does not fit the columns.
        MissingDependencyError: the value needs pandas or ml_dtypes, which is not installed.
    """
    decoder = _decoders.get(recipe)
    try:
        if decoder is None:
            decoder = _compile(recipe)
        return decoder(columns)
    except _ERRORS as error:
        raise malformed(recipe, f"{type(error).__name__}: {error}") from error


def view_names(recipe: bytes) -> tuple[str, ...] | None:
    """The keys, if what `decode` makes of the recipe is a dict of its columns as they are.

    They are in the order of the columns. May be None where nothing was decoded lately.
    """
    return _view_names.get(recipe)


def _compile(recipe: bytes) -> _Decoder:
    node = load_recipe(recipe)
    decoder = _compile_flat(node) or _compile_any(node)
    if len(recipe) <= _MAX_KEPT_BYTES:
        if len(_decoders) >= _MAX_DECODERS:
            _decoders.clear()
            _view_names.clear()
        _decoders[bytes(recipe)] = decoder
        if _is_of_views(node):
            _view_names[bytes(recipe)] = tuple(node["dict"][::2])
    return decoder


def _is_of_views(root: Any) -> bool:
    if not isinstance(root, dict) or root.keys() != {"dict"}:
        return False
    return all(
        isinstance(node, dict)
        and node.keys() == {"column"}
        and native_dtype(node["column"]) is not None
        for node in root["dict"][1::2]
    )


def _compile_flat(root: Any) -> _Decoder | None:
    """The decoder of a dict of nothing but columns; None for other recipes."""
    if not isinstance(root, dict) or root.keys() != {"dict"}:
        return None
    keys, nodes = root["dict"][::2], root["dict"][1::2]
    if not all(isinstance(node, dict) and node.keys() == {"column"} for node in nodes):
        return None
    if len(keys) != len(nodes) or not all(isinstance(key, str) for key in keys):
        return None
    found = [node["column"] for node in nodes]
    plan = tuple(zip(keys, map(native_dtype, found), map(leaf_reader, found), strict=True))

    def decode_flat(columns: _Columns) -> dict[str, Any]:
        value = {}
        for column, (key, dtype, read) in zip(columns, plan, strict=True):
            if dtype is None or type(column) is not np.ndarray or column.dtype is not dtype:
                value[key] = read(column)
            else:
                value[key] = column
        return value

    return decode_flat


def _compile_any(root: Any) -> _Decoder:
    compiler = _Compiler()
    step = compiler.step(root, 0)
    num_columns, has_buffers = compiler.num_columns, compiler.has_buffers

    def decode_any(columns: _Columns) -> Any:
        if len(columns) != num_columns + has_buffers:
            raise ValueError(f"{len(columns)} columns for {num_columns + has_buffers}")
        buffers = np.frombuffer(columns[-1], np.uint8) if has_buffers else None
        return step(iter(columns), buffers)

    return decode_any


class _Compiler:
    """Makes a step of every node, and counts the columns that the steps will take."""

    def __init__(self) -> None:
        self.num_columns = 0
        self.has_buffers = False

    def step(self, node: Any, depth: int) -> _Step:
        if depth > 2 * MAX_DEPTH:
            raise ValueError("it nests too deeply")
        if isinstance(node, list):
            return self._list([self.step(item, depth + 1) for item in node])
        if not isinstance(node, dict):
            return lambda _columns, _buffers: node
        if len(node) != 1:
            raise ValueError(f"a node has {len(node)} tags")
        ((tag, argument),) = node.items()
        if tag == "dict":
            return self._dict(argument, depth)
        if tag == "tuple":
            return self._tuple(argument, depth)
        if tag == "column":
            return self._column(argument)
        if tag == "buffer":
            return self._buffer(*argument)
        parse = _INLINE[tag]
        parse(argument)  # so that damage shows before any column is read
        return lambda _columns, _buffers: parse(argument)

    @staticmethod
    def _list(steps: list[_Step]) -> _Step:
        return lambda columns, buffers: [step(columns, buffers) for step in steps]

    def _tuple(self, node: Any, depth: int) -> _Step:
        items = self.step(node, depth + 1)

        def make_tuple(columns: Iterator[Any], buffers: Any) -> tuple[Any, ...]:
            made = items(columns, buffers)
            if type(made) is not list:
                raise TypeError("a tuple is made of something else than a list")
            return tuple(made)

        return make_tuple

    def _dict(self, nodes: Any, depth: int) -> _Step:
        if not isinstance(nodes, list) or len(nodes) % 2:
            raise ValueError("a dict is not a list of keys and values")
        keys = [_parse_key(key) for key in nodes[::2]]
        steps = [self.step(node, depth + 1) for node in nodes[1::2]]
        pairs = tuple(zip(keys, steps, strict=True))
        return lambda columns, buffers: {key: step(columns, buffers) for key, step in pairs}

    def _column(self, leaf: Any) -> _Step:
        self.num_columns += 1
        read = leaf_reader(leaf)
        return lambda columns, _buffers: read(next(columns))

    def _buffer(self, leaf: Any, offset: Any, size: Any) -> _Step:
        self.has_buffers = True
        read: Reader = leaf_reader(leaf)
        if type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
            raise TypeError("a place in the buffers is not a number")

        def read_buffer(_columns: Iterator[Any], buffers: Any) -> Any:
            if offset + size > len(buffers):
                raise ValueError(f"a place ends at {offset + size} of {len(buffers)} bytes")
            return read(buffers[offset : offset + size])

        return read_buffer


def _parse_key(node: Any) -> str:
    if isinstance(node, dict) and node.keys() == {"str"}:
        return leaves.parse_text(node["str"])
    if not isinstance(node, str):
        raise TypeError(f"{node!r} is not a key")
    return node


def _parse_int(digits: Any) -> int:
    return int(digits, 16)


def _parse_numpy_text(node: Any) -> np.str_:
    return np.str_(_parse_key(node))


def _parse_numpy_bytes(coded: Any) -> np.bytes_:
    return np.bytes_(leaves.parse_bytes(coded))


def _parse_numpy(argument: Any) -> np.generic:
    dtype, coded = argument
    return leaves.parse_numpy(dtype, coded)


_INLINE: dict[str, Callable[[Any], Any]] = {
    "int": _parse_int,
    "float": leaves.parse_float,
    "str": leaves.parse_text,
    "bytes": leaves.parse_bytes,
    "date": times.parse_date,
    "time": times.parse_time,
    "datetime": times.parse_datetime,
    "timedelta": times.parse_timedelta,
    "numpy": _parse_numpy,
    "numpy.str": _parse_numpy_text,
    "numpy.bytes": _parse_numpy_bytes,
}
