"""Reading the sources of a build once: blocks, progress, identities, and the row limit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from easydata.build.parts import SourceBlocks
from easydata.build.sources_changed import stamp_text
from easydata.errors import SourceNotFoundError
from easydata.fingerprint import FileStamp
from easydata.sources import Block, Source

__all__ = ["SourceStream"]

_log = logging.getLogger("easydata")


class SourceStream:
    """All sources, one after another, up to a number of records.

    Attributes:
        bytes_read: raw bytes read so far.
        content_read: bytes of records in them, which is more where files are compressed.
        hashes: identity of each source that was read to its end; None where there is none, or
            where the file changed meanwhile.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        field_names: Sequence[str] | None,
        block_bytes: int,
        limit: int | None,
    ) -> None:
        self._sources = sources
        self._field_names = field_names
        self._block_bytes = block_bytes
        self._left = limit
        self.bytes_read = 0
        self.content_read = 0
        self.hashes: list[str | None] = [None] * len(sources)
        self._stamps: list[str | None] = [None] * len(sources)

    @property
    def bytes_total(self) -> int | None:
        """Raw bytes of all sources, or None where one does not know or a limit comes first."""
        sizes = [source.nbytes for source in self._sources]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) and self._left is None else None

    @property
    def raw_share(self) -> float:
        """Raw bytes for each byte of records, so far."""
        return self.bytes_read / max(self.content_read, 1)

    def __iter__(self) -> Iterator[SourceBlocks]:
        for index, source in enumerate(self._sources):
            if self._left == 0:
                return
            yield SourceBlocks(source.is_file, self._blocks(index, source))

    def entries(self) -> list[dict[str, Any]]:
        """Name, raw bytes, identity and stamp of each source, for the ledger."""
        return [
            {"name": source.name, "bytes": source.nbytes, "hash": found, "stamp": stamp}
            for source, found, stamp in zip(self._sources, self.hashes, self._stamps, strict=True)
        ]

    def _blocks(self, index: int, source: Source) -> Iterator[Block]:
        before = self.bytes_read
        stamp = source.stamp()  # of what is read from here on
        self._stamps[index] = stamp_text(stamp)
        with source.open(self._field_names, self._block_bytes) as reader:
            for block in reader:
                self.bytes_read = before + reader.bytes_read
                self.content_read += block.nbytes
                if self._left is not None:
                    if block.num_records >= self._left:
                        last, self._left = block.slice(0, self._left), 0
                        yield last
                        return
                    self._left -= block.num_records
                yield block
            self.bytes_read = before + reader.bytes_read
            self.hashes[index] = reader.content_hash
        if stamp is not None and _stamp_now(source) != stamp:
            # Its rows may be of two files, and its hash that of neither.
            self.hashes[index] = self._stamps[index] = None
            _log.warning(
                "%s changed while it was read; what was read is kept. Build again when it is "
                "complete.",
                source.name,
            )


def _stamp_now(source: Source) -> FileStamp | None:
    try:
        return source.stamp(fresh=True)
    except SourceNotFoundError:  # that is a change, too
        return None
