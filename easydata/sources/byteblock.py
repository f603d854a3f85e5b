"""Blocks whose records are runs of bytes, and what the formats of such records promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from easydata.fingerprint import Hasher
from easydata.sources.blocks import Fields, RawRows, Rows
from easydata.sources.marks import record_marks

__all__ = ["ByteBlock", "Parser"]


class Parser(Protocol):
    """How the bytes of a record become a row. Immutable, and picklable."""

    @property
    def identity(self) -> str:
        """Everything besides the bytes that the rows depend on."""

    def rows(self, records: Sequence[bytes], fields: Fields) -> Rows:
        """Parse the records."""

    def dicts(self, records: Sequence[bytes], text: str) -> RawRows:
        """Parse them into dicts; where records have no fields, their text is named `text`."""

    def locate(self, record: bytes, row: int, line: int | None) -> str:
        """Where `record`, number `row` of its source, is. `line` is where its bytes begin."""


@dataclass(frozen=True)
class ByteBlock:
    """A run of records that lie one after the other in `data`.

    Attributes:
        data: bytes that hold the records, and perhaps others; shared between slices.
        ends: int64[num_records], from the block's first byte to the end of each record.
        parser: how the records become rows.
        first_record: index of the first record in its source, from 0.
        first_line: number from 1 of the line the block begins in; None where lines mean nothing.
        start: offset in `data` of the block's first byte.
    """

    data: bytes
    ends: npt.NDArray[np.int64]
    parser: Parser
    first_record: int = 0
    first_line: int | None = None
    start: int = 0

    @property
    def num_records(self) -> int:
        return len(self.ends)

    @property
    def nbytes(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def marks(self) -> npt.NDArray[np.uint64]:
        view = memoryview(self.data)[self.start : self.start + self.nbytes]
        starts = np.concatenate(([0], self.ends[:-1])) if len(self.ends) else self.ends
        return record_marks(view, starts, self.ends)

    def slice(self, start: int, stop: int) -> Self:
        """Records `start` to `stop` (excluded), sharing `data` with this block."""
        skipped = int(self.ends[start - 1]) if start else 0
        return type(self)(
            self.data,
            self.ends[start:stop] - skipped,
            self.parser,
            self.first_record + start,
            self._line_at(self.start + skipped),
            self.start + skipped,
        )

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Consecutive blocks as one; the result shares no memory with them."""
        shifts = np.cumsum([0, *(block.nbytes for block in blocks[:-1])])
        first = blocks[0]
        return cls(
            b"".join(memoryview(block.content) for block in blocks),
            np.concatenate(
                [block.ends + shift for block, shift in zip(blocks, shifts, strict=True)]
            ),
            first.parser,
            first.first_record,
            first.first_line,
        )

    @property
    def content(self) -> bytes:
        """The bytes of the records; a copy unless they are all of `data`."""
        return self.data[self.start : self.start + self.nbytes]

    def digest(self) -> bytes:
        hasher = Hasher(f"{self.num_records} {self.parser.identity}\0".encode())
        hasher.update(memoryview(self.data)[self.start : self.start + self.nbytes])
        return hasher.digest()

    def rows(self, fields: Fields) -> Rows:
        return self.parser.rows(self._records(), fields)

    def dicts(self, text: str) -> RawRows:
        return self.parser.dicts(self._records(), text)

    def locate(self, record: int) -> str:
        begin = self.start + (int(self.ends[record - 1]) if record else 0)
        content = self.data[begin : self.start + int(self.ends[record])]
        return self.parser.locate(content, self.first_record + record, self._line_at(begin))

    def _records(self) -> list[bytes]:
        stops = (self.ends + self.start).tolist()
        data = self.data
        return [
            data[begin:stop] for begin, stop in zip([self.start, *stops[:-1]], stops, strict=True)
        ]

    def _line_at(self, offset: int) -> int | None:
        """Number of the line that holds `data[offset]`; None where lines mean nothing."""
        if self.first_line is None:
            return None
        return self.first_line + self.data.count(b"\n", self.start, offset)

    def __reduce__(self) -> tuple[Any, ...]:
        # A slice must not drag its neighbours' bytes through the pipe to a worker.
        fields = (self.content, self.ends, self.parser, self.first_record, self.first_line)
        return type(self), fields
