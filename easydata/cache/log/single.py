"""Messages of one row: what every `put` makes and every `get` reads.

This is the rule of `layout` by hand. A message is its header, of which a few numbers change, the
fixed part, and the bytes of the entry, joined in one go; calls and lists for each column would
take most of the time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import Bytes
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.rows import Row
from easydata.format.alignment import HeaderFields

__all__ = ["RowCodec"]

_U64 = struct.Struct("<Q")
_NUMBERS = {pa.int64(): "q", pa.float64(): "d", pa.uint8(): "B7x"}
_PADS = [bytes(-size % 8) for size in range(8)]  # by size modulo 8
_WIDE_PADS = [bytes(count) for count in range(128)]


class _Run(NamedTuple):
    """Where the header tells of a column with offsets, in words of 8 bytes.

    Attributes:
        item_bytes: size of an item.
        buffer: of its buffer's position; its size comes next.
        child: of the number of items; 0 if the column is no list.
    """

    item_bytes: int
    buffer: int
    child: int


class RowCodec:
    """Encodes and locates messages of one row. Safe to share between threads."""

    def __init__(self, layout: EntryLayout, header: bytes, fields: HeaderFields) -> None:
        """
        Args:
            layout: the columns.
            header: of a message with one row and nothing in it.
            fields: positions in it.
        """
        self._body = len(header)
        self._fixed_bytes = layout.fixed_bytes(1)
        self._template = header + bytes(self._fixed_bytes)
        self._fixed = struct.Struct(
            "<Qqq6i" + "".join("2i" if c.is_run else _NUMBERS[c.kind] for c in layout.columns)
        )
        self._body_bytes = fields.body_bytes // 8
        self._own = fields.buffers // 8 + 16  # of the key's buffer; 6 words on the next
        self._runs = _runs(layout, fields)
        places = accumulate((2 if c.is_run else 1 for c in layout.columns), initial=9)
        # Of each column its items' size (0: it is a number), and where in the fixed part's values
        # the number of its items is, or itself.
        self._places = [
            (column.item_bytes if column.is_run else 0, place + column.is_run)
            for column, place in zip(layout.columns, places, strict=False)
        ]

    def encode(self, entry: Entry) -> bytes:
        """The message of one entry; all bytes are copied."""
        message = b"".join(self.parts(entry))
        return message + _U64.pack(xxhash.xxh3_64_intdigest(message))

    def parts(self, entry: Entry) -> list[Any]:
        """The bytes of the message of one entry, but for its checksum: views of the entry's."""
        key, key_hash, stamp, expires, metadata, recipe, data = entry
        key_bytes, metadata_bytes, recipe_bytes = len(key), len(metadata), len(recipe)
        head = bytearray(self._template)
        words = memoryview(head).cast("q")
        at = self._own
        end = self._fixed_bytes
        words[at], words[at + 1] = end, key_bytes
        end += key_bytes + 7 & -8
        words[at + 6], words[at + 7] = end, metadata_bytes
        end += metadata_bytes + 7 & -8
        words[at + 12], words[at + 13] = end, recipe_bytes
        end += recipe_bytes + 7 & -8
        pieces: list[Any] = [
            *(head, key, _PADS[key_bytes & 7], metadata, _PADS[metadata_bytes & 7]),
            *(recipe, _PADS[recipe_bytes & 7]),
        ]
        fixed = [key_hash, stamp, expires, 0, key_bytes, 0, metadata_bytes, 0, recipe_bytes]
        for value, run in zip(data, self._runs):  # noqa: B905 - `strict` takes a tenth of the call
            if run is None:
                fixed.append(value)
                continue
            item_bytes, buffer, child = run
            size = value.nbytes if type(value) is np.ndarray else len(value)
            start = end + 63 & -64
            pieces += (_WIDE_PADS[start - end], value, _PADS[size & 7])
            end = start + (size + 7 & -8)
            words[buffer], words[buffer + 1] = start, size
            items = size // item_bytes
            if child:
                words[child] = items
            fixed += (0, items)
        total = end + 71 & -64
        words[self._body_bytes] = total
        self._fixed.pack_into(head, self._body, *fixed)
        pieces.append(_WIDE_PADS[total - end - 8])
        return pieces

    def locate(self, view: Bytes, start: int) -> Row:
        """The entry in the message at `start` of a segment."""
        body = start + self._body
        fixed = self._fixed.unpack_from(view, body)
        key_at = body + self._fixed_bytes
        key_end = key_at + fixed[4]
        metadata_at = key_at + (fixed[4] + 7 & -8)
        recipe_at = metadata_at + (fixed[6] + 7 & -8)
        end = recipe_at + (fixed[8] + 7 & -8)
        data: list[Any] = []
        for item_bytes, place in self._places:
            value = fixed[place]
            if item_bytes:
                size = value * item_bytes
                at = end + 63 & -64
                end = at + (size + 7 & -8)
                data.append((at, at + size))
            else:
                data.append(value)
        return _new_row(
            Row,
            (
                *fixed[:3],
                (key_at, key_end),
                (metadata_at, metadata_at + fixed[6]),
                (recipe_at, recipe_at + fixed[8]),
                data,
            ),
        )


def _runs(layout: EntryLayout, fields: HeaderFields) -> Sequence[_Run | None]:
    """For each column where the header tells of it; None for numbers."""
    runs: list[_Run | None] = []
    buffer, node = 15, 6  # those of the cache's own columns come first
    for column in layout.columns:
        is_list = pa.types.is_list(column.kind)
        buffer += 4 if is_list else 3 if column.is_run else 2
        node += 2 if is_list else 1
        if column.is_run:
            child = fields.nodes // 8 + 2 * (node - 1) if is_list else 0
            runs.append(_Run(column.item_bytes, fields.buffers // 8 + 2 * (buffer - 1), child))
        else:
            runs.append(None)
    return runs


_new_row = tuple.__new__  # the constructor of a NamedTuple takes twice as long
