"""The Arrow type of values, and the one type that holds values of two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import reduce

import numpy as np
import pyarrow as pa

__all__ = ["TypeConflictError", "merge_types", "type_of_text", "type_of_values", "without_nulls"]

# "007" and "+49" are names, not numbers. Integers of 19 digits may pass 2**63.
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_INT64_DIGITS = 19
_FLOAT = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class TypeConflictError(Exception):
    """No type holds the values of both types unchanged."""


def type_of_value(value: object) -> pa.DataType:
    """The Arrow type of a Python value; int64 and float64 for numbers.

    Raises:
        TypeConflictError: a list holds values of types that no type holds, or Arrow has none.
    """
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return pa.int64()
        if 0 < value < 2**64:
            return pa.uint64()
        raise TypeConflictError(f"an integer of {value.bit_length()} bits is too large")
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list | tuple):
        return pa.list_(type_of_values(value))
    if isinstance(value, Mapping):
        return pa.struct([(str(name), type_of_value(item)) for name, item in value.items()])
    try:
        return pa.infer_type([value])
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise TypeConflictError(str(error)) from error


def type_of_values(values: Iterable[object]) -> pa.DataType:
    """The one type of many Python values; null when there are none.

    Raises:
        TypeConflictError: there is no such type.
    """
    return reduce(merge_types, map(type_of_value, values), pa.null())


def type_of_text(text: str) -> pa.DataType:
    """The type that a field of a CSV file looks like: int64, float64, bool, else string."""
    if not text:
        return pa.null()
    if text.lower() in {"true", "false"}:
        return pa.bool_()
    if _INTEGER.fullmatch(text):
        return pa.int64() if len(text) < _INT64_DIGITS else pa.string()
    return pa.float64() if _FLOAT.fullmatch(text) else pa.string()


def merge_types(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both: null gives way, numbers widen, structs unite.

    Raises:
        TypeConflictError: there is none.
    """
    types = pa.types
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if types.is_integer(one) and types.is_integer(other):
        wide = np.promote_types(one.to_pandas_dtype(), other.to_pandas_dtype())
        if np.issubdtype(wide, np.integer):
            return pa.from_numpy_dtype(wide)
    elif _is_number(one) and _is_number(other):
        return pa.float64()
    elif _is_string(one) and _is_string(other):
        return pa.large_string()
    elif _is_list(one) and _is_list(other):
        item = merge_types(one.value_type, other.value_type)
        large = types.is_large_list(one) or types.is_large_list(other)
        return pa.large_list(item) if large else pa.list_(item)
    elif types.is_struct(one) and types.is_struct(other):
        members = {member.name: member.type for member in one}
        for member in other:
            members[member.name] = merge_types(members.get(member.name, pa.null()), member.type)
        return pa.struct(list(members.items()))
    raise TypeConflictError(f"{one} and {other}")


def without_nulls(kind: pa.DataType) -> pa.DataType:
    """`kind` with string in the place of null, at any depth.

    A column of type null can hold nothing but nulls, and a later file may have a value.
    """
    types = pa.types
    if types.is_null(kind):
        return pa.string()
    if types.is_struct(kind):
        return pa.struct([(member.name, without_nulls(member.type)) for member in kind])
    if types.is_fixed_size_list(kind):
        return pa.list_(without_nulls(kind.value_type), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(without_nulls(kind.value_type))
    if types.is_list(kind):
        return pa.list_(without_nulls(kind.value_type))
    return kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
