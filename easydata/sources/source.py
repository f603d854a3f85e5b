"""What a source of rows promises: it has a name, an identity, and gives blocks of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from easydata.fingerprint.files import FileStamp
from easydata.sources.blocks import Block

__all__ = ["BlockStream", "Source", "SourceReader", "first_records"]


class SourceReader(Protocol):
    """One reading of a source, from its first record to its last."""

    @property
    def bytes_read(self) -> int:
        """Raw bytes consumed so far, for progress; an estimate where reading is not sequential."""

    @property
    def content_hash(self) -> str | None:
        """What `Source.read_content_hash` returns, once every block was read; None before."""

    def __iter__(self) -> Iterator[Block]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Source(Protocol):
    """A file or an object that gives rows."""

    @property
    def name(self) -> str:
        """The path as it was given, or "rows of list" for an object."""

    @property
    def nbytes(self) -> int | None:
        """Raw bytes (compressed ones, for a compressed file); None where nobody knows."""

    @property
    def is_file(self) -> bool:
        """Whether small neighbours may share a part with this source."""

    @property
    def features(self) -> Mapping[str, object] | None:
        """The HuggingFace features (as JSON) by field name, where the source declares them.

        Reads the head of a Parquet or Arrow file when first asked.
        """

    def stamp(self, *, fresh: bool = False) -> FileStamp | None:
        """What tells whether a file is still the same without reading it; None for an object.

        Take it before the file is read: a change in between then makes it look changed.

        Args:
            fresh: ask the server of a remote file, not what was kept from a listing.

        Raises:
            SourceError: the file is gone, or does not answer.
        """

    def open(self, field_names: Sequence[str] | None, block_bytes: int) -> SourceReader:
        """Start a reading.

        Args:
            field_names: the field that holds the text, then the fields to keep. Sources with
                columns read only these. None stands for all fields, none of which need be text.
            block_bytes: about the most bytes in a block; a longer record is a block of its own.

        Raises:
            SourceError: the source cannot be read, or lacks one of the columns.
        """

    def peek(self, field_names: Sequence[str] | None, num_records: int) -> Sequence[Block]:
        """At most the first `num_records` records; a later `open` still starts at the first."""

    def read_content_hash(self) -> str | None:
        """Identity of the content, found without parsing it; None where there is none.

        For a file the XXH3-128 of its raw bytes as 32 hexadecimal digits.
        """


class BlockStream:
    """The part of a `SourceReader` that all readers share: iteration and closing."""

    @property
    def bytes_read(self) -> int:
        raise NotImplementedError

    @property
    def content_hash(self) -> str | None:
        return None

    def blocks(self) -> Iterator[Block]:
        """The blocks, once."""
        raise NotImplementedError

    def empty_block(self) -> Block | None:
        """A block without records, where that still tells the types of columns; else None."""
        return None

    def close(self) -> None:
        """Release what the reader holds open; may be called twice."""

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def first_records(reader: BlockStream, num_records: int) -> list[Block]:
    """The first `num_records` records of `reader`, which is closed after that.

    A table without rows gives one block without rows, which still has types.
    """
    found: list[Block] = []
    missing = num_records
    with reader:
        for block in reader:
            found.append(block if block.num_records <= missing else block.slice(0, missing))
            missing -= found[-1].num_records
            if missing <= 0:
                break
        empty = None if found else reader.empty_block()
    return found if empty is None else [empty]
