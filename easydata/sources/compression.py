"""Compressed files as streams of decompressed bytes, with damage told from the end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from easydata._units import format_count
from easydata.errors import SourceError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CODEC_OF_SUFFIX", "Decompressed"]

CODEC_OF_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4", ".bz2": "bz2", ".xz": "xz"}

_MAGIC = {
    "gzip": (b"\x1f\x8b",),
    "zstd": (b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"),
    "lz4": (b"\x04\x22\x4d\x18", b"\x2a\x4d\x18"),
    "bz2": (b"BZh",),
    "xz": (b"\xfd7zXZ\x00",),
}
# Archives of the web are written with `zstd --long=31`; the library stops at 27 by default.
_ZSTD_WINDOW_BYTES = 1 << 31
_MIN_PIECE_BYTES = 64
_MAX_PIECE_BYTES = 1 << 15
_MAX_OUTPUT_BYTES = 1 << 20


class Decompressed(io.RawIOBase):
    """The decompressed bytes of a file.

    Args:
        raw: the compressed bytes; stays open when this is closed.
        codec: one of the values of `CODEC_OF_SUFFIX`.
        name: of the file, for messages.

    Raises:
        SourceError: from the constructor when the file starts as no such file does, and from
            every read when it is cut short or damaged.
    """

    def __init__(self, raw: io.BufferedReader[Any], codec: str, name: str) -> None:
        super().__init__()
        self._codec = codec
        self._name = name
        self._num_bytes = 0
        _check_magic(raw, codec, name)
        self._file, errors = _open_codec(raw, codec)
        # lz4 raises a bare RuntimeError; EOFError is how every codec says "cut short".
        self._errors: tuple[type[Exception], ...] = (
            EOFError,
            OSError,
            zlib.error,
            lzma.LZMAError,
            RuntimeError,
            *errors,
        )

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes; fewer only at the end."""
        try:
            data = self._file.read(-1 if size is None else size)
        except self._errors as error:
            raise self._damaged(error) from error
        self._num_bytes += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _damaged(self, error: Exception) -> SourceError:
        what = "is cut short" if isinstance(error, EOFError) else f"is damaged ({error})"
        return SourceError(
            f"{self._name} {what}: its {self._codec} stream breaks off after "
            f"{format_count(self._num_bytes)} decompressed bytes. Download or compress it again."
        )


def _check_magic(raw: io.BufferedReader[Any], codec: str, name: str) -> None:
    head = raw.peek(6)[:6]
    if not head:
        raise SourceError(
            f"{name} is cut short: it has 0 bytes, and a {codec} file of nothing has some. "
            "Download or compress it again."
        )
    # The frames that both zstd and lz4 skip start with one free byte.
    if not any(head.startswith(magic) or head[1:].startswith(magic) for magic in _MAGIC[codec]):
        raise SourceError(
            f"{name} is not a {codec} file: it starts with {head!r}. "
            "Rename it to what it is, or compress it again."
        )


def _open_codec(
    raw: io.BufferedReader[Any], codec: str
) -> tuple[BinaryIO, tuple[type[Exception], ...]]:
    if codec == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw, mode="rb")), ()
    if codec == "bz2":
        return cast("BinaryIO", bz2.BZ2File(raw)), ()
    if codec == "xz":
        return cast("BinaryIO", lzma.LZMAFile(raw)), ()
    if codec == "lz4":
        from lz4.frame import LZ4FrameFile

        return cast("BinaryIO", LZ4FrameFile(raw, mode="rb")), ()
    import zstandard

    stream = io.BufferedReader(_ZstdFrames(raw, zstandard), 1 << 17)
    return cast("BinaryIO", stream), (zstandard.ZstdError,)


class _ZstdFrames(io.RawIOBase):
    """All frames of a zstd file.

    The library's own stream reader takes a file that is cut short for a complete one. Its
    decompression objects tell, but return all that a piece of input expands to; so the pieces
    get smaller when they expand to much.
    """

    def __init__(self, raw: io.BufferedReader[Any], zstandard: Any) -> None:
        super().__init__()
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")
        self._piece_bytes = _MIN_PIECE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        while not self._output:
            if not self._input:
                self._input = self._raw.read(self._piece_bytes)
                if not self._input:
                    if self._frame is not None:
                        raise EOFError
                    return 0
            self._advance()
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._output))
        view[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _advance(self) -> None:
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
        output = self._frame.decompress(self._input)
        self._input = b""
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None
        self._output = memoryview(output)
        if len(output) > _MAX_OUTPUT_BYTES:
            self._piece_bytes = max(self._piece_bytes // 2, _MIN_PIECE_BYTES)
        elif len(output) < _MAX_OUTPUT_BYTES // 4:
            self._piece_bytes = min(self._piece_bytes * 2, _MAX_PIECE_BYTES)
