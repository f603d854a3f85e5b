"""Blocks of files that are compressed, or in Parquet, as plain messages.

They are decoded when they are first needed, and kept for a while.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.cache.log.decoded import DecodedBlocks
from easydata.cache.log.framing import is_intact, message_bytes, walk
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.pieces import join
from easydata.cache.log.plain import plain_message
from easydata.cache.log.sealed import CHECKSUMS_KEY, content_checksum
from easydata.errors import CorruptShardError
from easydata.format.alignment import ALIGNMENT
from easydata.format.mapping import map_file
from easydata.format.stream import decode_batch

__all__ = ["UNREADABLE", "CompressedBlocks", "JoinedBlocks", "ParquetBlocks", "bad_footer"]

UNREADABLE = (pa.ArrowException, OSError, ValueError)  # what reading a damaged file raises
_REMEDY = "Call verify(repair=True) on the cache to keep what is whole."


class EncodedBlocks(ABC):
    """Blocks that are decoded when they are asked for.

    Attributes:
        codec: of the plain messages.
        path: the file.
    """

    is_mapped = False

    def __init__(
        self, path: Path, codec: EntryCodec, cache: DecodedBlocks, *, check: bool = True
    ) -> None:
        """Map the file.

        Args:
            path: the file.
            codec: as its schema says.
            cache: where decoded blocks are kept.
            check: compare checksums when a block is decoded.

        Raises:
            FileNotFoundError: it is not there (any more).
            CorruptShardError: its footer, if it has one, is damaged.
        """
        self.codec = codec
        self.path, self._name = path, str(path)
        self._cache = cache
        self._check = check
        self._buffer = map_file(path)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._buffer.size

    def block(self, unit: int) -> tuple[memoryview, int]:
        """See `Blocks`."""
        return self._cache.get(self._name, unit, lambda: self.decode(unit)), 0

    @abstractmethod
    def decode(self, unit: int) -> bytearray:
        """The plain message of a block.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """

    @abstractmethod
    def decode_all(self) -> Iterator[bytearray]:
        """The same of all blocks whose place in the file is known, in order."""

    @abstractmethod
    def units(self, first: int = 0) -> Iterator[int]:
        """See `Blocks`."""


class CompressedBlocks(EncodedBlocks):
    """Blocks of a compressed Arrow stream; a unit is a position / 64."""

    def __init__(
        self, path: Path, codec: EntryCodec, cache: DecodedBlocks, *, check: bool = True
    ) -> None:
        super().__init__(path, codec, cache, check=check)
        self._view = memoryview(self._buffer).cast("B")

    def units(self, first: int = 0) -> Iterator[int]:
        for start, _ in walk(self._view, first * ALIGNMENT):
            yield start // ALIGNMENT

    def decode_all(self) -> Iterator[bytearray]:
        return map(self.decode, self.units())

    def decode(self, unit: int) -> bytearray:
        start = unit * ALIGNMENT
        size = message_bytes(self._view, start)
        problem = "its bytes have changed"
        if size is not None and (not self._check or is_intact(self._view, start, size)):
            try:
                message = self._buffer.slice(start, size)
                return plain_message(self.codec, decode_batch(message, self.codec.layout.schema))
            except UNREADABLE as error:
                problem = str(error)
        raise CorruptShardError(
            f"{self.path} is damaged in the block at byte {start}: {problem}. {_REMEDY}"
        )


class ParquetBlocks(EncodedBlocks):
    """Blocks of a Parquet file; a unit is the number of a row group."""

    def __init__(
        self, path: Path, codec: EntryCodec, cache: DecodedBlocks, *, check: bool = True
    ) -> None:
        import pyarrow.parquet as pq

        super().__init__(path, codec, cache, check=check)
        try:
            self._footer: Any = pq.read_metadata(pa.BufferReader(self._buffer))
            self._checksums = _checksums(self._footer)
        except UNREADABLE as error:
            raise bad_footer(path, error) from error

    def units(self, first: int = 0) -> Iterator[int]:
        for unit in range(first, len(self._checksums)):
            with contextlib.suppress(CorruptShardError):
                self.block(unit)  # it is likely to be wanted next
                yield unit

    def decode_all(self) -> Iterator[bytearray]:
        return map(self.decode, range(len(self._checksums)))

    def decode(self, unit: int) -> bytearray:
        problem = "its bytes have changed"
        try:
            checksum = self._checksums[unit]
            message = plain_message(self.codec, self._read(unit))
            if not self._check or content_checksum(self.codec, message) == checksum:
                return message
        except (*UNREADABLE, IndexError) as error:  # no such row group
            problem = str(error)
        raise CorruptShardError(f"{self.path} is damaged in row group {unit}: {problem}. {_REMEDY}")

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


class JoinedBlocks:
    """A segment whose blocks are pieces of one entry, as one block: unit 0."""

    is_mapped = False

    def __init__(self, pieces: EncodedBlocks, count: int, cache: DecodedBlocks) -> None:
        """
        Args:
            pieces: the blocks.
            count: how many there must be.
            cache: where the entry is kept.
        """
        self.codec = pieces.codec
        self._pieces = pieces
        self._count = count
        self._cache = cache

    @property
    def num_bytes(self) -> int:
        return self._pieces.num_bytes

    def block(self, unit: int) -> tuple[memoryview, int]:
        path = self._pieces.path
        if unit:
            raise CorruptShardError(f"{path} holds one entry, and has no block {unit}.")
        return self._cache.get(str(path), unit, self._join), 0

    def units(self, first: int = 0) -> Iterator[int]:
        if first == 0:
            with contextlib.suppress(CorruptShardError):
                self.block(0)
                yield 0

    def _join(self) -> bytearray:
        try:
            return join(self.codec, self._all_pieces())
        except ValueError as error:
            raise CorruptShardError(
                f"{self._pieces.path} is damaged: {error}. {_REMEDY}"
            ) from error

    def _all_pieces(self) -> Iterator[bytearray]:
        found = 0
        for piece in self._pieces.decode_all():
            yield piece
            found += 1
        if found != self._count:
            raise ValueError(f"it has {found} pieces of {self._count}")


def bad_footer(path: Path, error: Exception) -> CorruptShardError:
    """What to raise where a Parquet file cannot be read."""
    return CorruptShardError(f"{path} is damaged in its footer: {error}. {_REMEDY}")


def _checksums(footer: Any) -> list[int]:
    """Of each row group; see `content_checksum`."""
    text = (footer.metadata or {}).get(CHECKSUMS_KEY, b"")
    found = np.frombuffer(bytes.fromhex(text.decode()), ">u8").tolist()
    if len(found) != footer.num_row_groups:
        raise ValueError(f"it has {len(found)} checksums for {footer.num_row_groups} row groups")
    return found
