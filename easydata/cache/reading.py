"""From an entry in the log to a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from easydata.cache.log.mapped import ArraysOfMap, MappedBlocks
from easydata.cache.log.segment import Hit
from easydata.cache.values import decode, view_names

__all__ = ["Stored"]

Dtype = np.dtype[Any]


class Stored:
    """An entry of the log, and what makes its value.

    All there is to know is in `parts`: a plain tuple of things that hold no others, which the
    garbage collector therefore passes over. Thousands of entries may be remembered.

    Attributes:
        parts: key's hash, stamp, expiry, packed metadata, whether the columns cost no memory as
            long as nobody asks for them, recipe, columns, and for a dict of arrays that dict.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts

    @classmethod
    def of(cls, hit: Hit) -> Self:
        """What was found in the log."""
        segment, _, view, row = hit
        key_hash, stamp, expires, _, (start, stop), (recipe_start, recipe_stop), data = row
        metadata = bytes(view[start:stop]) if start < stop else b""
        recipe = bytes(view[recipe_start:recipe_stop])
        blocks = segment.blocks
        is_mapped = isinstance(blocks, MappedBlocks)
        if isinstance(blocks, MappedBlocks):
            columns = _views(blocks.arrays, segment.codec.layout.dtypes, view, data)
        else:
            # A value must not keep a whole block of many in memory.
            is_copied = 2 * row.size < len(view)
            columns = _decoded(segment.codec.layout.dtypes, view, data, is_copied=is_copied)
        names = view_names(recipe)
        template = None
        if names is not None and len(names) == len(columns):
            template = dict(zip(names, columns, strict=True))
        return cls(
            (key_hash, stamp, expires, metadata, is_mapped, recipe, tuple(columns), template)
        )

    @property
    def key_hash(self) -> int:
        """XXH3-64 of its key."""
        found: int = self.parts[0]
        return found

    @property
    def stamp(self) -> int:
        """When it was written, nanoseconds since 1970."""
        found: int = self.parts[1]
        return found

    @property
    def expires(self) -> int:
        """Nanoseconds since 1970, or `NEVER`."""
        found: int = self.parts[2]
        return found

    @property
    def metadata(self) -> bytes:
        """Packed; b"" for None."""
        found: bytes = self.parts[3]
        return found

    @property
    def is_mapped(self) -> bool:
        """Whether its columns are views of a file, which cost no memory."""
        found: bool = self.parts[4]
        return found

    def value(self) -> Any:
        """A new value; its arrays are read-only and may view the map of a file.

        Raises:
            DatasetError: the entry is not what was written.
            MissingDependencyError: the value needs a package that is not installed.
        """
        _, _, _, _, _, recipe, columns, template = self.parts
        # Nobody can change the arrays of a template, so that only the dict need be new.
        return decode(recipe, columns) if template is None else template.copy()


def _views(
    arrays: ArraysOfMap, dtypes: Sequence[Dtype | None], view: memoryview, data: Sequence[Any]
) -> list[Any]:
    """The columns of an entry as views of the map."""
    columns: list[Any] = []
    for dtype, item in zip(dtypes, data):  # noqa: B905 - `strict` takes a tenth of the call
        if dtype is not None:
            # A slice of one array takes a quarter of the time of a new one.
            size = dtype.itemsize
            columns.append(arrays[dtype][item[0] // size : item[1] // size])
        elif type(item) is tuple:
            columns.append(view[item[0] : item[1]])
        else:
            columns.append(item)
    return columns


def _decoded(
    dtypes: Sequence[Dtype | None], view: memoryview, data: Sequence[Any], *, is_copied: bool
) -> list[Any]:
    """The columns of an entry in a decoded block."""
    columns: list[Any] = []
    for dtype, item in zip(dtypes, data, strict=True):
        if type(item) is not tuple:
            columns.append(item)
            continue
        found: Any = view[item[0] : item[1]]
        if dtype is not None:
            found = np.frombuffer(found, dtype)
        if is_copied:
            found = bytes(found) if dtype is None else found.copy()
        if dtype is not None:
            found.setflags(write=False)
        columns.append(found)
    return columns
