"""CSV and TSV: framing that knows quotes, the header, and parsing."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from easydata.errors import SourceError
from easydata.sources.blocks import BadRow, Fields, RawRows, Rows
from easydata.sources.columns import assemble_rows, text_array
from easydata.sources.describe import describe_names
from easydata.sources.framing import line_ends
from easydata.sources.jsonl import bad_utf8

__all__ = ["DelimitedLines", "DelimitedParser", "parse_header"]

_QUOTE = 34
# A field that starts with a stray quote would otherwise swallow the rest of the file.
_MAX_RECORD_BYTES = 256 << 20
_MAX_FIELD_CHARS = 2**31 - 1


class DelimitedLines:
    """A record ends at a newline outside quotes.

    A quote opens a quoted field only where a field starts; elsewhere it stands for itself.

    Args:
        delimiter: the byte between fields.
    """

    max_record_bytes: int | None = _MAX_RECORD_BYTES
    too_long = "A quote that opens a field is never closed: double it, or close it."

    def __init__(self, delimiter: str) -> None:
        self._before_quotes = np.frombuffer(f'{delimiter}\r\n"'.encode(), np.uint8)
        self._field_starters = f"{delimiter}\r\n".encode()
        self._quoted = False
        self._last = b"\n"
        self._last_closes = False

    def feed(self, piece: bytes) -> npt.NDArray[np.int64]:
        ends = line_ends(piece)
        quotes = np.flatnonzero(np.frombuffer(piece, np.uint8) == _QUOTE)
        switches = self._switches(piece, quotes)
        # A newline is outside quotes after an even number of switches.
        inside = np.searchsorted(switches, ends) + int(self._quoted)
        self._quoted = (len(switches) + int(self._quoted)) % 2 == 1
        self._last = piece[-1:]
        self._last_closes = (
            not self._quoted and len(switches) > 0 and int(switches[-1]) == len(piece) - 1
        )
        outside: npt.NDArray[np.bool_] = inside % 2 == 0
        return ends[outside]

    def _switches(self, piece: bytes, quotes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The quotes that open or close a quoted field."""
        if not len(quotes):
            return quotes
        opening = quotes[int(self._quoted) :: 2]
        if len(opening) and opening[0] == 0:
            opening = opening[1:]
            plain = self._opens_after(self._last, last_closes=self._last_closes)
        else:
            plain = True
        before = np.frombuffer(piece, np.uint8)[opening - 1]
        if plain and bool(np.isin(before, self._before_quotes).all()):
            return quotes
        return np.fromiter(self._walk(piece, quotes.tolist()), np.int64)

    def _walk(self, piece: bytes, quotes: list[int]) -> Iterator[int]:
        # Some quote stands for itself: every one has to be looked at in turn.
        quoted = self._quoted
        closed_at = -1 if self._last_closes else -2
        for quote in quotes:
            if quoted:
                quoted, closed_at = False, quote
                yield quote
                continue
            last = piece[quote - 1 : quote] if quote else self._last
            if self._opens_after(last, last_closes=closed_at == quote - 1):
                quoted = True
                yield quote

    def _opens_after(self, last: bytes, *, last_closes: bool) -> bool:
        # Right after a closing quote this is the second half of a doubled one.
        return last_closes or last in self._field_starters


@dataclass(frozen=True)
class DelimitedParser:
    """Records are lines of delimited fields in UTF-8.

    Attributes:
        header: the names of the fields.
        delimiter: the character between fields.
    """

    header: tuple[str, ...]
    delimiter: str

    @property
    def identity(self) -> str:
        return f"delimited {self.delimiter!r} {self.header!r}"

    def rows(self, records: Sequence[bytes], fields: Fields) -> Rows:
        good, places, bad = self._parse(records)
        names = (fields.text, *fields.keep)
        at = {name: self.header.index(name) for name in names if name in self.header}
        if fields.text not in at:
            missing = f"field {fields.text!r} is missing; the header has "
            missing += describe_names(self.header)
            bad.extend(BadRow(place, missing) for place in places)
            good, places = [], []
        texts = [values[at[fields.text]] for values in good]
        columns = {
            name: [values[at[name]] if name in at else None for values in good]
            for name in fields.keep
        }
        return assemble_rows(texts, columns, places, bad=bad, fields=fields, convert=text_array)

    def dicts(self, records: Sequence[bytes], text: str) -> RawRows:
        del text  # the header names the fields
        good, places, bad = self._parse(records)
        rows = [dict(zip(self.header, values, strict=True)) for values in good]
        return RawRows(rows, places, bad, untyped=True)

    def locate(self, record: bytes, row: int, line: int | None) -> str:
        del record  # blank lines are records of their own, so its bytes begin with its content
        return f"row {row} (line {line})"

    def _parse(self, records: Sequence[bytes]) -> tuple[list[list[str]], list[int], list[BadRow]]:
        """The fields of the good records, the places of these, and the bad ones."""
        good: list[list[str]] = []
        places: list[int] = []
        bad: list[BadRow] = []
        for place, (values, reason) in enumerate(_parse(records, self.delimiter)):
            if reason is not None:
                bad.append(BadRow(place, reason))
            elif values and len(values) != len(self.header):
                found = f"it has {len(values)} fields, and the header has {len(self.header)}"
                bad.append(BadRow(place, f"{found}: {describe_names(self.header)}"))
            elif values:
                good.append(values)
                places.append(place)
        return good, places, bad


def parse_header(record: bytes, delimiter: str, name: str) -> DelimitedParser | None:
    """The parser for a file that starts with `record`; None when that is blank.

    Raises:
        SourceError: it does not name each field once.
    """
    [(values, reason)] = _parse([record], delimiter)
    if reason is not None:
        raise SourceError(f"The header of {name} cannot be read: {reason}.")
    if not values:
        return None
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice or "" in values:
        found = f"names {twice[0]!r} twice" if twice and twice[0] else "has a field without a name"
        raise SourceError(
            f"The header of {name} {found}: {describe_names(values)}. "
            "Give each column a name of its own in the first line."
        )
    return DelimitedParser(tuple(values), delimiter)


def _parse(records: Sequence[bytes], delimiter: str) -> Iterator[tuple[list[str], str | None]]:
    """For each record its fields, and what is wrong with it if anything is."""
    # The limit of 131,072 characters is a global of the csv module; a document is longer.
    if csv.field_size_limit() < _MAX_FIELD_CHARS:
        csv.field_size_limit(_MAX_FIELD_CHARS)
    for record in records:
        try:
            lines = [str(record, "utf-8")]
            # strict: without it a field that is cut short reads as a whole one.
            yield next(csv.reader(lines, delimiter=delimiter, strict=True), []), None
        except UnicodeDecodeError as error:
            yield [], bad_utf8(record, error)
        except csv.Error as error:
            yield [], f"its fields cannot be told apart: {error}"
