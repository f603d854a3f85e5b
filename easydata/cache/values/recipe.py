"""The recipe: the structure and the Python types of a value, as ASCII JSON.

    null true false 12 0.5 "text" [node, …]   None, bool, int in 64 bits, finite float, str, list
    {"tuple": node}                           the tuple of a list
    {"dict": [key, node, key, node, …]}       keys in order; a key is "text" or a "str" node
    {"int": "0x…"}                            an int beyond 64 bits
    {"float": "7ff8000000000000"}             infinities and NaNs: the bits
    {"str": base64}                           a str that is not valid Unicode
    {"bytes": base64}
    {"date": […]} {"time": […]} {"datetime": […]} {"timedelta": […]}   fields, see times.py
    {"numpy": [dtype, base64]}                a NumPy scalar
    {"numpy.str": "text"} {"numpy.bytes": base64}
    {"column": leaf}                          the data of the next column
    {"buffer": [leaf, offset, bytes]}         a run of bytes of the last column

A leaf is "int", "float", "bool" or {"numpy": dtype} (scalar columns only), "str", "bytes",
"list[int]", "list[float]", "list[bool]", {"array": dtype}, {"array": dtype, "shape": […]} where the
rank is not 1 (-1 stands for a first length that follows from the others), "arrow.table",
"arrow.batch", "arrow.array", "arrow.chunked", or "pandas.frame". A dtype is what `dtypes.py` says.

Offsets are multiples of 64. The same structure gives the same bytes on every machine, so that
recipes can be compared by `==`.
"""

from __future__ import annotations

import json
from typing import Any

from easydata.cache.values.paths import MAX_DEPTH
from easydata.errors import DatasetError

__all__ = ["dump_recipe", "load_recipe", "malformed"]

_MAX_JSON_DEPTH = 2 * MAX_DEPTH + 32  # a struct dtype nests a little


def dump_recipe(node: Any) -> bytes:
    """The bytes of a recipe."""
    return _dumps(node).encode("ascii")


_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def load_recipe(recipe: bytes) -> Any:
    """The root node of a recipe.

    Raises:
        DatasetError: it is not JSON, or nests deeper than any value.
    """
    try:
        return _decoder.decode(recipe.decode("ascii"))
    except ValueError as error:
        raise malformed(recipe, str(error)) from error
    except RecursionError:
        if _json_depth(recipe) <= _MAX_JSON_DEPTH:
            raise  # the stack of the caller is full
        raise malformed(recipe, "it nests too deeply") from None


def malformed(recipe: bytes, reason: str) -> DatasetError:
    """The error for a recipe that this version cannot have written."""
    shown = recipe[:200].decode("ascii", "backslashreplace")
    return DatasetError(
        f"The recipe of a cached value cannot be read: {reason}. It starts {shown!r}. "
        "The entry is damaged: remove its key and store the value again."
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _json_depth(recipe: bytes) -> int:
    """How deep brackets nest, outside of strings."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in recipe:
        if in_string:
            in_string = escaped or byte != 0x22
            escaped = not escaped and byte == 0x5C
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
