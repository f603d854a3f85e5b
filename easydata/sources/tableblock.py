"""Blocks whose records are rows of an Arrow table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._lazy import cached_property
from easydata.errors import SourceError
from easydata.fingerprint import Hasher
from easydata.sources.blocks import BadRow, Fields, RawRows, Rows
from easydata.sources.columns import assemble_rows, column_array
from easydata.sources.describe import describe_names
from easydata.sources.row_bytes import ByteRuns, byte_runs, runs_marks
from easydata.sources.text_field import NEEDS_TEMPLATE

__all__ = ["TableBlock", "column_types", "needed_columns", "plain_type", "table_block"]

# Bytes that are no text, and times that Python has no values for.
_UNREADABLE = (ValueError, OverflowError)


@dataclass(frozen=True)
class TableBlock:
    """A run of rows of a table.

    Attributes:
        batch: the needed columns, as `table_block` makes them: the text first, as large_string.
        first_record: index of the first row in its source, from 0.
        whole: these are all columns instead, in the order of the source; none is the text.
    """

    batch: pa.RecordBatch
    first_record: int = 0
    whole: bool = False

    @property
    def num_records(self) -> int:
        return int(self.batch.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """int64[num_records]: where each row's content would end if a byte followed each."""
        lengths = np.ones(self.num_records, np.int64)
        for run in self._runs:
            lengths += run.stops - run.starts
        return np.cumsum(lengths)

    def marks(self) -> npt.NDArray[np.uint64]:
        return runs_marks(self._runs, self.num_records)

    def slice(self, start: int, stop: int) -> Self:
        """Rows `start` to `stop` (excluded), sharing buffers with this block."""
        batch = self.batch.slice(start, stop - start)
        return type(self)(batch, self.first_record + start, self.whole)

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Consecutive blocks as one; the result shares no buffers with them."""
        batch = pa.concat_batches([block.batch for block in blocks])
        return cls(batch, blocks[0].first_record, blocks[0].whole)

    def digest(self) -> bytes:
        hasher = Hasher(f"table {self.num_records} {self.batch.schema.to_string()}\0".encode())
        # In an IPC message slices are cut out, offsets start at 0, and there is no bitmap
        # where there are no nulls: so the bytes do not tell how batches were cut.
        hasher.update(self.batch.serialize())
        return hasher.digest()

    def rows(self, fields: Fields) -> Rows:
        missing = [name for name in (fields.text, *fields.keep) if name not in self._names]
        if missing:
            raise SourceError(
                f"Column {missing[0]!r} was not asked for when the source was opened; "
                f"the block has {describe_names(self._names)}."
            )
        found, bad = _strings(self.batch.column(fields.text), fields.text)
        places = [place for place, text in enumerate(found) if text is not None]
        batch = self.batch
        if len(places) < len(found):
            batch = batch.take(pa.array(places, pa.int64()))
        texts = [text for text in found if text is not None]
        columns = {name: batch.column(name) for name in fields.keep}
        return assemble_rows(texts, columns, places, bad=bad, fields=fields, convert=column_array)

    def dicts(self, text: str) -> RawRows:
        del text  # columns have names
        try:
            return RawRows(self.batch.to_pylist(), list(range(self.num_records)), [])
        except _UNREADABLE:
            pass
        found = RawRows([], [], [])
        for record in range(self.num_records):
            row = {}
            try:
                for name in self._names:
                    row[name] = self.batch.column(name)[record].as_py()
            except _UNREADABLE as error:
                found.bad.append(BadRow(record, _unreadable(name, error)))
            else:
                found.rows.append(row)
                found.records.append(record)
        return found

    def locate(self, record: int) -> str:
        return f"row {self.first_record + record}"

    @property
    def _names(self) -> list[str]:
        return list(self.batch.schema.names)

    @cached_property
    def _runs(self) -> list[ByteRuns]:
        """The bytes of the rows: of the text, or of all columns."""
        columns = self.batch.columns if self.whole else self.batch.columns[:1]
        return [run for column in columns for run in byte_runs(column)]

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as it is, a slice brings the whole of its buffers.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.batch.schema) as writer:
            writer.write_batch(self.batch)
        return _from_stream, (sink.getvalue().to_pybytes(), self.first_record, self.whole)


def needed_columns(schema: pa.Schema, names: Sequence[str] | None, source: str) -> list[str]:
    """`names` without repetitions, all of which `schema` has once, the first as text.

    None stands for all columns, of which none needs to be text.

    Raises:
        SourceError: it has one of them not at all or twice, or the first holds no text.
    """
    wanted = list(dict.fromkeys(schema.names if names is None else names))
    for name in wanted:
        count = len(schema.get_all_field_indices(name))
        if count == 1:
            continue
        if count:
            raise SourceError(f"{source} has {count} columns named {name!r}. Rename one of them.")
        remedy = (
            "Pass text_field=… (--text-field)"
            if name == wanted[0]
            else "Check keep_fields (--keep-fields)"
        )
        raise SourceError(
            f"{source} has no column {name!r}; it has {describe_names(schema.names)}. {remedy}."
        )
    if names is not None:
        _check_text(schema, wanted[0], source)
    return wanted


def table_block(
    batch: pa.RecordBatch, names: Sequence[str], first_record: int, *, whole: bool = False
) -> TableBlock:
    """Columns `names` of `batch`, in types that do not depend on how a file was written.

    The text, which comes first unless the block is `whole`, becomes large_string; dictionaries
    are decoded, string views become strings, extension types their storage; metadata is dropped.
    """
    columns = []
    for name in names:
        column = batch.column(name)
        is_text = name == names[0] and not whole
        kind = pa.large_string() if is_text else plain_type(column.type)
        columns.append(_cast(column, kind))
    schema = pa.schema([(name, column.type) for name, column in zip(names, columns, strict=True)])
    return TableBlock(pa.RecordBatch.from_arrays(columns, schema=schema), first_record, whole)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """`kind` without dictionaries, views and extension types, at any depth."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_struct(kind):
        return pa.struct([pa.field(member.name, plain_type(member.type)) for member in kind])
    if types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    if types.is_large_list(kind) or types.is_large_list_view(kind):
        return pa.large_list(plain_type(kind.value_type))
    if types.is_list(kind) or types.is_list_view(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def column_types(block: TableBlock) -> Mapping[str, pa.DataType]:
    """The types of the block's columns by name."""
    return {member.name: member.type for member in block.batch.schema}


def _check_text(schema: pa.Schema, name: str, source: str) -> None:
    kind = plain_type(schema.field(name).type)
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind):
        return
    is_list = types.is_list(kind) or types.is_large_list(kind)
    hint = f"; {NEEDS_TEMPLATE}" if is_list and types.is_struct(kind.value_type) else ""
    raise SourceError(
        f"Column {name!r} of {source} is {kind}, not text{hint}; it has "
        f"{describe_names(schema.names)}. Pass text_field=… (--text-field)."
    )


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:
        # Arrow has no cast between some nested types, such as structs with dictionaries.
        return pa.array(column.to_pylist(), type=kind)


def _strings(column: pa.Array, name: str) -> tuple[list[str | None], list[BadRow]]:
    reason = f"field {name!r} is null, not text"
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values, bad = [], []
        for row in range(len(column)):
            try:
                values.append(column[row].as_py())
            except UnicodeDecodeError as error:
                values.append(None)
                bad.append(BadRow(row, _unreadable(name, error)))
                continue
            if values[-1] is None:
                bad.append(BadRow(row, reason))
        return values, bad
    return values, [BadRow(row, reason) for row, value in enumerate(values) if value is None]


def _unreadable(name: str, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        byte = f"0x{error.object[error.start]:02x} at byte {error.start + 1}"
        return f"field {name!r} is not UTF-8: {byte} ({error.reason})"
    return f"field {name!r} has no value in Python: {error}"


def _from_stream(data: bytes, first_record: int, whole: bool) -> TableBlock:
    with pa.ipc.open_stream(data) as reader:
        return TableBlock(reader.read_next_batch(), first_record, whole)
