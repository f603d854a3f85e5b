"""Rows that a function has made into columns: types agreed from a sample, then enforced."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._units import format_count
from easydata.build.reading import SourceStream
from easydata.errors import BadRowError, SourceError, UsageError
from easydata.format.arrays import number_array
from easydata.sources import Block, RowTransform, Source
from easydata.sources.columns import value_array
from easydata.sources.describe import describe_names
from easydata.sources.peeking import MAX_ROWS, spread, transform_block
from easydata.sources.text_field import BadRecordError
from easydata.sources.type_merge import (
    TypeConflictError,
    merge_types,
    type_of_values,
    without_nulls,
)

__all__ = ["TransformedRows"]

_log = logging.getLogger("easydata")
_REMEDY = "Mend it, or pass on_error='skip' to leave such rows out"


class TransformedRows:
    """The rows of sources after a transform, in order, read once.

    Attributes:
        schema: of the batches.
        num_rows: rows given so far.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        stream: SourceStream,
        transform: RowTransform,
        schema: Mapping[str, pa.DataType | str] | pa.Schema | None,
        *,
        skips_bad: bool,
    ) -> None:
        """Agree on types.

        Args:
            sources: where the rows come from; their first rows are looked at.
            stream: reads the same sources.
            transform: makes columns of a row.
            schema: types of columns; the others are inferred.
            skips_bad: leave out rows that are broken, fail, or do not fit.

        Raises:
            SourceError: values have no common type, or no row came through the transform.
            UsageError: a type is no Arrow type.
        """
        self.num_rows = 0
        self._names = [source.name for source in sources]
        self._stream = stream
        self._transform = transform
        self._skips_bad = skips_bad
        self._num_bad = self._left_out = 0
        self._first_bad = ""
        self.schema = pa.schema(_agree(sources, transform, _given_types(schema)))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a batch for each block that is read.

        Raises:
            BadRowError: a row is broken, fails or does not fit.
        """
        for name, found in zip(self._names, self._stream, strict=True):
            for block in found.blocks:
                batch = self._batch(name, block)
                self.num_rows += batch.num_rows
                yield batch

    def log_losses(self) -> None:
        """Say how many rows were left out."""
        if self._left_out:
            _log.info("%s rows left out by the transform.", format_count(self._left_out))
        if self._num_bad:
            _log.warning(
                "%s rows left out because they are broken or do not fit, such as %s",
                format_count(self._num_bad),
                self._first_bad,
            )

    def _batch(self, name: str, block: Block) -> pa.RecordBatch:
        found = block.dicts("text")
        bad: dict[int, tuple[str, BaseException | None]] = {
            row.record: (row.reason, row.cause) for row in found.bad
        }
        columns: dict[str, list[Any]] = {column: [] for column in self.schema.names}
        records = []
        for row, record in zip(found.rows, found.records, strict=True):
            try:
                new = self._transform(row)
                if new is None:
                    self._left_out += 1
                    continue
                self._check_names(new)
            except BadRecordError as error:
                bad[record] = (str(error), error.__cause__)
                continue
            records.append(record)
            for column, values in columns.items():
                # The function may put one object into all rows, and change it from row to row.
                values.append(copy.deepcopy(new.get(column)))
        arrays = []
        for item in self.schema:
            array, misfits = _column_array(columns[item.name], item.type, item.name)
            arrays.append(array)
            for at, reason in misfits.items():
                remedy = f"{reason}. Give a type that holds it with schema={{{item.name!r}: …}}"
                bad.setdefault(records[at], (remedy, None))
        self._report(name, block, bad)
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        good = [at for at, record in enumerate(records) if record not in bad]
        return batch if len(good) == len(records) else batch.take(pa.array(good, pa.int64()))

    def _check_names(self, row: Mapping[str, Any]) -> None:
        unknown = [name for name in row if name not in self.schema.names]
        if unknown:
            raise BadRecordError(
                f"{self._transform} gave the column {unknown[0]!r}, which no sampled row has; "
                f"they have {describe_names(self.schema.names)}. "
                f"Give its type with schema={{{unknown[0]!r}: …}}"
            )

    def _report(
        self, name: str, block: Block, bad: Mapping[int, tuple[str, BaseException | None]]
    ) -> None:
        if not bad:
            return
        record = min(bad)
        reason, cause = bad[record]
        place = block.locate(record)
        message = f"{name}, {place}: {reason}" if place else f"{name}: {reason}"
        if not self._skips_bad:
            raise BadRowError(f"{message}. {_REMEDY}.") from cause
        self._num_bad += len(bad)
        self._first_bad = self._first_bad or message


def _agree(
    sources: Sequence[Source], transform: RowTransform, given: Mapping[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """The columns and their types, in the order in which the rows have them."""
    types: dict[str, pa.DataType] = {}
    is_small: dict[str, bool] = {}
    failure: str | None = None
    for source in spread(sources):
        for block in source.peek(None, MAX_ROWS):
            found = transform_block(block, transform)
            if failure is None and found.failure is not None:
                failure = f"{source.name}, {found.failure}"
            for name in dict.fromkeys(name for row in found.after for name in row):
                values = [row[name] for row in found.after if name in row]
                try:
                    kind = given.get(name) or type_of_values(values)
                    types[name] = merge_types(types.get(name, pa.null()), kind)
                except TypeConflictError as error:
                    raise SourceError(
                        f"Values of the column {name!r} in {source.name} have no common type: "
                        f"{error}. Give one with schema={{{name!r}: …}}."
                    ) from error
                if name not in given and types[name] == pa.list_(pa.int64()):
                    fits = all(_integers(value, np.dtype(np.int32)) is not None for value in values)
                    is_small[name] = fits and is_small.get(name, True)
    if not types and not given:
        why = f": {failure}" if failure else ""
        raise SourceError(
            f"The columns are not known, because no sampled row came through {transform}{why}. "
            "Mend it, or give all types with schema=…."
        )
    agreed = {
        name: pa.list_(pa.int32())
        if is_small.get(name) and kind == pa.list_(pa.int64())
        else without_nulls(kind)
        for name, kind in types.items()
    }
    return {**agreed, **given}


def _column_array(
    values: Sequence[Any], kind: pa.DataType, name: str
) -> tuple[pa.Array, dict[int, str]]:
    """As `value_array`; quick where all values are lists of whole numbers."""
    if pa.types.is_list(kind) and pa.types.is_integer(kind.value_type):
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        lists = [_integers(value, dtype) for value in values]
        known = [one for one in lists if one is not None]
        lengths = np.array([0, *map(len, known)]).cumsum()
        if len(known) == len(lists) and lengths[-1] < 1 << 31:
            joined = np.concatenate([np.empty(0, dtype), *known])
            offsets = number_array(lengths.astype(np.int32))
            return pa.ListArray.from_arrays(offsets, number_array(joined), type=kind), {}
    return value_array(values, kind, name)


def _integers(value: object, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """A list of whole numbers as an array of this type; None if it is no such list."""
    if isinstance(value, list | tuple):
        if not set(map(type, value)) <= {int}:
            return None
        try:
            array = np.array(value, np.int64)
        except OverflowError:
            return None
    elif isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        array = value
    else:
        return None
    limits = np.iinfo(dtype)
    if len(array) and not (limits.min <= array.min() and array.max() <= limits.max):
        return None
    return array.astype(dtype)


def _given_types(
    schema: Mapping[str, pa.DataType | str] | pa.Schema | None,
) -> dict[str, pa.DataType]:
    if schema is None:
        return {}
    if isinstance(schema, pa.Schema):
        return {item.name: item.type for item in schema}
    found = {}
    for name, kind in schema.items():
        try:
            found[name] = kind if isinstance(kind, pa.DataType) else pa.type_for_alias(kind)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"schema says {kind!r} for the column {name!r}, which is no Arrow type. Give a "
                "pyarrow type, such as pa.list_(pa.uint16()), or a name such as 'int64'."
            ) from error
    return found
