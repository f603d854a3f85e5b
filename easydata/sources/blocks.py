"""What every source yields: blocks of whole records, still in the form they were read in.

A *record* is what may become one row: a line of JSONL, a row of a table, a whole text file.
Reading only finds where records end. Parsing them (`Block.rows`) is left for later, so that it
can happen in a worker process, and only for data that has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.sources.transform import RowTransform

__all__ = ["BadRow", "Block", "Fields", "RawRows", "Rows"]


@dataclass(frozen=True)
class Fields:
    """Which fields of a row are wanted.

    Attributes:
        text: the field that holds the text.
        keep: Arrow types of the other fields to carry along, by name.
        transform: what makes the rows that have these fields; None where they are read as such.
    """

    text: str = "text"
    keep: Mapping[str, pa.DataType] = field(default_factory=dict)
    transform: RowTransform | None = None

    @property
    def names(self) -> list[str] | None:
        """What to ask a source for: the text field, then the others; None for all fields."""
        return [self.text, *self.keep] if self.transform is None else None


@dataclass(frozen=True)
class BadRow:
    """A record that is no good row: its index in the block, and why.

    Attributes:
        cause: the exception of a transform that failed on it.
    """

    record: int
    reason: str
    cause: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Rows:
    """The parsed rows of a block.

    Attributes:
        texts: one text for each good row.
        kept: for each kept field an Arrow array of its agreed type, as long as `texts`.
        records: int64[len(texts)], the index in the block of each row's record.
        bad: the records that are no good rows. Blank lines are in neither.
        left_out: how many rows a transform left out.
    """

    texts: Sequence[str]
    kept: Mapping[str, pa.Array]
    records: npt.NDArray[np.int64]
    bad: Sequence[BadRow]
    left_out: int = 0


@dataclass(frozen=True)
class RawRows:
    """The rows of a block with all their fields, as they stand.

    Attributes:
        rows: dicts of plain Python values that belong to the caller, fields in their order.
        records: for each row the index in the block of its record.
        bad: the records that are no rows.
        untyped: every value is a string, which may stand for a number (CSV).
    """

    rows: list[dict[str, Any]]
    records: list[int]
    bad: list[BadRow]
    untyped: bool = False


class Block(Protocol):
    """A run of whole records of one source. Immutable, and picklable."""

    @property
    def num_records(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of the records' content."""

    @property
    def first_record(self) -> int:
        """Index of the first record in its source, from 0."""

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """int64[num_records]: bytes from the block's start to the end of each record."""

    def marks(self) -> npt.NDArray[np.uint64]:
        """uint64[num_records]: a hash of each record, a function of its content alone."""

    def slice(self, start: int, stop: int) -> Self:
        """Records `start` to `stop` (excluded) as a block; a view where possible."""

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Consecutive blocks of one source as one block, with compact memory of its own."""

    def digest(self) -> bytes:
        """16 bytes that identify the content of a *joined* block and how it is parsed.

        Equal records parsed in the same way have equal digests however they were read:
        block boundaries, position in the file and compression play no part.
        """

    def rows(self, fields: Fields) -> Rows:
        """Parse the records; what `fields` says of a transform is left to `parse_rows`."""

    def dicts(self, text: str) -> RawRows:
        """Parse the records into dicts; where rows have no field names, the text is `text`."""

    def locate(self, record: int) -> str:
        """Where record `record` of this block is, for people: "row 7 (line 8)"."""
