"""A .json file as a stream of values: one array, one object, or values one after the other."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator

import numpy as np

from easydata.errors import BadRowError, SourceError
from easydata.sources.framing import Piece, Read

__all__ = ["json_pieces"]

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"
# An error this near to the end of what was read may go away with more: "-Infinity", "\ud83d\ude00".
_UNSURE_CHARS = 16
_TO_SPACES = str.maketrans("\r\n", "  ")


def json_pieces(read: Read, block_bytes: int, name: str) -> Iterator[Piece]:
    """Cut a JSON file into runs of lines that hold one value each.

    Memory grows with the largest value, not with the file.

    Args:
        read: gives the next bytes, at most as many as asked for; none at the end.
        block_bytes: about the most bytes in a run; a longer value makes a run of its own.
        name: of the file, for messages.

    Yields:
        Lines of JSON in UTF-8, and int64[lines] where they end.

    Raises:
        BadRowError: the JSON is broken.
        SourceError: the bytes are not UTF-8.
    """
    lines: list[bytes] = []
    num_bytes = 0
    for value in _JsonText(read, block_bytes, name).values():
        # A newline inside a JSON string is always escaped: these stand between tokens.
        line = value.translate(_TO_SPACES).encode() + b"\n"
        if lines and num_bytes + len(line) > block_bytes:
            yield _joined(lines)
            lines, num_bytes = [], 0
        lines.append(line)
        num_bytes += len(line)
    if lines:
        yield _joined(lines)


def _joined(lines: list[bytes]) -> Piece:
    return b"".join(lines), np.cumsum([len(line) for line in lines], dtype=np.int64)


class _JsonText:
    """The text of a JSON file, of which a window is held."""

    def __init__(self, read: Read, chunk_bytes: int, name: str) -> None:
        self._read = read
        self._chunk_bytes = chunk_bytes
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes_read = 0
        self._text = ""
        self._at = 0
        self._line = 1
        self._column = 1
        self._ended = False
        self._num_values = 0

    def values(self) -> Iterator[str]:
        """The text of each top-level value, or of each element when there is one array."""
        if self._next_char() == "[":
            self._at += 1
            yield from self._elements()
            if self._next_char():
                raise self._broken(self._at, "text after the end of the array")
            return
        while self._next_char():
            yield self._value()

    def _elements(self) -> Iterator[str]:
        if self._next_char() == "]":
            self._at += 1
            return
        while True:
            self._next_char()
            yield self._value()
            separator = self._next_char()
            if separator not in (",", "]"):
                raise self._broken(self._at, "Expecting ',' or ']' after an element")
            self._at += 1
            if separator == "]":
                return

    def _next_char(self) -> str:
        """Move to the next character that is no blank, and return it; "" at the end."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if rest and rest not in _BLANKS:
                return rest
            if rest:
                self._at += 1
            elif not self._more(self._chunk_bytes):
                return ""

    def _value(self) -> str:
        while True:
            try:
                _, stop = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unsure = error.msg.startswith("Unterminated string") or (
                    error.pos >= len(self._text) - _UNSURE_CHARS
                )
                if unsure and self._more(len(self._text) - self._at):
                    continue
                raise self._broken(error.pos, error.msg) from error
            except (RecursionError, ValueError) as error:
                raise self._broken(self._at, str(error)) from error
            # A number may go on where the window ends: "1.5e+" parses as 1.5.
            cut = stop >= len(self._text) - len("e+") and self._text[stop - 1] not in "]}"
            if cut and self._more(self._chunk_bytes):
                continue
            value = self._text[self._at : stop]
            self._at = stop
            self._num_values += 1
            return value

    def _more(self, num_bytes: int) -> bool:
        """Read on, at least a chunk: asking for what is held already keeps the work linear."""
        if self._ended:
            return False
        self._forget()
        data = self._read(max(num_bytes, self._chunk_bytes))
        self._ended = not data
        try:
            self._text += self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            offset = self._bytes_read + len(data) - len(error.object) + error.start
            raise SourceError(
                f"{self._name}: byte 0x{error.object[error.start]:02x} at offset {offset} is not "
                f"UTF-8 ({error.reason}). Convert the file to UTF-8."
            ) from error
        self._bytes_read += len(data)
        return not self._ended or bool(self._text)

    def _forget(self) -> None:
        self._line, self._column = self._position(self._at)
        self._text = self._text[self._at :]
        self._at = 0

    def _position(self, at: int) -> tuple[int, int]:
        newline = self._text.rfind("\n", 0, at)
        column = self._column + at if newline < 0 else at - newline
        return self._line + self._text.count("\n", 0, at), column

    def _broken(self, at: int, what: str) -> BadRowError:
        line, column = self._position(at)
        return BadRowError(
            f"Row {self._num_values} of {self._name} (line {line}): broken JSON at column "
            f"{column}: {what}. Mend the file; if every line is an object of its own, pass "
            "type='jsonl' (--type jsonl)."
        )
