"""The first rows of the sources: which are looked at, and what a transform makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from easydata.sources.blocks import Block
from easydata.sources.source import Source
from easydata.sources.text_field import BadRecordError
from easydata.sources.transform import RowTransform

__all__ = ["MAX_ROWS", "Transformed", "spread", "transform_block"]

MAX_ROWS = 1000
_MAX_SOURCES = 100


def spread(sources: Sequence[Source]) -> list[Source]:
    """At most 100 of `sources`, spread evenly over the list."""
    count = min(len(sources), _MAX_SOURCES)
    places = np.linspace(0, len(sources) - 1, count).round().astype(int)
    return [sources[place] for place in places]


@dataclass(frozen=True)
class Transformed:
    """The rows of a block that came through a transform.

    Attributes:
        transform: the transform.
        before: the rows as they were, fields by their old names.
        after: the same rows as they are now.
        untyped: the values in `before` are strings, which may stand for numbers (CSV).
        failure: where and why a row did not come through, for the first that failed.
        left_out: how many rows were left out.
    """

    transform: RowTransform
    before: list[Mapping[str, Any]]
    after: list[Mapping[str, Any]]
    untyped: bool
    failure: str | None
    left_out: int

    def old_name(self, name: str) -> str:
        """What the field `name` of the new rows was called in the old ones."""
        names = self.transform.old_names(name)
        return next((old for old in names if any(old in row for row in self.before)), names[0])

    def passes_on(self, name: str) -> bool:
        """Whether the field `name` has the value that it had in every row, and there is one."""
        old = self.old_name(name)
        # By what is written: NaN differs from itself, and 1 equals 1.0 and True.
        return bool(self.after) and all(
            name in new and old in row and repr(new[name]) == repr(row[old])
            for row, new in zip(self.before, self.after, strict=True)
        )


def transform_block(block: Block, transform: RowTransform) -> Transformed:
    """Transform the rows of a block; rows that fail are left for a build to report."""
    text = transform.old_names(transform.text)[0]
    # Parsed twice: the transform may change the dicts that it gets.
    originals = block.dicts(text)
    before: list[Mapping[str, Any]] = []
    after: list[Mapping[str, Any]] = []
    failure: str | None = None
    left_out = 0
    for row, original, record in zip(
        block.dicts(text).rows, originals.rows, originals.records, strict=True
    ):
        try:
            new = transform(row)
        except BadRecordError as error:
            failure = failure or f"{block.locate(record)}: {error}"
            continue
        if new is None:
            left_out += 1
            continue
        before.append(original)
        after.append(new)
    return Transformed(transform, before, after, originals.untyped, failure, left_out)
