"""Plain text: a row for the file, for each line, or for each paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from easydata.sources.blocks import BadRow, Fields, RawRows, Rows
from easydata.sources.columns import assemble_rows, value_array
from easydata.sources.framing import BLANK_BYTES, line_ends
from easydata.sources.jsonl import bad_utf8, blank_lines

__all__ = ["Lines", "Paragraphs", "TextParser", "TextRows"]

TextRows = Literal["file", "line", "paragraph"]


class Lines:
    """A record is a line."""

    max_record_bytes: int | None = None
    too_long = ""

    def feed(self, piece: bytes) -> npt.NDArray[np.int64]:
        return line_ends(piece)


class Paragraphs:
    """A record is a run of lines with the blank line that ends it.

    Further blank lines lead the next record: so a record's end is known when its last line is.
    """

    max_record_bytes: int | None = None
    too_long = ""

    def __init__(self) -> None:
        self._line_is_blank = True
        self._previous_was_blank = True

    def feed(self, piece: bytes) -> npt.NDArray[np.int64]:
        ends = line_ends(piece)
        if not len(ends):
            self._line_is_blank = self._line_is_blank and not piece.strip(BLANK_BYTES)
            return ends
        blank = blank_lines(piece, ends)
        blank[0] &= self._line_is_blank
        before = np.concatenate(([self._previous_was_blank], blank[:-1]))
        self._previous_was_blank = bool(blank[-1])
        self._line_is_blank = not piece[int(ends[-1]) :].strip(BLANK_BYTES)
        return ends[blank & ~before]


@dataclass(frozen=True)
class TextParser:
    """Records are UTF-8 text, without fields.

    Attributes:
        unit: what a record is; decides which newlines belong to its frame, not to its text.
    """

    unit: TextRows

    @property
    def identity(self) -> str:
        return f"text {self.unit}"

    def rows(self, records: Sequence[bytes], fields: Fields) -> Rows:
        texts, places, bad = self._texts(records)
        columns = {name: [None] * len(texts) for name in fields.keep}
        return assemble_rows(texts, columns, places, bad=bad, fields=fields, convert=value_array)

    def dicts(self, records: Sequence[bytes], text: str) -> RawRows:
        texts, places, bad = self._texts(records)
        return RawRows([{text: content} for content in texts], places, bad)

    def locate(self, record: bytes, row: int, line: int | None) -> str:
        if self.unit == "file":
            return ""
        start = max(self._content(record)[0], 0)
        return f"row {row} (line {(line or 1) + record.count(10, 0, start)})"

    def _texts(self, records: Sequence[bytes]) -> tuple[list[str], list[int], list[BadRow]]:
        """The texts, the places of their records, and the bad records."""
        texts: list[str] = []
        places: list[int] = []
        bad: list[BadRow] = []
        for place, record in enumerate(records):
            start, stop = self._content(record)
            if start < 0:
                continue
            try:
                texts.append(str(record[start:stop], "utf-8"))
            except UnicodeDecodeError as error:
                # The reason counts columns in the whole record, where its lines begin.
                whole = UnicodeDecodeError(
                    "utf-8", record, error.start + start, error.end + start, error.reason
                )
                line = record.count(b"\n", start, whole.start)
                where = "" if self.unit == "line" else f"on its line {line + 1}: "
                bad.append(BadRow(place, where + bad_utf8(record, whole)))
            else:
                places.append(place)
        return texts, places, bad

    def _content(self, record: bytes) -> tuple[int, int]:
        """Where the text of `record` starts and stops; (-1, 0) when it holds none."""
        if self.unit == "file":
            return 0, len(record)
        if self.unit == "line":
            return 0, _without_newline(record, len(record))
        inner = len(record) - len(record.lstrip(BLANK_BYTES))
        if inner == len(record):
            return -1, 0
        # Blanks around the text stay, where they share a line with it.
        start = record.rfind(b"\n", 0, inner) + 1
        newline = record.find(b"\n", len(record.rstrip(BLANK_BYTES)))
        return start, len(record) if newline < 0 else _without_newline(record, newline + 1)


def _without_newline(record: bytes, stop: int) -> int:
    if record.endswith(b"\r\n", 0, stop):
        return stop - 2
    return stop - 1 if record.endswith(b"\n", 0, stop) else stop
