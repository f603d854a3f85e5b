"""Reading a file of bytes as blocks, whatever its format and compression."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from easydata.errors import SourceError
from easydata.sources.blocks import Block
from easydata.sources.byteblock import ByteBlock, Parser
from easydata.sources.compression import Decompressed
from easydata.sources.delimited import DelimitedLines, DelimitedParser, parse_header
from easydata.sources.describe import describe_names
from easydata.sources.framing import (
    Framer,
    Piece,
    Read,
    WholeFile,
    record_pieces,
    skip_byte_order_mark,
)
from easydata.sources.json_values import json_pieces
from easydata.sources.jsonl import JsonLines, JsonParser
from easydata.sources.raw import READ_BYTES, HashedFile, Place
from easydata.sources.source import BlockStream
from easydata.sources.text import Lines, Paragraphs, TextParser, TextRows

__all__ = ["ByteFormat", "ByteReader", "RawStream", "byte_format"]


@dataclass(frozen=True)
class ByteFormat:
    """How a file is cut into records, and how these are parsed.

    Attributes:
        framer: makes what finds the ends of records; None for JSON values.
        parser: of the records; None where the file's header decides.
        delimiter: between the fields of a file with a header.
    """

    framer: Callable[[], Framer] | None
    parser: Parser | None
    delimiter: str = ""

    def pieces(self, read: Read, block_bytes: int, name: str) -> Iterator[Piece]:
        """The file's bytes, cut into runs of records."""
        if self.framer is None:
            return json_pieces(read, block_bytes, name)
        return record_pieces(read, self.framer(), block_bytes, name)


def byte_format(kind: str, text_rows: TextRows) -> ByteFormat | None:
    """The format named `kind`; None when its records are no runs of bytes."""
    if kind == "text":
        framers: dict[str, Callable[[], Framer]] = {
            "file": WholeFile,
            "line": Lines,
            "paragraph": Paragraphs,
        }
        return ByteFormat(framers[text_rows], TextParser(text_rows))
    formats = {
        "jsonl": ByteFormat(JsonLines, JsonParser()),
        "json": ByteFormat(None, JsonParser()),
        "csv": ByteFormat(partial(DelimitedLines, ","), None, ","),
        "tsv": ByteFormat(partial(DelimitedLines, "\t"), None, "\t"),
    }
    return formats.get(kind)


class RawStream:
    """A file's bytes, decompressed, with the hash and the count of the raw ones.

    Args:
        place: where the file is.
        codec: how it is compressed, as in `CODEC_OF_SUFFIX`; None when it is not.

    Raises:
        SourceError: it cannot be opened, or is not compressed that way.
    """

    def __init__(self, place: Place, codec: str | None) -> None:
        self._file = HashedFile(place)
        self._buffered = io.BufferedReader(self._file, READ_BYTES)
        self.content: BinaryIO = self._buffered
        if codec is not None:
            try:
                self.content = cast("BinaryIO", Decompressed(self._buffered, codec, place.name))
            except SourceError:
                self.close()
                raise

    @property
    def bytes_read(self) -> int:
        return self._file.bytes_read

    def finish(self) -> str:
        """The hash of the raw bytes, after reading those that nobody has asked for."""
        return self._file.finish()

    def close(self) -> None:
        self.content.close()
        self._buffered.close()


class ByteReader(BlockStream):
    """Reads a file of bytes as blocks of records.

    Args:
        place: where the file is.
        codec: how it is compressed; None when it is not.
        form: the format of its content.
        names: the fields that are needed, which a header must have; None for what there is.
        block_bytes: about the most bytes in a block.
    """

    def __init__(
        self,
        place: Place,
        codec: str | None,
        form: ByteFormat,
        names: Sequence[str] | None,
        block_bytes: int,
    ) -> None:
        self._name = place.name
        self._form = form
        self._names = names
        self._block_bytes = block_bytes
        self._stream = RawStream(place, codec)
        self._content_hash: str | None = None

    @property
    def bytes_read(self) -> int:
        return self._stream.bytes_read

    @property
    def content_hash(self) -> str | None:
        return self._content_hash

    def blocks(self) -> Iterator[Block]:
        record = 0
        line = 1
        parser = self._form.parser
        read = skip_byte_order_mark(self._stream.content.read, self._name)
        for data, all_ends in self._form.pieces(read, self._block_bytes, self._name):
            start = 0
            ends = all_ends
            if parser is None:
                parser, num_skipped = self._header(data, all_ends)
                start = int(all_ends[num_skipped - 1])
                ends = all_ends[num_skipped:] - start
            if parser is not None and len(ends):
                first_line = (
                    None if self._form.framer is None else line + data.count(b"\n", 0, start)
                )
                yield ByteBlock(data, ends, parser, record, first_line, start)
                record += len(ends)
            line += data.count(b"\n")
        self._content_hash = self._stream.finish()

    def close(self) -> None:
        self._stream.close()

    def _header(
        self, data: bytes, ends: npt.NDArray[np.int64]
    ) -> tuple[DelimitedParser | None, int]:
        """The parser that the first record names, and how many records that took."""
        begin = 0
        for number, end in enumerate(ends, 1):
            parser = parse_header(data[begin : int(end)], self._form.delimiter, self._name)
            if parser is not None:
                self._check_names(parser)
                return parser, number
            begin = int(end)
        return None, len(ends)

    def _check_names(self, parser: DelimitedParser) -> None:
        names = self._names or ()
        for name in names:
            if name not in parser.header:
                remedy = (
                    "text_field=… (--text-field)"
                    if name == names[0]
                    else "keep_fields=… (--keep-fields)"
                )
                raise SourceError(
                    f"{self._name} has no column {name!r}; its header (line 1) has "
                    f"{describe_names(parser.header)}. Pass {remedy}."
                )
