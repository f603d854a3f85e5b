"""What reads the data of a leaf, from a column or from a run of the buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.cache.values.columns import LIST_KINDS
from easydata.cache.values.dtypes import is_mutable, make_array, parse_dtype
from easydata.cache.values.tables import READERS

__all__ = ["Reader", "leaf_reader", "native_dtype"]

_NATIVE = {kind: np.dtype(kind) for kind in LIST_KINDS}
_INT64, _FLOAT64, _UINT8 = np.dtype("<i8"), np.dtype("<f8"), np.dtype("u1")
Reader = Callable[[Any], Any]  # the data of a column, or uint8[bytes] → the value


def leaf_reader(leaf: Any) -> Reader:
    """The function that reads the data of a leaf (its JSON, see `recipe.py`).

    Raises:
        ValueError, TypeError, KeyError: there is no such leaf.
    """
    if isinstance(leaf, str):
        return _READERS[leaf]
    if not isinstance(leaf, dict):
        raise TypeError(f"{leaf!r} is no leaf")
    if leaf.keys() == {"numpy"}:
        return _numpy_reader(parse_dtype(leaf["numpy"]))
    if not {"array"} <= leaf.keys() <= {"array", "shape"}:
        raise ValueError(f"{leaf!r} is no leaf")
    dtype = parse_dtype(leaf["array"])
    if "shape" not in leaf:
        return _run_reader(dtype, leaf["array"])
    shape = tuple(leaf["shape"])
    if not all(type(length) is int and length >= -1 for length in shape) or -1 in shape[1:]:
        raise ValueError(f"{shape} is no shape")
    return _array_reader(dtype, leaf["array"], shape)


def native_dtype(leaf: Any) -> np.dtype[Any] | None:
    """The dtype of the columns that are the value of this leaf as they are; None: read them."""
    if not isinstance(leaf, dict) or leaf.keys() != {"array"}:
        return None
    node = leaf["array"]
    return _NATIVE.get(node) if isinstance(node, str) else None


def _run_reader(dtype: np.dtype[Any], node: Any) -> Reader:
    """One-dimensional arrays: the column itself where it has the dtype."""
    general = _array_reader(dtype, node, (-1,))
    if dtype.str not in LIST_KINDS:
        return general

    def read_run(data: Any) -> Any:
        return data if type(data) is np.ndarray and data.dtype == dtype else general(data)

    return read_run


def _array_reader(dtype: np.dtype[Any], node: Any, shape: tuple[int, ...]) -> Reader:
    rest = dtype.itemsize
    for length in shape[1:]:
        rest *= length

    def read_array(data: Any) -> npt.NDArray[Any]:
        raw = data.view(np.uint8) if isinstance(data, np.ndarray) else data
        first = shape[:1]
        if first == (-1,):
            count, left = divmod(np.frombuffer(raw, np.uint8).nbytes, rest)
            if left:
                raise ValueError(f"{left} bytes are left over by the shape {shape}")
            first = (count,)
        own = parse_dtype(node) if is_mutable(dtype) else dtype
        return make_array(raw, own, first + shape[1:])

    return read_array


def _numpy_reader(dtype: np.dtype[Any]) -> Reader:
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"a scalar column cannot hold {dtype}")

    def read_scalar(data: Any) -> Any:
        with np.errstate(all="ignore"):
            return dtype.type(data)

    return read_scalar


def _read_ints(data: Any) -> list[int]:
    return _items(data, _INT64).tolist()


def _read_floats(data: Any) -> list[float]:
    return _items(data, _FLOAT64).tolist()


def _read_bools(data: Any) -> list[bool]:
    return _items(data, _UINT8).view(np.bool_).tolist()


def _items(data: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    items: npt.NDArray[Any] = data if isinstance(data, np.ndarray) else np.frombuffer(data, _UINT8)
    return items if items.dtype is dtype else items.view(dtype)


def _read_text(data: Any) -> str:
    return data if type(data) is str else str(data, "utf-8")


_READERS: dict[str, Reader] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": _read_text,
    "bytes": bytes,
    "list[int]": _read_ints,
    "list[float]": _read_floats,
    "list[bool]": _read_bools,
    **READERS,
}
