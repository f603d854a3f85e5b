"""Saving as lines of JSON, one object for each row."""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import pyarrow as pa

from easydata.errors import UsageError
from easydata.format.codecs import Codec
from easydata.pipeline.save_formats import Piece

if TYPE_CHECKING:
    from easydata.pipeline.save_rows import SavedRows

__all__ = ["JsonlFormat"]

_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst", "lz4": ".lz4"}
_END_BYTES = 64  # of a compressed stream: its last block, its checksum


class JsonlFormat:
    """See `Format`. Each piece is some lines; it is also what is compressed together."""

    piece_bytes = 1 << 20
    piece_rows: int | None = None

    def __init__(self, rows: SavedRows, codec: Codec) -> None:
        for item in rows.schema:
            if not _is_writable(item.type):
                raise UsageError(
                    f"Column {item.name!r} has the type {item.type}, which JSON cannot hold. "
                    "Save as parquet or arrow, or leave the column out."
                )
        self._codec = codec
        self.suffix = f".jsonl{_SUFFIXES[codec.name]}"

    def encode(self, batch: pa.RecordBatch) -> Piece:
        lines = "".join(map(_line, batch.to_pylist())).encode()
        # Blocks that cannot be compressed have headers of a few bytes in 16 KiB or more.
        most = len(lines) if self._codec.name == "none" else len(lines) + len(lines) // 1000 + 64
        return Piece(batch.num_rows, most, lines)

    def open(self, file: BinaryIO) -> JsonlFile:
        return JsonlFile(file, _compressor(self._codec))

    def finish(self, folder: Path, names: Sequence[str], files: Sequence[Any]) -> None:
        pass  # the files say all


class JsonlFile:
    """See `ShardFile`."""

    def __init__(self, file: BinaryIO, compressor: _Compressor | None) -> None:
        self._file = file
        self._compressor = compressor
        if compressor is not None:
            file.write(compressor.begin())

    @property
    def num_bytes(self) -> int:
        return self._file.tell() + (_END_BYTES if self._compressor else 0)

    def write(self, piece: Piece) -> None:
        compress = self._compressor.compress if self._compressor else bytes
        self._file.write(compress(piece.data))

    def finish(self) -> None:
        if self._compressor is not None:
            self._file.write(self._compressor.end())

    def abandon(self) -> None:
        pass


class _Compressor(NamedTuple):
    """One compressed stream; `compress` gives all bytes of what it is given, at once."""

    begin: Callable[[], bytes]
    compress: Callable[[bytes], bytes]
    end: Callable[[], bytes]


def _compressor(codec: Codec) -> _Compressor | None:
    if codec.name == "none":
        return None
    if codec.name == "lz4":
        import lz4.frame

        frame = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        return _Compressor(frame.begin, frame.compress, frame.flush)
    if codec.name == "gzip":
        deflate = zlib.compressobj(wbits=31)  # 31: with gzip's header, which has no time in it

        def compress(data: bytes) -> bytes:
            return deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)

        return _Compressor(bytes, compress, deflate.flush)
    import zstandard

    stream = zstandard.ZstdCompressor(level=codec.level or 3).compressobj()

    def compress_block(data: bytes) -> bytes:
        return stream.compress(data) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    return _Compressor(bytes, compress_block, stream.flush)


def _line(row: dict[str, Any]) -> str:
    try:
        text = json.dumps(
            row, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_text
        )
    except ValueError as error:
        raise UsageError(
            "A row holds NaN or an infinite number, which JSON cannot hold. Save as parquet or "
            f"arrow, or leave the column out. The row has the columns {', '.join(row)}."
        ) from error
    return text + "\n"


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def _is_writable(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_struct(kind):
        return all(_is_writable(item.type) for item in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_writable(kind.value_type)
    return bool(
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_date(kind)
        or types.is_time(kind)
        or types.is_timestamp(kind)
        or types.is_decimal(kind)
    )
