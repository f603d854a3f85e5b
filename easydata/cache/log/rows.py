"""Where entries lie in a segment."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easydata.cache.log.framing import Bytes
from easydata.cache.log.layout import NUM_OWN_RUNS, EntryLayout

__all__ = ["LocatedRows", "Row"]


class Row(NamedTuple):
    """Where one entry lies in a map of its segment.

    Attributes:
        key_hash, stamp, expires: as in `Entry`.
        key, metadata, recipe: positions of their first byte and after their last.
        data: for each column that has offsets the positions of its first byte and after its
            last, for each other column its number.
    """

    key_hash: int
    stamp: int
    expires: int
    key: tuple[int, int]
    metadata: tuple[int, int]
    recipe: tuple[int, int]
    data: list[Any]


class LocatedRows:
    """The entries of a message with several rows: views of a map.

    Attributes:
        hashes: uint64[rows].
        stamps: int64[rows].
        expires: int64[rows].
    """

    def __init__(self, layout: EntryLayout, view: Bytes, body: int, rows: int) -> None:
        """
        Args:
            layout: the columns.
            view: the segment, which is kept.
            body: where the message's body starts in it.
            rows: the message's rows.
        """
        self._columns = layout.columns
        self._item_bytes = [1] * NUM_OWN_RUNS + [c.item_bytes for c in layout.columns if c.is_run]
        fixed_starts = layout.fixed_starts(rows)
        self.hashes = np.frombuffer(view, "<u8", rows, body)
        self.stamps = np.frombuffer(view, "<i8", rows, body + fixed_starts[1])
        self.expires = np.frombuffer(view, "<i8", rows, body + fixed_starts[2])
        self._offsets: list[npt.NDArray[np.int32]] = []
        self._numbers: list[npt.NDArray[Any] | None] = []
        for index, column in enumerate((None, None, None, *layout.columns), start=3):
            at = body + fixed_starts[index]
            if column is None or column.is_run:
                self._offsets.append(np.frombuffer(view, "<i4", rows + 1, at))
            if column is not None:
                dtype = None if column.is_run else column.kind.to_pandas_dtype()
                self._numbers.append(
                    None if dtype is None else np.frombuffer(view, dtype, rows, at)
                )
        sizes = [
            int(offsets[-1]) * item
            for offsets, item in zip(self._offsets, self._item_bytes, strict=True)
        ]
        starts = layout.data_starts(fixed_starts[-1], sizes)[:-1]
        self._starts = [body + at for at in starts]

    def __len__(self) -> int:
        return len(self.hashes)

    def row(self, index: int) -> Row:
        """One entry."""
        places = [
            (start + int(offsets[index]) * item, start + int(offsets[index + 1]) * item)
            for start, offsets, item in zip(
                self._starts, self._offsets, self._item_bytes, strict=True
            )
        ]
        run = iter(places[NUM_OWN_RUNS:])
        data = [
            next(run) if numbers is None else numbers[index].item() for numbers in self._numbers
        ]
        key, metadata, recipe = places[:NUM_OWN_RUNS]
        return Row(
            int(self.hashes[index]),
            int(self.stamps[index]),
            int(self.expires[index]),
            key,
            metadata,
            recipe,
            data,
        )
