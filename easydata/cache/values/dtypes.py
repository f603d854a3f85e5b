"""NumPy dtypes as JSON, and the items that Arrow holds in their place."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata._optional import require
from easydata.cache.values.columns import LIST_KINDS
from easydata.cache.values.paths import Path, unsupported

__all__ = ["dtype_node", "is_mutable", "make_array", "parse_dtype", "scalar_node", "storage"]

_NAME = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUV][0-9]{1,10}"
    r"|[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_ML_PREFIX = "ml_dtypes."
_ML_NAMES = frozenset(
    (
        *("bcomplex32", "bfloat16", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
        *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
        *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
        *("int1", "int2", "int4", "uint1", "uint2", "uint4"),
    )
)
# The C types that are as wide as another one, so that their `str` is that of the other.
_TWINS = {"longlong": np.dtype("q"), "ulonglong": np.dtype("Q"), "long": np.dtype("l")}
_TWINS["ulong"] = np.dtype("L")
_MAX_NODES = 1024
_nodes: dict[np.dtype[Any], str] = {}


def dtype_node(dtype: np.dtype[Any], path: Path) -> Any:
    """The JSON of a dtype: its `str`, "ml_dtypes.NAME", or an object for structs and sub-arrays.

    Raises:
        UnsupportedValueError: not of fixed width, or not one that `parse_dtype` gives back.
    """
    node = _nodes.get(dtype)
    if node is None:
        node = _checked_node(dtype, path)
        if isinstance(node, str):
            if len(_nodes) >= _MAX_NODES:
                _nodes.clear()
            _nodes[dtype] = node
    return node


def scalar_node(dtype: np.dtype[Any], path: Path) -> Any:
    """The JSON of the dtype of a NumPy scalar, with which its very type comes back."""
    node = dtype_node(dtype, path)
    if isinstance(node, str) and dtype.kind in "iu" and parse_dtype(node).type is not dtype.type:
        return next(name for name, twin in _TWINS.items() if twin.type is dtype.type)
    return node


def _checked_node(dtype: np.dtype[Any], path: Path) -> Any:
    node = _node(dtype)
    try:
        parsed = parse_dtype(node)
    except (ValueError, TypeError):
        parsed = None
    if parsed is None or parsed != dtype or parsed.itemsize != dtype.itemsize:
        raise unsupported(
            path,
            f"has the dtype {dtype!s}, which cannot be stored. "
            "Pass an array of a dtype of fixed width, without Python objects.",
        )
    return node


def _node(dtype: np.dtype[Any]) -> Any:
    if dtype.type.__module__ == "ml_dtypes":
        return _ML_PREFIX + dtype.name
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _node(base), "shape": list(shape)}
    if dtype.names is None or dtype.fields is None or dtype.type is not np.void:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    node = {
        "names": list(dtype.names),
        "formats": [_node(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    if any(len(field) > 2 for field in fields):
        node["titles"] = [field[2] if len(field) > 2 else None for field in fields]
    if dtype.isalignedstruct:
        node["aligned"] = True
    return node


def parse_dtype(node: Any) -> np.dtype[Any]:
    """The dtype of its JSON; a new object for a struct, whose names its owner may change.

    Raises:
        ValueError, TypeError: the JSON is malformed, or this machine has no such dtype.
        MissingDependencyError: it needs ml_dtypes, which is not installed.
    """
    if isinstance(node, str):
        return _parse_name(node)
    if not isinstance(node, dict):
        raise TypeError(f"{node!r} names no dtype")
    if node.keys() == {"base", "shape"}:
        return np.dtype((parse_dtype(node["base"]), tuple(node["shape"])))
    if not {"names", "formats", "offsets", "itemsize"} <= node.keys():
        raise ValueError(f"{node!r} names no dtype")
    texts = [*node["names"], *(title for title in node.get("titles", ()) if title is not None)]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a field is not named by a string")
    description = {key: node[key] for key in ("names", "offsets", "itemsize")}
    description["formats"] = [parse_dtype(item) for item in node["formats"]]
    if "titles" in node:
        description["titles"] = node["titles"]
    return np.dtype(description, align=node.get("aligned") is True)  # type: ignore[call-overload]


def _parse_name(name: str) -> np.dtype[Any]:
    if _NAME.fullmatch(name):
        return np.dtype(name)
    if name in _TWINS:
        return _TWINS[name]
    short = name.removeprefix(_ML_PREFIX)
    if short == name or short not in _ML_NAMES:
        raise ValueError(f"{name!r} names no dtype")
    module = require("ml_dtypes", extra="jax", purpose=f"An array of {short}")
    return np.dtype(getattr(module, short))


def storage(dtype: np.dtype[Any]) -> str:
    """The kind of list column whose items stand for items of this dtype, bit by bit.

    The dtype itself where Arrow has it; else the integers of its width for datetimes and
    ml_dtypes; else its bytes.
    """
    if dtype.str in LIST_KINDS:
        return dtype.str
    if dtype.kind in "mM" and dtype.isnative:
        return "<i8"
    if dtype.type.__module__ == "ml_dtypes":
        return {1: "|u1", 2: "<u2", 4: "<u4"}[dtype.itemsize]
    return "|u1"


def is_mutable(dtype: np.dtype[Any]) -> bool:
    """Whether the dtype object itself can be changed: `dtype.names` of a struct can."""
    return dtype.names is not None


def make_array(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A read-only array over a contiguous buffer of exactly its size; a view if it is aligned.

    Raises:
        ValueError, TypeError: the buffer has another size.
    """
    items = np.frombuffer(data, np.uint8)
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, items)
    if array.nbytes != items.nbytes:
        raise ValueError(f"{items.nbytes} bytes for {shape} items of {dtype}")
    if not array.flags.aligned:
        return np.ndarray(shape, dtype, items.tobytes())
    array.flags.writeable = False
    return array
