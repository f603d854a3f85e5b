"""Blocks of segments as plain messages, whatever the file's format and compression.

Blocks of an uncompressed segment lie in a map of its file. Others are decoded when they are first
needed, and kept in memory up to a limit that all segments of a cache share.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from easydata.cache.log.framing import is_intact, message_bytes, walk
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.mapped import MappedBlocks
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.plain import plain_message
from easydata.cache.log.sealed import CHECKSUMS_KEY, content_checksum, segment_compression
from easydata.errors import CorruptShardError, FormatVersionError
from easydata.format.alignment import ALIGNMENT, message_header_bytes
from easydata.format.mapping import map_file
from easydata.format.stream import decode_batch

__all__ = ["Blocks", "CompressedBlocks", "DecodedBlocks", "ParquetBlocks", "open_blocks"]

_REMEDY = "Call verify(repair=True) on the cache to keep what is whole."
_UNREADABLE = (pa.ArrowException, OSError, ValueError)


class Blocks(Protocol):
    """The blocks of one segment. Safe to share between threads.

    Attributes:
        codec: of the plain messages.
        is_mapped: a block's view is of the file, and costs no memory of its own.
    """

    codec: EntryCodec
    is_mapped: bool

    @property
    def num_bytes(self) -> int:
        """Size of the file."""

    def block(self, unit: int) -> tuple[memoryview, int]:
        """A read-only view, and where in it the plain message of a block starts.

        The view stays valid as long as somebody holds it.

        Raises:
            CorruptShardError: the block's bytes are not those that were written.
        """

    def units(self, first: int = 0) -> Iterator[int]:
        """Every block from `first` on whose bytes are those that were written, in order."""


class DecodedBlocks:
    """Blocks that were decoded, the last used ones. Safe to share between threads.

    The child of a fork starts with none.

    Attributes:
        num_bytes: size of what is kept: at most the limit, or one block.
        decode_seconds: time spent decoding.
    """

    def __init__(self, max_bytes: int) -> None:
        """
        Args:
            max_bytes: how much to keep. The block decoded last is kept in any case.
        """
        self._max_bytes = max_bytes
        self.decode_seconds = 0.0
        self.start_over()
        _all.add(self)

    def start_over(self) -> None:
        """Forget all blocks, also if a thread that is gone was at work on them."""
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], memoryview] = OrderedDict()
        self.num_bytes = 0

    def get(self, segment: str, unit: int, decode: Callable[[], bytearray]) -> memoryview:
        """A read-only view of a block.

        Args:
            segment: which one; its path.
            unit: which block.
            decode: makes it, if it is not there. Two threads may do so at once.
        """
        key = segment, unit
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
                return found
        start = time.perf_counter()
        block = memoryview(decode()).toreadonly()
        seconds = time.perf_counter() - start
        with self._lock:
            self.decode_seconds += seconds
            found = self._blocks.setdefault(key, block)
            if found is block:
                self.num_bytes += len(block)
            self._blocks.move_to_end(key)
            while self.num_bytes > self._max_bytes and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self.num_bytes -= len(oldest)
        return found


class CompressedBlocks:
    """Blocks of a compressed Arrow stream; a unit is a position / 64."""

    is_mapped = False

    def __init__(
        self, path: Path, codec: EntryCodec, cache: DecodedBlocks, *, check: bool = True
    ) -> None:
        """Map the file.

        Args:
            path: the file.
            codec: as its schema message says.
            cache: where decoded blocks are kept.
            check: compare the checksum of a block before it is decoded.

        Raises:
            FileNotFoundError: it is not there (any more).
        """
        self.codec = codec
        self._path, self._name = path, str(path)
        self._cache = cache
        self._check = check
        self._buffer = map_file(path)
        self._view = memoryview(self._buffer).cast("B")

    @property
    def num_bytes(self) -> int:
        return len(self._view)

    def block(self, unit: int) -> tuple[memoryview, int]:
        return self._cache.get(self._name, unit, lambda: self._decode(unit)), 0

    def units(self, first: int = 0) -> Iterator[int]:
        for start, _ in walk(self._view, first * ALIGNMENT):
            yield start // ALIGNMENT

    def _decode(self, unit: int) -> bytearray:
        start = unit * ALIGNMENT
        size = message_bytes(self._view, start)
        problem = "its bytes have changed"
        if size is not None and (not self._check or is_intact(self._view, start, size)):
            try:
                message = self._buffer.slice(start, size)
                return plain_message(self.codec, decode_batch(message, self.codec.layout.schema))
            except _UNREADABLE as error:
                problem = str(error)
        raise CorruptShardError(
            f"{self._path} is damaged in the block at byte {start}: {problem}. {_REMEDY}"
        )


class ParquetBlocks:
    """Blocks of a Parquet file; a unit is the number of a row group."""

    is_mapped = False

    def __init__(
        self, path: Path, codec: EntryCodec, cache: DecodedBlocks, *, check: bool = True
    ) -> None:
        """Map the file and read its footer.

        Args:
            path: the file.
            codec: as its schema says.
            cache: where decoded blocks are kept.
            check: compare the checksums of a block's pages, and of what they decode to.

        Raises:
            FileNotFoundError: it is not there (any more).
            CorruptShardError: its footer is damaged.
        """
        import pyarrow.parquet as pq

        self.codec = codec
        self._path, self._name = path, str(path)
        self._cache = cache
        self._check = check
        self._buffer = map_file(path)
        try:
            self._footer: Any = pq.read_metadata(pa.BufferReader(self._buffer))
            self._checksums = _checksums(self._footer)
        except _UNREADABLE as error:
            raise _bad_footer(path, error) from error

    @property
    def num_bytes(self) -> int:
        return self._buffer.size

    def block(self, unit: int) -> tuple[memoryview, int]:
        return self._cache.get(self._name, unit, lambda: self._decode(unit)), 0

    def units(self, first: int = 0) -> Iterator[int]:
        for unit in range(first, len(self._checksums)):
            with contextlib.suppress(CorruptShardError):
                self.block(unit)  # it is likely to be wanted next
                yield unit

    def _decode(self, unit: int) -> bytearray:
        problem = "its bytes have changed"
        try:
            checksum = self._checksums[unit]
            message = plain_message(self.codec, self._read(unit))
            if not self._check or content_checksum(self.codec, message) == checksum:
                return message
        except (*_UNREADABLE, IndexError) as error:  # no such row group
            problem = str(error)
        raise CorruptShardError(
            f"{self._path} is damaged in row group {unit}: {problem}. {_REMEDY}"
        )

    def _read(self, unit: int) -> pa.RecordBatch:
        import pyarrow.parquet as pq

        # A new reader each time: one is not for several threads. The footer is not read again.
        with pq.ParquetFile(
            pa.BufferReader(self._buffer),
            metadata=self._footer,
            page_checksum_verification=self._check,
        ) as file:
            (batch,) = file.read_row_group(unit).combine_chunks().to_batches()
        return batch


def open_blocks(path: Path, cache: DecodedBlocks, *, check: bool) -> Blocks:
    """The blocks of a segment.

    Args:
        path: its file, .arrow (which may be growing) or .parquet.
        cache: where decoded blocks are kept.
        check: compare checksums at first touch.

    Raises:
        FileNotFoundError: it is not there (any more).
        CorruptShardError: it does not start like a segment.
        FormatVersionError: a newer easydata wrote it.
    """
    is_parquet = path.suffix == ".parquet"
    buffer = map_file(path)
    schema = _parquet_schema(path, buffer) if is_parquet else _stream_schema(path, buffer)
    try:
        compression = segment_compression(schema)
        if not is_parquet:
            _require_intact_schema(memoryview(buffer).cast("B"))
        metadata = {k: v for k, v in schema.metadata.items() if k != CHECKSUMS_KEY}
        codec = EntryCodec(EntryLayout.from_schema(schema), metadata)
    except (CorruptShardError, FormatVersionError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (ValueError, KeyError) as error:
        raise CorruptShardError(f"{path} is no segment of a cache: {error}") from error
    if is_parquet:
        return ParquetBlocks(path, codec, cache, check=check)
    if compression.is_zero_copy:
        return MappedBlocks(path, codec, check=check)
    return CompressedBlocks(path, codec, cache, check=check)


def _stream_schema(path: Path, buffer: pa.Buffer) -> pa.Schema:
    try:
        return pa.ipc.read_schema(buffer)
    except _UNREADABLE as error:
        raise CorruptShardError(f"{path} is no segment of a cache: {error}") from error


def _require_intact_schema(view: memoryview) -> None:
    size = message_header_bytes(view) if len(view) >= ALIGNMENT else 0
    if not ALIGNMENT <= size <= len(view) or not is_intact(view, 0, size):
        raise ValueError("it does not start with a schema, or that is damaged")


def _parquet_schema(path: Path, buffer: pa.Buffer) -> pa.Schema:
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(pa.BufferReader(buffer))
    except _UNREADABLE as error:
        raise _bad_footer(path, error) from error


def _bad_footer(path: Path, error: Exception) -> CorruptShardError:
    return CorruptShardError(f"{path} is damaged in its footer: {error}. {_REMEDY}")


def _checksums(footer: Any) -> list[int]:
    """Of each row group; see `content_checksum`."""
    text = (footer.metadata or {}).get(CHECKSUMS_KEY, b"")
    found = np.frombuffer(bytes.fromhex(text.decode()), ">u8").tolist()
    if len(found) != footer.num_row_groups:
        raise ValueError(f"it has {len(found)} checksums for {footer.num_row_groups} row groups")
    return found


_all: weakref.WeakSet[DecodedBlocks] = weakref.WeakSet()


def _start_over() -> None:
    for blocks in list(_all):
        blocks.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
