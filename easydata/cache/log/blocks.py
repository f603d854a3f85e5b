"""Blocks of segments as plain messages, whatever the file's format and compression.

Blocks of an uncompressed segment lie in a map of its file; those of others are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from easydata.cache.log.decoded import DecodedBlocks
from easydata.cache.log.encoded import (
    UNREADABLE,
    CompressedBlocks,
    JoinedBlocks,
    ParquetBlocks,
    bad_footer,
)
from easydata.cache.log.framing import is_intact
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.mapped import MappedBlocks
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import CHECKSUMS_KEY, segment_kind
from easydata.errors import CorruptShardError, FormatVersionError
from easydata.format.alignment import ALIGNMENT, message_header_bytes
from easydata.format.mapping import map_file

__all__ = ["Blocks", "open_blocks"]


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
        compression, pieces, _ = segment_kind(schema)
        if not is_parquet:
            _require_intact_schema(memoryview(buffer).cast("B"))
        metadata = {k: v for k, v in schema.metadata.items() if k != CHECKSUMS_KEY}
        codec = EntryCodec(EntryLayout.from_schema(schema), metadata)
    except (CorruptShardError, FormatVersionError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (ValueError, KeyError) as error:
        raise CorruptShardError(f"{path} is no segment of a cache: {error}") from error
    if compression.is_zero_copy and not is_parquet:
        return MappedBlocks(path, codec, check=check)
    kind = ParquetBlocks if is_parquet else CompressedBlocks
    blocks = kind(path, codec, cache, check=check)
    return blocks if not pieces else JoinedBlocks(blocks, pieces, cache)


def _stream_schema(path: Path, buffer: pa.Buffer) -> pa.Schema:
    try:
        return pa.ipc.read_schema(buffer)
    except UNREADABLE as error:
        raise CorruptShardError(f"{path} is no segment of a cache: {error}") from error


def _require_intact_schema(view: memoryview) -> None:
    size = message_header_bytes(view) if len(view) >= ALIGNMENT else 0
    if not ALIGNMENT <= size <= len(view) or not is_intact(view, 0, size):
        raise ValueError("it does not start with a schema, or that is damaged")


def _parquet_schema(path: Path, buffer: pa.Buffer) -> pa.Schema:
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(pa.BufferReader(buffer))
    except UNREADABLE as error:
        raise bad_footer(path, error) from error
