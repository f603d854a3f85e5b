"""From blocks to rows, with or without a transform on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from easydata.sources.blocks import BadRow, Block, Fields, Rows
from easydata.sources.columns import assemble_rows, loose_array, value_array
from easydata.sources.text_field import BadRecordError, text_of

__all__ = ["parse_rows"]


def parse_rows(block: Block, fields: Fields) -> Rows:
    """The rows of a block, after the transform of `fields` if it has one.

    Args:
        block: read with `fields.names`, so for a transform with all its columns.
        fields: what is wanted; of the new rows, where there is a transform.
    """
    transform = fields.transform
    if transform is None:
        return block.rows(fields)
    found = block.dicts(transform.old_names(fields.text)[0])
    texts: list[str] = []
    places: list[int] = []
    columns: dict[str, list[object]] = {name: [] for name in fields.keep}
    bad = found.bad
    left_out = 0
    for row, record in zip(found.rows, found.records, strict=True):
        try:
            new = transform(row)
            if new is None:
                left_out += 1
                continue
            text = text_of(new, fields.text, after=str(transform))
        except BadRecordError as error:
            bad.append(BadRow(record, str(error), error.__cause__))
            continue
        texts.append(text)
        places.append(record)
        for name, column in columns.items():
            column.append(_own(new.get(name)))
    convert = loose_array if found.untyped else value_array
    rows = assemble_rows(texts, columns, places, bad=bad, fields=fields, convert=convert)
    return replace(rows, left_out=left_out)


def _own(value: object) -> object:
    # The function may put one object into all rows, and change it from row to row.
    if isinstance(value, list | tuple):
        return [_own(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _own(item) for name, item in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value
