"""The fast path of encoding: flat dicts of one-dimensional arrays, lists of numbers and scalars.

The recipe and the names of the columns follow from the keys and the kinds of the leaves alone, so
they are made once, by `encode_any`, and kept under that signature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.cache.values.columns import LIST_KINDS, Column, Encoded
from easydata.cache.values.encoding import (
    MAX_COLUMNS,
    MAX_ITEMS,
    encode_any,
    pack_numbers,
)
from easydata.cache.values.leaves import INT64_MAX, INT64_MIN

__all__ = ["encode"]

_MAX_PLANS = 1024
_KINDS = {np.dtype(kind): kind for kind in LIST_KINDS}
_plans: dict[tuple[str, ...], tuple[bytes, tuple[tuple[str, str], ...]]] = {}
# By keys: the recipe, and (name, kind, dtype, strides) of the arrays that were seen last.
_last: dict[tuple[Any, ...], tuple[bytes, tuple[tuple[Any, ...], ...]]] = {}
_ndarray = np.ndarray
_new = tuple.__new__  # the constructor of a NamedTuple takes twice as long


def encode(value: object) -> Encoded:
    """A value as a recipe and columns, from which `decode` makes an equal one.

    Arrays in the columns may view the caller's arrays. A flat dict of one-dimensional arrays,
    lists of numbers, strings and numbers has the same recipe, column names and kinds whatever the
    lengths and numbers are.

    Args:
        value: None, bool, int, float, str, bytes, date, time, datetime, timedelta, NumPy arrays
            and scalars of fixed width, Arrow tables, batches and arrays, pandas DataFrames, and
            lists, tuples and dicts (string keys) of them. A `BatchEncoding` counts as its dict.

    Raises:
        UnsupportedValueError: some part is none of these; the message names the place.

    >>> encode({"input_ids": [1, 2]}).recipe
    b'{"dict":["input_ids",{"column":"list[int]"}]}'
    """
    if type(value) is dict and len(value) <= MAX_COLUMNS:
        encoded = _encode_like_last(value) or _encode_flat(value)
        if encoded is not None:
            return encoded
    return encode_any(value)


def _encode_like_last(value: dict[Any, Any]) -> Encoded | None:
    """A dict of arrays with the dtypes that these keys had last; None for any other."""
    plan = _last.get(tuple(value))
    if plan is None:
        return None
    recipe, heads = plan
    columns = []
    # `strict=True` costs a tenth of the call, and equal keys are equally many.
    for (key, leaf), (name, kind, dtype, strides) in zip(value.items(), heads):  # noqa: B905
        if type(leaf) is not _ndarray or type(key) is not str:
            return None
        if leaf.dtype is not dtype or leaf.strides != strides or leaf.size > MAX_ITEMS:
            return None
        columns.append(_new(Column, (name, kind, leaf)))
    return _new(Encoded, (recipe, tuple(columns)))


def _encode_flat(value: dict[Any, Any]) -> Encoded | None:
    """The value by its plan; None if it is not flat, or has a leaf that needs a closer look."""
    signature: list[str] = []
    data: list[Any] = []
    num_arrays = 0
    for key, leaf in value.items():
        if type(key) is not str:
            return None
        if type(leaf) is _ndarray:
            code = _KINDS.get(leaf.dtype)
            if code is None or leaf.ndim != 1 or not leaf.flags.c_contiguous:
                return None
            if len(leaf) > MAX_ITEMS:
                return None
            num_arrays += 1
            data.append(leaf)
        else:
            packed = _pack(leaf)
            if packed is None:
                return None
            code, item = packed
            data.append(item)
        signature += (key, code)
    plan = _plans.get(tuple(signature))
    if plan is None:
        return _planned(value, tuple(signature))
    recipe, heads = plan
    if num_arrays == len(data):
        _remember(value, plan)
    columns = [
        _new(Column, (name, kind, item)) for (name, kind), item in zip(heads, data, strict=True)
    ]
    return _new(Encoded, (recipe, tuple(columns)))


def _remember(
    value: dict[str, npt.NDArray[Any]], plan: tuple[bytes, tuple[tuple[str, str], ...]]
) -> None:
    recipe, heads = plan
    if len(_last) >= _MAX_PLANS:
        _last.clear()
    _last[tuple(value)] = (
        recipe,
        tuple(
            (*head, leaf.dtype, (leaf.itemsize,))
            for head, leaf in zip(heads, value.values(), strict=True)
        ),
    )


def _planned(value: dict[str, Any], signature: tuple[str, ...]) -> Encoded:
    """The value by the slow path, whose names and kinds are kept."""
    encoded = encode_any(value)
    if len(_plans) >= _MAX_PLANS:
        _plans.clear()
    heads = tuple((column.name, column.kind) for column in encoded.columns)
    _plans[signature] = encoded.recipe, heads
    return encoded


def _pack(leaf: Any) -> tuple[str, Any] | None:
    """What tells a plain leaf from others, and its column's data."""
    kind = type(leaf)
    if kind is list:
        return _pack_list(leaf)
    if kind is str:
        try:
            return "str", leaf.encode()
        except UnicodeEncodeError:
            return None
    if kind is int:
        return ("int", leaf) if INT64_MIN <= leaf <= INT64_MAX else None
    if kind is float:
        return "float", leaf
    if kind is bool:
        return "bool", leaf
    return None


def _pack_list(items: list[Any]) -> tuple[str, Any] | None:
    if not items:
        return None
    kind = type(items[0])
    if list(map(type, items)).count(kind) != len(items):
        return None
    return pack_numbers(kind, items)
