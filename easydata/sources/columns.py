"""Values as Arrow arrays of an agreed type: each value unchanged, or reported as a misfit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.sources.blocks import BadRow, Fields, Rows
from easydata.sources.describe import describe_misfit

__all__ = [
    "Convert",
    "assemble_rows",
    "column_array",
    "fits",
    "loose_array",
    "text_array",
    "value_array",
]

# An array as long as the values, null where one misfits, and why each of those does.
Convert = Callable[[Any, pa.DataType, str], tuple[pa.Array, dict[int, str]]]

_CANNOT = (pa.ArrowException, OverflowError, ValueError, TypeError)


def assemble_rows(
    texts: Sequence[str],
    columns: Mapping[str, Any],
    records: Sequence[int],
    *,
    bad: list[BadRow],
    fields: Fields,
    convert: Convert,
) -> Rows:
    """Rows from columns of raw values; a row with a misfit in any of them becomes a bad row.

    Args:
        texts: one for each row.
        columns: for each kept field its raw values, one for each row.
        records: for each row the index of its record.
        bad: bad rows that are known already.
        fields: the types to convert to.
        convert: turns one column into an array.
    """
    kept: dict[str, pa.Array] = {}
    reasons: dict[int, str] = {}
    for name, kind in fields.keep.items():
        kept[name], misfits = convert(columns[name], kind, name)
        reasons = misfits | reasons
    index: npt.NDArray[np.int64] = np.asarray(records, np.int64)
    if reasons:
        keep = [row for row in range(len(texts)) if row not in reasons]
        bad = [*bad, *(BadRow(int(records[row]), why) for row, why in reasons.items())]
        texts = [texts[row] for row in keep]
        index = index[keep]
        selection = pa.array(keep, pa.int64())
        kept = {name: array.take(selection) for name, array in kept.items()}
    return Rows(texts, kept, index, sorted(bad, key=lambda row: row.record))


def value_array(
    values: Sequence[object], kind: pa.DataType, name: str
) -> tuple[pa.Array, dict[int, str]]:
    """Python values as an array of type `kind`.

    A value is stored unchanged or not at all: Arrow alone would cut 1.5 down to the integer 1.
    Only a float type narrower than float64 rounds, because whoever asked for it wants that.
    """
    plain = set(map(type, values)) <= _plain_types(kind)
    if plain or all(fits(value, kind) for value in values):
        try:
            return pa.array(_as_stored(values, kind), type=kind), {}
        except _CANNOT:
            pass
    fitting: list[object] = []
    misfits: dict[int, str] = {}
    for row, value in enumerate(values):
        good = fits(value, kind) and _converts(value, kind)
        fitting.append(value if good else None)
        if not good:
            misfits[row] = describe_misfit(name, value, kind)
    return pa.array(_as_stored(fitting, kind), type=kind), misfits


def text_array(
    values: Sequence[str | None], kind: pa.DataType, name: str
) -> tuple[pa.Array, dict[int, str]]:
    """Fields of a CSV file as an array of type `kind`; an empty one is null, unless a string."""
    if _is_text(kind):
        return value_array(values, kind, name)
    given = [value or None for value in values]
    array = _parsed(given, kind)
    if array is not None:
        return array, {}
    if not given:
        return pa.nulls(0, kind), {}
    null = pa.nulls(1, kind)
    singles = [null if value is None else _parsed([value], kind) for value in given]
    misfits = {
        row: describe_misfit(name, given[row], kind)
        for row, single in enumerate(singles)
        if single is None
    }
    return pa.concat_arrays([null if one is None else one for one in singles]), misfits


def loose_array(
    values: Sequence[object], kind: pa.DataType, name: str
) -> tuple[pa.Array, dict[int, str]]:
    """Fields of a CSV file among other values as an array of type `kind`."""
    if _is_text(kind):
        return value_array(values, kind, name)
    is_field = [isinstance(value, str) for value in values]
    fields = [value if isinstance(value, str) else None for value in values]
    others = [None if isinstance(value, str) else value for value in values]
    parsed, field_misfits = text_array(fields, kind, name)
    given, misfits = value_array(others, kind, name)
    places = [row if is_text else len(values) + row for row, is_text in enumerate(is_field)]
    both = pa.concat_arrays([parsed, given]).take(pa.array(places, pa.int64()))
    return both, misfits | field_misfits


def column_array(column: pa.Array, kind: pa.DataType, name: str) -> tuple[pa.Array, dict[int, str]]:
    """A column of a table as an array of type `kind`."""
    if column.type == kind:
        return column, {}
    if _widens(column.type, kind):
        try:
            return column.cast(kind, safe=True), {}
        except pa.ArrowException:
            pass
    return value_array(column.to_pylist(), kind, name)


def fits(value: object, kind: pa.DataType) -> bool:
    """Whether an array of type `kind` can hold exactly `value`, as far as types tell."""
    types = pa.types
    if value is None:
        return True
    if types.is_boolean(kind):
        return isinstance(value, bool | np.bool_)
    if types.is_integer(kind):
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    if types.is_floating(kind):
        return _fits_float(value, kind)
    if _is_text(kind):
        return isinstance(value, str)
    if types.is_dictionary(kind):
        return fits(value, kind.value_type)
    if types.is_struct(kind):
        members = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return isinstance(value, Mapping) and all(
            name in members and fits(item, members[name]) for name, item in value.items()
        )
    if _is_list(kind):
        return isinstance(value, list | tuple | np.ndarray) and all(
            fits(item, kind.value_type) for item in value
        )
    return _returns(value, kind)


def _fits_float(value: object, kind: pa.DataType) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    if isinstance(value, int | np.integer) and number != value:
        return False
    largest = float(np.finfo(kind.to_pandas_dtype()).max)
    return not math.isfinite(number) or abs(number) <= largest


def _as_stored(values: Sequence[object], kind: pa.DataType) -> Sequence[object]:
    # Arrow refuses integers beyond 2**53 as floats, even those that a float holds exactly.
    if not pa.types.is_floating(kind):
        return values
    return [float(value) if isinstance(value, int) else value for value in values]


def _plain_types(kind: pa.DataType) -> set[type]:
    # Types of which every value fits or makes pa.array raise, so that none needs a look.
    if pa.types.is_boolean(kind):
        return {bool, type(None)}
    if pa.types.is_integer(kind):
        return {int, type(None)}
    if pa.types.is_float64(kind):
        return {float, type(None)}
    return {str, type(None)} if _is_text(kind) else set()


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _converts(value: object, kind: pa.DataType) -> bool:
    try:
        pa.array(_as_stored([value], kind), type=kind)
    except _CANNOT:
        return False
    return True


def _returns(value: object, kind: pa.DataType) -> bool:
    # Dates, decimals, bytes and the like: pa.array cuts a datetime down to a date in silence.
    try:
        return bool(pa.scalar(value, type=kind).as_py() == value)
    except _CANNOT:
        return False


def _parsed(values: Sequence[str | None], kind: pa.DataType) -> pa.Array | None:
    # Importing it takes a tenth of a second, which a worker without such columns need not spend.
    import pyarrow.compute as pc

    strings = pa.array(values, pa.string())
    try:
        array = pc.cast(strings, kind)
    except _CANNOT:
        return None
    # "007" and "0x1F" parse as integers, "1" as true; written back they are something else.
    if pa.types.is_integer(kind):
        same = pc.equal(pc.cast(array, pa.string()), strings)
    elif pa.types.is_boolean(kind):
        same = pc.equal(pc.cast(array, pa.string()), pc.utf8_lower(strings))
    else:
        return array
    return array if pc.all(same).as_py() is not False else None


def _widens(given: pa.DataType, kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_null(given):
        return True
    if types.is_integer(given):
        return bool(types.is_integer(kind) or types.is_float64(kind))
    if types.is_floating(given):
        return bool(types.is_float64(kind))
    return _is_text(given) and _is_text(kind)
