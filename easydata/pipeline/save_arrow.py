"""Saving as a dataset directory, which `open_dataset` and `datasets.load_from_disk` open."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from easydata.fingerprint import Hasher
from easydata.format.arrays import count_values
from easydata.format.checksums import block_checksums
from easydata.format.codecs import Codec, resolve_format
from easydata.format.directory import TOKENS, write_state
from easydata.format.ledger import Ledger, ShardEntry
from easydata.format.shards import IpcShardWriter
from easydata.format.stream import END_OF_STREAM, encode_batch, encode_schema
from easydata.pipeline.save_formats import Piece, schema_metadata

if TYPE_CHECKING:
    from easydata.pipeline.save_rows import SavedRows

__all__ = ["ArrowFormat"]

_ID_TYPES = (pa.uint8(), pa.uint16(), pa.uint32(), pa.int32(), pa.int64())


class ArrowFormat:
    """See `Format`. Each piece is a record batch whose buffers are 64-byte aligned."""

    suffix = ".arrow"
    piece_bytes = 32 << 20

    def __init__(self, rows: SavedRows, codec: Codec) -> None:
        resolve_format("ipc", codec)
        self._rows = rows
        self._codec = codec
        self._schema = rows.schema
        self.piece_rows = rows.rows_per_batch
        self._metadata = schema_metadata(self._schema, rows)
        self._has_tokens = TOKENS in self._schema.names and _is_token_list(
            self._schema.field(TOKENS).type
        )

    def encode(self, batch: pa.RecordBatch) -> Piece:
        batch = batch.cast(self._schema)
        tokens = 0
        if self._has_tokens:
            lists = batch[TOKENS]
            self._has_tokens = not (lists.null_count or lists.values.null_count)
            is_fixed = pa.types.is_fixed_size_list(lists.type)
            tokens = len(lists) * lists.type.list_size if is_fixed else count_values(lists)
        encoded = encode_batch(batch, self._codec)
        return Piece(batch.num_rows, sum(map(len, encoded)), (encoded, tokens))

    def open(self, file: BinaryIO) -> ArrowFile:
        return ArrowFile(IpcShardWriter(file, self._schema, self._metadata, self._codec), file)

    def finish(self, folder: Path, names: Sequence[str], files: Sequence[Any]) -> None:
        shards = [replace(file.entry, name=name) for name, file in zip(names, files, strict=True)]
        hasher = Hasher(encode_schema(self._schema))
        for shard in shards:
            hasher.update(shard.batches.tobytes())
            hasher.update(shard.checksums.tobytes())
        fingerprint = hasher.hexdigest()[:16]
        rows = self._rows
        tokenizer = {**rows.tokenizer, "folder": None}
        if rows.tokenizer_folder is not None:
            tokenizer["folder"] = rows.tokenizer_folder.name
            shutil.copytree(rows.tokenizer_folder, folder / rows.tokenizer_folder.name)
        num_rows = sum(int(shard.batches[:, 2].sum()) for shard in shards)
        ledger = Ledger.build(
            self._schema,
            {
                "fingerprint": fingerprint,
                "split": None,
                "shard_format": "ipc",
                "compression": str(self._codec),
                "token_column": TOKENS if self._has_tokens else None,
                "tokenizer": tokenizer,
                **({} if rows.samples is None else {"samples": dict(rows.samples)}),
                "cache": vars(replace(rows.known_metadata(), num_examples=num_rows)),
            },
            shards=shards,
        )
        write_state(
            folder,
            shard_names=names,
            ledger_name=ledger.publish(folder),
            fingerprint=fingerprint,
            split=None,
        )


class ArrowFile:
    """See `ShardFile`.

    Attributes:
        entry: the file's entry in the ledger, but for its name; None until it is finished.
    """

    entry: ShardEntry | None = None

    def __init__(self, writer: IpcShardWriter, file: BinaryIO) -> None:
        self._writer = writer
        self._file = file

    @property
    def num_bytes(self) -> int:
        return self._file.tell() + len(END_OF_STREAM)

    def write(self, piece: Piece) -> None:
        encoded, tokens = piece.data
        self._writer.write_encoded(encoded, block_checksums(encoded), piece.num_rows, tokens)

    def finish(self) -> None:
        self.entry = self._writer.finish("")

    def abandon(self) -> None:
        pass


def _is_token_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and kind.value_type in _ID_TYPES
