"""A large entry as several rows, each with a part of its bytes, and back.

Each row has the cache's own columns, as the whole entry has them. The bytes of its recipe and of
its columns with offsets lie one after another, in this order, over the rows; between two items, and
in text between two characters. Numbers are repeated. So a segment of such rows is read by any
reader of Arrow, and neither writing nor reading it takes much more memory than the value itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import Bytes, seal
from easydata.cache.log.layout import NUM_OWN, NUM_OWN_RUNS, EntryLayout, body_bytes, padded
from easydata.cache.log.message import EntryCodec
from easydata.format.alignment import ALIGNMENT

__all__ = ["cut", "join"]

LARGE_BYTES = 64 << 20  # an entry with more has a segment of its own
PIECE_BYTES = 32 << 20  # what is made in memory at a time

_I32 = struct.Struct("<i")


def cut(layout: EntryLayout, entry: Entry, max_bytes: int) -> list[Entry]:
    """The rows of an entry: views of its bytes.

    Args:
        layout: of its columns.
        entry: to be cut.
        max_bytes: of the recipe and the columns of a row; at least 16, the size of an item.
    """
    runs = [(memoryview(entry.recipe), 1, True)]
    for column, item in zip(layout.columns, entry.data, strict=True):
        if column.is_run:
            runs.append((_bytes(item), column.item_bytes, pa.types.is_string(column.kind)))
    nothing = [view[:0] for view, _, _ in runs]
    rows: list[list[memoryview]] = []
    row, room = list(nothing), max_bytes
    for at, (view, item_bytes, is_text) in enumerate(runs):
        start = 0
        while start < len(view):
            stop = min(start + room // item_bytes * item_bytes, len(view))
            while is_text and start < stop < len(view) and view[stop] & 0xC0 == 0x80:
                stop -= 1  # to where a character begins
            row[at] = view[start:stop]
            start, room = stop, room - (stop - start)
            if start < len(view):
                rows.append(row)
                row, room = list(nothing), max_bytes
    rows.append(row)
    return [_row(layout, entry, views) for views in rows]


def join(codec: EntryCodec, messages: Iterable[Bytes]) -> bytearray:
    """The plain message of an entry.

    Args:
        codec: of the segment.
        messages: at least one: of the rows that `cut` made, in order. Each is needed for as long
            as it is the last.

    Raises:
        ValueError: they do not follow one another.
    """
    layout, body = codec.layout, codec.header_bytes
    fixed_starts = layout.fixed_starts(1)
    item_bytes = [1] * NUM_OWN_RUNS + [c.item_bytes for c in layout.columns if c.is_run]
    sizes = [0] * len(item_bytes)
    result = bytearray(body)
    current = NUM_OWN_RUNS - 1  # the run that grows
    for message in messages:
        row = codec.locate_row(message, 0)
        view = memoryview(message)
        if len(result) == body:  # what all rows have in common
            result += view[body : body + fixed_starts[-1]]
            for at, (start, stop) in enumerate((row.key, row.metadata)):
                sizes[at] = stop - start
                result += view[start:stop]
                result += bytes(-sizes[at] % 8)
        runs = [row.recipe, *(item for item in row.data if type(item) is tuple)]
        for at, (start, stop) in enumerate(runs, start=NUM_OWN_RUNS - 1):
            if start == stop:
                continue
            if at < current:
                raise ValueError("its rows are not in order")
            current = _begin(result, body, current, at)
            result += view[start:stop]
            sizes[at] += stop - start
    starts = layout.data_starts(fixed_starts[-1], sizes)
    result += bytes(body + body_bytes(starts[-1]) - len(result))
    result[:body] = codec.header(1, sizes)
    for place, size, width in zip(_ends(layout), sizes, item_bytes, strict=True):
        _I32.pack_into(result, body + place, size // width)
    seal(result)
    return result


def _begin(result: bytearray, body: int, current: int, at: int) -> int:
    """Pad what is there so far to where the run `at` begins, as `layout` says."""
    while current < at:
        current += 1
        size = len(result) - body
        size = padded(size, ALIGNMENT if current >= NUM_OWN_RUNS else 8)
        result += bytes(body + size - len(result))
    return current


def _ends(layout: EntryLayout) -> list[int]:
    """Where the fixed part of a row tells how many items each of its runs has."""
    starts = layout.fixed_starts(1)
    own = range(NUM_OWN - NUM_OWN_RUNS, NUM_OWN)
    runs = [at for at, column in enumerate(layout.columns, start=NUM_OWN) if column.is_run]
    return [starts[at] + _I32.size for at in (*own, *runs)]


def _row(layout: EntryLayout, entry: Entry, views: list[memoryview]) -> Entry:
    recipe, *runs = views
    following = iter(runs)
    data = [
        next(following) if column.is_run else number
        for column, number in zip(layout.columns, entry.data, strict=True)
    ]
    return entry._replace(recipe=bytes(recipe), data=data)


def _bytes(item: Any) -> memoryview:
    if isinstance(item, np.ndarray):
        item = item.view(np.uint8)
    return memoryview(item)
