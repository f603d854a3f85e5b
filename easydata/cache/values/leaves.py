"""Leaves that stand inside the recipe itself: strings, bytes, numbers, NumPy scalars."""

from __future__ import annotations

import binascii
import math
import struct
from collections import UserDict
from typing import Any

import numpy as np

from easydata.cache.values.dtypes import make_array, parse_dtype, scalar_node
from easydata.cache.values.paths import Path, unsupported

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "batch_encoding",
    "bytes_node",
    "float_node",
    "int_node",
    "parse_bytes",
    "parse_float",
    "parse_numpy",
    "parse_text",
    "refuse",
    "scalar_column",
    "scalar_value_node",
    "text_node",
]

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_INTEGERS_OF_INT64 = "bhilqBHI"  # type codes of NumPy integers that may fit
_FLOATS_OF_FLOAT64 = "efd"


def text_node(text: str) -> Any:
    """The node of a string: itself, or its bytes where JSON would merge lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"str": _base64(text.encode("utf-8", "surrogatepass"))}
    return text


def parse_text(coded: Any) -> str:
    """The string of the argument of a `str` node."""
    return parse_bytes(coded).decode("utf-8", "surrogatepass")


def bytes_node(data: bytes) -> dict[str, str]:
    """The node of bytes: base64."""
    return {"bytes": _base64(data)}


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def parse_bytes(coded: Any) -> bytes:
    """The bytes of base64."""
    return binascii.a2b_base64(coded, strict_mode=True)


def int_node(number: int) -> Any:
    """The node of an integer: itself, or hexadecimal beyond 64 bits."""
    return number if INT64_MIN <= number <= INT64_MAX else {"int": hex(number)}


def float_node(number: float) -> Any:
    """The node of a float: itself, or its bits where JSON has no word for it."""
    return number if math.isfinite(number) else {"float": struct.pack(">d", number).hex()}


def parse_float(digits: Any) -> float:
    """The float of 16 hexadecimal digits."""
    (number,) = np.frombuffer(bytes.fromhex(digits), ">f8").tolist()
    return float(number)


def scalar_value_node(value: np.generic, path: Path) -> dict[str, Any]:
    """The node of a NumPy scalar: its dtype and its bytes.

    Raises:
        UnsupportedValueError: its dtype cannot be stored, or it is a subclass's instance.
    """
    if type(value) is np.str_:  # arrays, and str(value), would cut trailing NULs
        return {"numpy.str": text_node(value[:])}
    if type(value) is np.bytes_:
        return {"numpy.bytes": _base64(bytes(value))}
    node = checked_scalar_node(value, path)
    raw = np.asarray(value, value.dtype).tobytes()
    if value.dtype.char in "gG":
        raw = _without_padding(raw)
    return {"numpy": [node, _base64(raw)]}


def _without_padding(raw: bytes) -> bytes:
    """Long doubles with zeros for padding, which is whatever was in memory before."""
    if np.finfo(np.longdouble).nmant != 63:  # only the 80-bit format is padded
        return raw
    items = np.frombuffer(raw, np.uint8).reshape(-1, np.dtype("g").itemsize).copy()
    items[:, 10:] = 0
    return items.tobytes()


def checked_scalar_node(value: np.generic, path: Path) -> Any:
    """The JSON of the dtype of a scalar whose type is that of its dtype."""
    if type(value) is not value.dtype.type:
        raise refuse(value, path)
    return scalar_node(value.dtype, path)


def scalar_column(value: np.generic, path: Path) -> tuple[Any, str, Any] | None:
    """The dtype node, column kind and Python number of a scalar that a scalar column can hold."""
    code = value.dtype.char
    if type(value) is np.bool_:
        return checked_scalar_node(value, path), "bool", bool(value)
    if not isinstance(value, np.number):
        return None
    if code in _INTEGERS_OF_INT64:
        return checked_scalar_node(value, path), "int64", int(value)
    if code in _FLOATS_OF_FLOAT64 and not np.isnan(value):  # a NaN might change its bits
        return checked_scalar_node(value, path), "float64", float(value)
    return None


def parse_numpy(node: Any, coded: Any) -> np.generic:
    """A new NumPy scalar of a dtype (as JSON) from base64."""
    scalar: Any = make_array(parse_bytes(coded), parse_dtype(node), ())[()]
    return scalar.copy() if isinstance(scalar, np.void) else scalar


def batch_encoding(value: object) -> dict[str, Any] | None:
    """The dict inside a `transformers.BatchEncoding`, known by name; None for anything else."""
    if not isinstance(value, UserDict) or type(value.data) is not dict:
        return None
    names = [base.__name__ for base in type(value).__mro__]
    return value.data if "BatchEncoding" in names else None


def refuse(value: object, path: Path) -> Exception:
    """The error for a value that cannot be stored: what it is, and what to pass instead."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    what = f"is a {name}, which cannot be stored. "
    if isinstance(value, (bytearray, memoryview)):
        return unsupported(path, what + "Pass bytes(value).")
    if isinstance(value, np.ndarray):
        return unsupported(path, what + "Pass a plain array: np.asarray(value).")
    if isinstance(value, UserDict):
        return unsupported(path, what + "Pass dict(value).")
    if hasattr(value, "__array__") and hasattr(value, "shape"):
        return unsupported(path, what + "Pass a NumPy array: np.asarray(value).")
    for base in (dict, list, tuple, str, bytes, int, float):
        if isinstance(value, base):
            return unsupported(
                path, f"{what}It is a subclass of {base.__name__}: pass {base.__name__}(value)."
            )
    return unsupported(
        path,
        what + "Supported are None, numbers, str, bytes, lists, tuples, dicts with string keys, "
        "NumPy arrays and scalars, datetimes, Arrow tables and arrays, and DataFrames.",
    )
