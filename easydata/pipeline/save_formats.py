"""The formats that rows are saved in: each encodes record batches and writes them to files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import pyarrow as pa

from easydata.errors import UsageError
from easydata.format.codecs import Codec
from easydata.format.features import HUGGINGFACE_KEY, features_of
from easydata.format.ledger import METADATA_KEY

if TYPE_CHECKING:
    from easydata.pipeline.save_rows import SavedRows

__all__ = ["Format", "Piece", "ShardFile", "make_format", "schema_metadata"]

DEFAULT_CODECS = {"parquet": "zstd", "arrow": "none", "jsonl": "none"}


class Piece(NamedTuple):
    """Encoded rows.

    Attributes:
        num_rows: how many.
        num_bytes: by which a file grows at most when they are written to it.
        data: what the format writes.
    """

    num_rows: int
    num_bytes: int
    data: Any


class ShardFile(Protocol):
    """One file while it is written, front to back."""

    @property
    def num_bytes(self) -> int:
        """How large the file is at most if it is finished now."""

    def write(self, piece: Piece) -> None: ...

    def finish(self) -> None:
        """Write what comes last; the caller closes the file."""

    def abandon(self) -> None:
        """Forget the file, which is not needed any more."""


class Format(Protocol):
    """A format with its options, for the rows of one schema.

    Attributes:
        suffix: of file names, with the dot.
        piece_bytes: Arrow bytes that are best encoded together.
        piece_rows: rows of the batches that are encoded as they come; None where batches are
            grouped by `piece_bytes`.
    """

    suffix: str
    piece_bytes: int
    piece_rows: int | None

    def encode(self, batch: pa.RecordBatch) -> Piece: ...

    def open(self, file: BinaryIO) -> ShardFile:
        """Start to write to a new binary file, which can be read too."""

    def finish(self, folder: Path, names: Sequence[str], files: Sequence[Any]) -> None:
        """Add what belongs beside the files, which are finished and have these names now."""


def make_format(name: str, compression: str | None, rows: SavedRows) -> Format:
    """The format called `name` for these rows.

    Args:
        name: "parquet", "arrow" or "jsonl".
        compression: of the files; None for what is usual.
        rows: what will be written.

    Raises:
        UsageError: the format cannot hold the columns, or lacks the codec.
    """
    codec = Codec.parse(compression or DEFAULT_CODECS[name])
    if not rows.schema.names:
        raise UsageError("There are no columns to save.")
    if name == "arrow":
        from easydata.pipeline.save_arrow import ArrowFormat

        return ArrowFormat(rows, codec)
    if name == "jsonl":
        from easydata.pipeline.save_jsonl import JsonlFormat

        return JsonlFormat(rows, codec)
    from easydata.pipeline.save_parquet import ParquetFormat

    return ParquetFormat(rows, codec)


def schema_metadata(schema: pa.Schema, rows: SavedRows) -> dict[bytes, bytes]:
    """Schema metadata of files: nothing that is known only once they are written.

    Raises:
        UsageError: `datasets` cannot represent a column.
    """
    features = {
        item.name: rows.features.get(item.name) or features_of(item.type, item.name)
        for item in schema
    }
    return {
        HUGGINGFACE_KEY: json.dumps({"info": {"features": features}}).encode(),
        METADATA_KEY: rows.metadata.to_json(content_only=True).encode(),
    }
