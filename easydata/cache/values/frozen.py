"""Immutable snapshots of values, from which new equal values are made quickly."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.cache.values import leaves
from easydata.cache.values.columns import LIST_KINDS
from easydata.cache.values.dtypes import dtype_node, is_mutable, make_array, parse_dtype
from easydata.cache.values.encoding import refuse_key
from easydata.cache.values.paths import Nesting, Path, unsupported
from easydata.cache.values.tables import READERS, table_kind, table_stream
from easydata.cache.values.times import time_node

__all__ = ["Frozen", "freeze"]

_Fresh = list[tuple[Any, Callable[[], Any]]]  # key or position, and what makes the part there

_ARRAY_BYTES = sys.getsizeof(np.empty(0))
_BYTES_PER_NUMBER = 32  # of a list: the object and its pointer
_NUMBERS = {int, float, bool, type(None)}
_SHARED = {*_NUMBERS, str, bytes, dt.date, dt.timedelta}


class Frozen:
    """A value that nobody else can change.

    `nbytes` estimates the memory that it holds. `thaw()` gives an equal value: new containers, the
    same read-only arrays.
    """

    __slots__ = ("nbytes", "thaw")

    def __init__(self, thaw: Callable[[], Any], nbytes: int) -> None:
        self.thaw = thaw
        self.nbytes = nbytes


class _Made:
    """A part that is made anew for every thaw."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def freeze(value: object) -> Frozen:
    """A snapshot of a value: arrays are copied once (C order, read-only), containers rebuilt.

    Takes and refuses the same values as `encode`, and changes them in the same way: a
    `BatchEncoding` thaws as a dict, arrays come back in C order.

    Raises:
        UnsupportedValueError: some part is not supported; the message names the place.

    >>> frozen = freeze({"ids": [1, 2]})
    >>> frozen.thaw()["ids"].append(3)
    >>> frozen.thaw()
    {'ids': [1, 2]}
    """
    freezer = _Freezer()
    try:
        part = freezer.part(value, ())
    except RecursionError:
        raise unsupported((), "nests too deeply for the stack that is left here.") from None
    thaw = part.make if type(part) is _Made else lambda: part
    return Frozen(thaw, freezer.nbytes)


class _Freezer:
    """One walk through one value. A part is what can be shared, or a `_Made`."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._nesting = Nesting()

    def part(self, value: Any, path: Path) -> Any:
        kind = type(value)
        if kind in _SHARED:
            return self._counted(value)
        if kind is np.ndarray:
            return self._array(value, path)
        if kind is dict:
            return self._dict(value, path)
        if kind is list:
            return self._list(value, path)
        if kind is tuple:
            return self._tuple(value, path)
        if kind is dt.datetime or kind is dt.time:
            time_node(value, path)  # refuses what cannot be stored
            return self._counted(value)
        if isinstance(value, np.generic):
            return self._numpy_scalar(value, path)
        table = table_kind(value)
        if table is not None:
            return self._table(table, value, path)
        mapping = leaves.batch_encoding(value)
        if mapping is None:
            raise leaves.refuse(value, path)
        return self._dict(mapping, path)

    def _counted(self, part: Any) -> Any:
        self.nbytes += sys.getsizeof(part)
        return part

    def _array(self, value: npt.NDArray[Any], path: Path) -> Any:
        node = dtype_node(value.dtype, path)
        data = value.tobytes()  # nobody can make a view of bytes writable again
        self.nbytes += len(data) + _ARRAY_BYTES
        if value.ndim == 1 and value.dtype.str in LIST_KINDS:
            return np.frombuffer(data, value.dtype)
        if is_mutable(value.dtype):
            shape = value.shape
            return _Made(lambda: make_array(data, parse_dtype(node), shape))
        return make_array(data, value.dtype, value.shape)

    def _numpy_scalar(self, value: np.generic, path: Path) -> Any:
        leaves.scalar_value_node(value, path)  # refuses what cannot be stored
        if isinstance(value, np.void):
            return _Made(self._counted(value.copy()).copy)
        return self._counted(value)

    def _table(self, kind: str, value: Any, path: Path) -> Any:
        stream = self._counted(table_stream(kind, value, path))
        read = partial(READERS[kind], stream)
        return _Made(read) if kind == "pandas.frame" else read()

    def _dict(self, value: dict[Any, Any], path: Path) -> _Made:
        self._nesting.enter(value, path)
        parts = {}
        for key, item in value.items():
            if type(key) is not str:
                raise refuse_key(key, path)
            parts[self._counted(key)] = self.part(item, (*path, key))
        self._nesting.leave(value)
        return _copies(self._counted(parts), _fresh(parts.items()))

    def _list(self, value: list[Any], path: Path) -> _Made:
        parts, fresh = self._items(value, path)
        return _copies(parts, fresh)

    def _tuple(self, value: tuple[Any, ...], path: Path) -> Any:
        parts, fresh = self._items(value, path)
        if not fresh:
            return tuple(parts)
        make = _copies(parts, fresh).make
        return _Made(lambda: tuple(make()))

    def _items(self, value: Sequence[Any], path: Path) -> tuple[list[Any], _Fresh]:
        self._nesting.enter(value, path)
        kinds = set(map(type, value))
        if kinds <= _NUMBERS:
            parts = list(value)
            self.nbytes += _BYTES_PER_NUMBER * len(parts)
        elif kinds <= _SHARED:
            parts = list(value)
            self.nbytes += sum(map(sys.getsizeof, parts))
        else:
            parts = [self.part(item, (*path, at)) for at, item in enumerate(value)]
        self._nesting.leave(value)
        fresh = [] if kinds <= _SHARED else _fresh(enumerate(parts))
        return self._counted(parts), fresh


def _fresh(parts: Iterable[tuple[Any, Any]]) -> _Fresh:
    return [(at, part.make) for at, part in parts if type(part) is _Made]


def _copies(template: Any, fresh: _Fresh) -> _Made:
    """Makes copies of a list or dict, of which some parts are made anew."""
    if not fresh:
        return _Made(template.copy)

    def make() -> Any:
        made = template.copy()
        for at, make_part in fresh:
            made[at] = make_part()
        return made

    return _Made(make)
