"""One file as a source of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from easydata._lazy import cached_property
from easydata.errors import SourceError
from easydata.fingerprint.files import FileStamp
from easydata.sources.blocks import Block
from easydata.sources.byte_reader import ByteReader, RawStream, byte_format
from easydata.sources.raw import Place, hash_open, read_hash
from easydata.sources.source import BlockStream, SourceReader, first_records
from easydata.sources.table_readers import (
    ArrowFile,
    ArrowStream,
    ParquetTable,
    TableInput,
    TableReader,
    hub_features,
)
from easydata.sources.text import TextRows

__all__ = ["FileSource"]

_PEEK_BYTES = 1 << 20
_ARROW_FILE_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class FileSource:
    """One file, local or behind an fsspec URL.

    Attributes:
        place: where it is.
        kind: its format: "jsonl", "json", "text", "csv", "tsv", "parquet" or "arrow".
        codec: how it is compressed, as in `CODEC_OF_SUFFIX`; None when it is not.
        text_rows: what becomes a row of a text file.
    """

    place: Place
    kind: str
    codec: str | None = None
    text_rows: TextRows = "file"
    is_file: bool = True

    @property
    def name(self) -> str:
        return self.place.name

    @cached_property
    def nbytes(self) -> int | None:
        return self.place.size()

    @cached_property
    def features(self) -> Mapping[str, object] | None:
        if byte_format(self.kind, self.text_rows) is not None:
            return None
        table, file = self._open_table()
        try:
            return hub_features(table.schema)
        finally:
            table.close()
            file.close()

    def stamp(self, *, fresh: bool = False) -> FileStamp:
        return self.place.stamp(fresh=fresh)

    def open(self, field_names: Sequence[str] | None, block_bytes: int) -> SourceReader:
        return self._open(field_names, block_bytes)

    def peek(self, field_names: Sequence[str] | None, num_records: int) -> Sequence[Block]:
        return first_records(self._open(field_names, _PEEK_BYTES), num_records)

    def read_content_hash(self) -> str | None:
        return read_hash(self.place)

    def _open(self, field_names: Sequence[str] | None, block_bytes: int) -> BlockStream:
        form = byte_format(self.kind, self.text_rows)
        if form is not None:
            return ByteReader(self.place, self.codec, form, field_names, block_bytes)
        table, file = self._open_table()
        if isinstance(file, RawStream):
            return TableReader(
                table,
                field_names,
                block_bytes,
                self.name,
                position=lambda _: file.bytes_read,
                content_hash=file.finish,
            )
        size = self.nbytes or 0
        # Such a file is not read from end to end, so its hash takes a pass of its own: through
        # the same handle, since another file may have this path by then.
        return TableReader(
            table,
            field_names,
            block_bytes,
            self.name,
            position=lambda share: round(size * (share or 0)),
            content_hash=partial(hash_open, file, self.name),
        )

    def _open_table(self) -> tuple[TableInput, Any]:
        """The table in the file, and what its bytes come from: a `RawStream`, or an open file."""
        kind = "a Parquet file" if self.kind == "parquet" else "an Arrow file or stream"
        try:
            return self._open_parquet() if self.kind == "parquet" else self._open_arrow()
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{self.name} cannot be read as {kind}: {error}. Download or write it again, or "
                "pass type=… (--type) if it is something else."
            ) from error

    def _open_parquet(self) -> tuple[TableInput, Any]:
        if self.codec is not None:
            raise SourceError(
                f"{self.name} is Parquet inside {self.codec}, and Parquet cannot be read from "
                "its start to its end. Decompress the file; Parquet compresses its own pages."
            )
        return _opened(ParquetTable, self._random_access())

    def _open_arrow(self) -> tuple[TableInput, Any]:
        stream = RawStream(self.place, self.codec)
        head = stream.content.read(len(_ARROW_FILE_MAGIC))
        stream.close()
        if head != _ARROW_FILE_MAGIC:
            stream = RawStream(self.place, self.codec)
            try:
                return ArrowStream(stream.content), stream
            except BaseException:  # also an interrupt: nobody else would close it
                stream.close()
                raise
        if self.codec is not None:
            raise SourceError(
                f"{self.name} is an Arrow file (not a stream) inside {self.codec}, and such a "
                "file cannot be read from its start to its end. Decompress it, or write a stream."
            )
        return _opened(ArrowFile, self._random_access())

    def _random_access(self) -> Any:
        # Not a memory map: a file that is cut short while it is read would kill the process.
        if self.place.filesystem is None:
            self.place.open().close()
            return pa.OSFile(self.place.path)
        return pa.PythonFile(self.place.open(), mode="r")


def _opened(form: type[ParquetTable | ArrowFile], file: Any) -> tuple[TableInput, Any]:
    try:
        return form(file), file
    except BaseException:  # also an interrupt: nobody else would close it
        file.close()
        raise
