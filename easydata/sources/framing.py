"""Where records end in a stream of bytes, found for whole pieces of it at once."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from easydata._units import format_bytes
from easydata.errors import SourceError

__all__ = [
    "BLANK_BYTES",
    "Framer",
    "Piece",
    "Read",
    "WholeFile",
    "line_ends",
    "record_pieces",
    "skip_byte_order_mark",
]

Read = Callable[[int], bytes]
Piece = tuple[bytes, "npt.NDArray[np.int64]"]

BLANK_BYTES = b" \t\r\n"
_NEWLINE = 10

_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class Framer(Protocol):
    """Finds the ends of records; fed with the consecutive pieces of one file.

    Attributes:
        max_record_bytes: no record may be longer; None for no limit.
        too_long: what to say, and to do, about a record that is longer.
    """

    max_record_bytes: int | None
    too_long: str

    def feed(self, piece: bytes) -> npt.NDArray[np.int64]:
        """Offsets in `piece` where records end that began in it or in an earlier one."""


class WholeFile:
    """The whole file is one record."""

    max_record_bytes: int | None = 64 << 20
    too_long = "Pass text_rows='line' or 'paragraph' (--text-rows) to make rows of its parts."

    def feed(self, piece: bytes) -> npt.NDArray[np.int64]:
        del piece  # no byte of it ends the record
        return np.empty(0, np.int64)


def line_ends(piece: bytes) -> npt.NDArray[np.int64]:
    """int64[lines]: one past each newline in `piece`."""
    return np.flatnonzero(np.frombuffer(piece, np.uint8) == _NEWLINE) + 1


def record_pieces(read: Read, framer: Framer, block_bytes: int, name: str) -> Iterator[Piece]:
    """Cut a stream into runs of whole records.

    Args:
        read: gives the next bytes, at most as many as asked for; none at the end.
        framer: finds the ends.
        block_bytes: about the most bytes in a run; a longer record makes a run of its own.
        name: of the file, for messages.

    Yields:
        The bytes of a run, and int64[records] where its records end. Joined, the runs are the
        stream. The last record needs no end of its own.

    Raises:
        SourceError: a record is longer than the framer allows.
    """
    pending: list[bytes] = []
    num_pending = 0
    while piece := read(_wanted(block_bytes, num_pending)):
        ends = framer.feed(piece)
        first = num_pending + (int(ends[0]) if len(ends) else len(piece))
        if framer.max_record_bytes is not None and first > framer.max_record_bytes:
            limit = format_bytes(framer.max_record_bytes)
            raise SourceError(f"{name} has a record of more than {limit}. {framer.too_long}")
        if not len(ends):
            pending.append(piece)
            num_pending += len(piece)
            continue
        begin = 0
        if first > block_bytes and len(ends) > 1:
            begin = int(ends[0])
            yield b"".join([*pending, piece[:begin]]), np.array([first], np.int64)
            pending, num_pending, ends = [], 0, ends[1:]
        cut = int(ends[-1])
        yield b"".join([*pending, piece[begin:cut]]), ends + (num_pending - begin)
        rest = piece[cut:]
        pending, num_pending = ([rest], len(rest)) if rest else ([], 0)
    if pending:
        yield b"".join(pending), np.array([num_pending], np.int64)


def skip_byte_order_mark(read: Read, name: str) -> Read:
    """`read` without the UTF-8 mark that some editors put before the first byte.

    Raises:
        SourceError: the mark of another encoding.
    """
    head = read(4)
    for mark, encoding in _WIDE_MARKS.items():
        if head.startswith(mark):
            raise SourceError(
                f"{name} is {encoding} text, and easydata reads UTF-8. "
                f"Convert it: iconv -f {encoding} -t UTF-8"
            )
    rest = [head.removeprefix(codecs.BOM_UTF8)]

    def read_on(size: int) -> bytes:
        if not rest[0]:
            return read(size)
        start, rest[0] = rest[0], b""
        return start + read(max(size - len(start), 0)) if size > len(start) else start

    return read_on


def _wanted(block_bytes: int, num_pending: int) -> int:
    # Room for what is pending, unless that leaves a read too small to be worth a call.
    return max(block_bytes - num_pending, (block_bytes + 1) // 2)
