"""The types of the kept fields, agreed over all sources from a sample of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow as pa

from easydata.errors import SourceError, UsageError
from easydata.sources.blocks import Block
from easydata.sources.byteblock import ByteBlock
from easydata.sources.describe import describe_names
from easydata.sources.peeking import MAX_ROWS, spread, transform_block
from easydata.sources.source import Source
from easydata.sources.tableblock import TableBlock, column_types
from easydata.sources.text import TextParser
from easydata.sources.transform import RowTransform
from easydata.sources.type_merge import (
    TypeConflictError,
    merge_types,
    type_of_text,
    type_of_values,
    without_nulls,
)

__all__ = ["infer_types"]

_RESERVED = "input_ids"

Schema = Mapping[str, "pa.DataType | str"]


def infer_types(
    sources: Sequence[Source],
    text: str,
    keep: Sequence[str],
    schema: Schema | pa.Schema | None = None,
    transform: RowTransform | None = None,
) -> dict[str, pa.DataType]:
    """The Arrow type of each kept field.

    The first 1,000 rows of at most 100 sources, spread evenly over the list, are looked at.
    Nulls agree with anything, integers widen and mix with floats to float64, structs unite their
    fields; a field that is null in the whole sample becomes a string. A field that a transform
    passes on unchanged keeps the type that it has in the source; others are typed by their values.

    Args:
        sources: where the rows come from.
        text: the field that holds the text.
        keep: the fields to keep; `text` may be among them.
        schema: types by name, as Arrow types or names such as "int64"; these are not inferred.
        transform: makes the rows that have these fields. A row on which it fails is passed over
            here: `parse_rows` meets it again, and reports it as a `BadRow`.

    Raises:
        SourceError: types conflict, or no sampled row has one of the fields.
        UsageError: a name or a type cannot be used.
    """
    given = given_types(schema)
    if _RESERVED in keep:
        raise UsageError(
            f"The field {_RESERVED!r} cannot be kept: the tokens are stored under that name. "
            "Rename it in the source."
        )
    unknown = [name for name in given if name not in keep and name != text]
    if unknown:
        raise UsageError(
            f"schema names the field {unknown[0]!r}, which is not kept. "
            f"Add it to keep_fields, which has {describe_names(keep)}."
        )
    wanted = [name for name in dict.fromkeys(keep) if name not in given]
    sample = _Sample(wanted)
    if wanted:
        for source in spread(sources):
            for block in source.peek(None if transform else [text, *wanted], MAX_ROWS):
                sample.add(source.name, block, transform)
    return {name: given.get(name) or sample.agreed(name) for name in dict.fromkeys(keep)}


@dataclass
class _Sample:
    """What the sampled rows say about the wanted fields."""

    wanted: Sequence[str]
    types: dict[str, pa.DataType] = field(default_factory=dict)
    first_in: dict[str, str] = field(default_factory=dict)
    seen: dict[str, None] = field(default_factory=dict)
    failure: str | None = None
    left_out: int = 0

    def add(self, source: str, block: Block, transform: RowTransform | None) -> None:
        if transform is not None:
            self._add_transformed(source, block, transform)
        elif isinstance(block, TableBlock):
            types = column_types(block)
            self.seen.update(dict.fromkeys(types))
            for name in self.wanted:
                self._add_type(source, name, types[name])
        elif not _is_plain_text(block):
            found = block.dicts("")
            self.seen.update(dict.fromkeys(name for row in found.rows for name in row))
            for name in self.wanted:
                self._add_values(source, name, found.rows, are_texts=found.untyped)

    def agreed(self, name: str) -> pa.DataType:
        if name in self.seen:
            return without_nulls(self.types[name])
        remedy = f"give its type with schema={{{name!r}: …}}"
        if self.failure is not None and not self.seen:
            raise SourceError(
                f"The type of the field {name!r} is not known, because no sampled row came through "
                f"the transform: {self.failure}. Mend it, or {remedy}."
            )
        left_out = f" ({self.left_out} were left out)" if self.left_out else ""
        raise SourceError(
            f"No sampled row has the field {name!r}; the rows{left_out} have "
            f"{describe_names(list(self.seen))}. Check keep_fields (--keep-fields), or {remedy}."
        )

    def _add_transformed(self, source: str, block: Block, transform: RowTransform) -> None:
        found = transform_block(block, transform)
        self.seen.update(dict.fromkeys(name for row in found.after for name in row))
        self.left_out += found.left_out
        if self.failure is None and found.failure is not None:
            self.failure = f"{source}, {found.failure}"
        types = column_types(block) if isinstance(block, TableBlock) else {}
        for name in self.wanted:
            passes = found.passes_on(name)
            if passes and found.old_name(name) in types:
                self._add_type(source, name, types[found.old_name(name)])
            else:
                are_texts = passes and found.untyped
                self._add_values(source, name, found.after, are_texts=are_texts)

    def _add_values(
        self, source: str, name: str, rows: Sequence[Mapping[str, Any]], *, are_texts: bool
    ) -> None:
        values = [row[name] for row in rows if name in row]
        try:
            kind = _type_of_texts(values) if are_texts else type_of_values(values)
            self._add_type(source, name, kind)
        except TypeConflictError as error:
            raise SourceError(
                f"Values of field {name!r} in {source} have no common type: {error}. "
                f"Give one with schema={{{name!r}: …}}."
            ) from error

    def _add_type(self, source: str, name: str, kind: pa.DataType) -> None:
        before = self.types.get(name, pa.null())
        if not pa.types.is_null(kind):
            self.first_in.setdefault(name, source)
        try:
            self.types[name] = merge_types(before, kind)
        except TypeConflictError as error:
            raise SourceError(
                f"Field {name!r} is {before} in {self.first_in[name]} and {kind} in {source}. "
                f"Give the type to store with schema={{{name!r}: …}}."
            ) from error


def _type_of_texts(texts: Iterable[str]) -> pa.DataType:
    # Fields of a CSV file are strings to begin with, so strings can always hold them.
    try:
        return reduce(merge_types, map(type_of_text, texts), pa.null())
    except TypeConflictError:
        return pa.string()


def given_types(schema: Schema | pa.Schema | None) -> dict[str, pa.DataType]:
    if schema is None:
        return {}
    if isinstance(schema, pa.Schema):
        return {member.name: member.type for member in schema}
    return {name: _type_named(name, kind) for name, kind in schema.items()}


def _type_named(name: str, kind: object) -> pa.DataType:
    if isinstance(kind, pa.DataType):
        return kind
    try:
        return pa.type_for_alias(kind)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"schema says {kind!r} for the field {name!r}, which is no Arrow type. "
            "Give a pyarrow type, or a name such as 'int64', 'float64' or 'string'."
        ) from error


def _is_plain_text(block: Block) -> bool:
    return isinstance(block, ByteBlock) and isinstance(block.parser, TextParser)
