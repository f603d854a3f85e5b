"""JSON lines: framing, and parsing of records that are one JSON object each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.sources.blocks import BadRow, Fields, RawRows, Rows
from easydata.sources.columns import assemble_rows, value_array
from easydata.sources.framing import BLANK_BYTES, line_ends
from easydata.sources.text_field import BadRecordError, text_of

__all__ = ["JsonLines", "JsonParser", "bad_utf8"]

_NEWLINE = 10
_BLANKS = BLANK_BYTES.decode()
_DECODER = json.JSONDecoder()


class JsonLines:
    """A record is a line with the blank lines before it."""

    max_record_bytes: int | None = None
    too_long = ""

    def __init__(self) -> None:
        self._blank_so_far = True

    def feed(self, piece: bytes) -> npt.NDArray[np.int64]:
        ends = line_ends(piece)
        if not len(ends):
            self._blank_so_far = self._blank_so_far and not piece.strip(BLANK_BYTES)
            return ends
        blank = blank_lines(piece, ends)
        blank[0] &= self._blank_so_far
        self._blank_so_far = not piece[int(ends[-1]) :].strip(BLANK_BYTES)
        return ends[~blank]


def blank_lines(piece: bytes, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[lines]: which of the lines that end at `ends` hold nothing but blanks."""
    starts = np.concatenate(([0], ends[:-1]))
    # Only a line that starts with a blank can be one, and most of those are bare newlines.
    first = np.frombuffer(piece, np.uint8)[starts]
    blank: npt.NDArray[np.bool_] = first == _NEWLINE
    for line in np.flatnonzero(np.isin(first, np.frombuffer(b" \t\r", np.uint8))):
        blank[line] = not piece[int(starts[line]) : int(ends[line])].strip(BLANK_BYTES)
    return blank


@dataclass(frozen=True)
class JsonParser:
    """Records are JSON objects in UTF-8."""

    identity: str = "jsonl"

    def rows(self, records: Sequence[bytes], fields: Fields) -> Rows:
        found = self.dicts(records, fields.text)
        good: list[Mapping[str, object]] = []
        texts: list[str] = []
        places: list[int] = []
        bad = found.bad
        for row, place in zip(found.rows, found.records, strict=True):
            # Strict UTF-8 holds no surrogates; only an escape can bring one in.
            escaped = b"\\u" in records[place]
            try:
                texts.append(text_of(row, fields.text, maybe_surrogates=escaped))
            except BadRecordError as error:
                bad.append(BadRow(place, str(error)))
                continue
            good.append(row)
            places.append(place)
        columns = {name: [row.get(name) for row in good] for name in fields.keep}
        return assemble_rows(texts, columns, places, bad=bad, fields=fields, convert=value_array)

    def dicts(self, records: Sequence[bytes], text: str) -> RawRows:
        del text  # objects name their fields
        found = RawRows([], [], [])
        for place, record in enumerate(records):
            try:
                row = self.decode(record)
            except BadRecordError as error:
                found.bad.append(BadRow(place, str(error)))
                continue
            if row is not None:
                found.rows.append(row)
                found.records.append(place)
        return found

    def locate(self, record: bytes, row: int, line: int | None) -> str:
        if line is None:
            return f"row {row}"
        before = record[: len(record) - len(record.lstrip(BLANK_BYTES))]
        return f"row {row} (line {line + before.count(10)})"

    def decode(self, record: bytes) -> dict[str, object] | None:
        """The object that a record holds; None for blank lines.

        Raises:
            BadRecordError: it holds no object.
        """
        try:
            value = self.loads(str(record, "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRecordError(bad_utf8(record, error)) from error
        except json.JSONDecodeError as error:
            # What is missing at the end is missing from this line, not from the next.
            content = error.doc.rstrip(_BLANKS)
            if not content:
                return None
            at = min(error.pos, len(content))
            column = at - content.rfind("\n", 0, at)
            raise BadRecordError(f"broken JSON at column {column}: {error.msg}") from error
        except RecursionError as error:
            raise BadRecordError("its JSON is nested too deeply to parse") from error
        except ValueError as error:
            # An integer of thousands of digits.
            raise BadRecordError(f"its JSON cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise BadRecordError(
                f"it is {_json_type(value)}, not an object with fields; write "
                "{\"text\": …} on each line, or pass type='text' (--type text)"
            )
        return value

    def loads(self, text: str) -> Any:
        """The JSON value that `text` holds."""
        return _DECODER.decode(text)


def bad_utf8(record: bytes, error: UnicodeDecodeError) -> str:
    """Why `record` is no text: "byte 0xff at column 12 is not UTF-8 (invalid start byte)"."""
    column = error.start - record.rfind(b"\n", 0, error.start)
    return f"byte 0x{record[error.start]:02x} at column {column} is not UTF-8 ({error.reason})"


def _json_type(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
