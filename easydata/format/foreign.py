"""Dataset directories that HuggingFace `datasets` wrote: read without a ledger.

There are no checksums to check and no lineage; where the batches lie has to be found by walking
the headers of every shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from easydata.errors import CorruptShardError, DatasetError
from easydata.format.ledger import Ledger, ShardEntry

__all__ = ["scan_directory"]


def scan_directory(
    directory: Path, shard_names: Sequence[str], token_column: str, *, fingerprint: str
) -> Ledger:
    """A ledger in memory for the IPC streams of a directory; it has no checksums.

    Args:
        directory: which `datasets` wrote.
        shard_names: its files, in order.
        token_column: name of the column of token ids.
        fingerprint: identity of the dataset.

    Raises:
        CorruptShardError: a shard is missing or is no IPC stream.
        DatasetError: there is no column of token ids.
    """
    shards = []
    schema = None
    for name in shard_names:
        path = directory / name
        try:
            with pa.memory_map(str(path), "r") as file:
                shard_schema = pa.ipc.read_schema(file).remove_metadata()
                schema = schema or shard_schema
                shards.append(_scan_shard(name, file, shard_schema, token_column))
        except (OSError, pa.ArrowInvalid) as error:
            raise CorruptShardError(
                f"Shard {path} cannot be read as an Arrow IPC stream: {error}. "
                "Save the dataset again with `datasets`."
            ) from error
    if schema is None:
        raise DatasetError(f"{directory} lists no shards.")
    metadata = {
        "token_column": token_column,
        "shard_format": "ipc",
        "compression": "none",
        "fingerprint": fingerprint,
    }
    return Ledger.build(schema, metadata, shards=shards)


def _scan_shard(
    name: str, file: pa.MemoryMappedFile, schema: pa.Schema, token_column: str
) -> ShardEntry:
    if token_column not in schema.names:
        raise DatasetError(
            f"{name} has no column {token_column!r} of token ids; its columns are "
            f"{', '.join(schema.names)}. Tokenize it with easydata.build first."
        )
    kind = schema.field(token_column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise DatasetError(
            f"{name} has a column {token_column!r} of type {kind}, which is no list of token ids. "
            "Tokenize it with easydata.build first."
        )
    batches = []
    while (start := file.tell()) < file.size():
        # The mark at the end of a stream is a message without a header.
        if file.read_at(8, start)[4:] in (b"\0\0\0\0", b""):
            break
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
        tokens = len(batch[token_column].values)
        batches.append((start, file.tell() - start, batch.num_rows, tokens))
    if not batches:
        raise DatasetError(f"{name} holds no rows.")
    return ShardEntry(name, file.size(), np.array(batches, np.int64), np.empty(0, np.uint64))
