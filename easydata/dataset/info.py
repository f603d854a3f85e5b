"""What a dataset consists of, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from easydata.dataset.token_dataset import TokenDataset

__all__ = ["DatasetInfo", "dataset_info"]

_OPENS = {
    ("ipc", True): "datasets.load_from_disk, memory-mapped",
    ("ipc", False): "datasets.load_from_disk, decompressed into memory",
    ("parquet", True): "pandas, Polars, DuckDB as Parquet; not datasets.load_from_disk",
    ("parquet", False): "pandas, Polars, DuckDB as Parquet; not datasets.load_from_disk",
}


@dataclass(frozen=True)
class DatasetInfo:
    """Counts and identities of a dataset.

    Attributes:
        path: the directory.
        rows: documents.
        tokens: token ids, BOS and EOS included.
        shards: files that hold them.
        batches: record batches in these.
        bytes: size of the shards.
        bits_per_token: 8 × bytes / tokens, other columns included.
        dtype: type of the token ids.
        columns: type of each column.
        format: "ipc" or "parquet".
        compression: the codec.
        sources: files or objects it was built from.
        parts: units of reuse.
        skipped: records left out because they are broken.
        short: rows left out because they have too few tokens.
        truncated: rows cut to the maximal length.
        tokenizer: name of the tokenizer.
        bos_id: id before each row, if any.
        eos_id: id after each row, if any.
        fingerprint: follows from the content.
        tokenizer_hash: identity of the tokenizer.
        source_hash: identity of the source rows.
        config_hash: identity of the options.
        created_at: seconds since 1970.
        opens_with: who else can read the directory.
    """

    path: str
    rows: int
    tokens: int
    shards: int
    batches: int
    bytes: int
    bits_per_token: float | None
    dtype: str
    columns: dict[str, str]
    format: str
    compression: str
    sources: int
    parts: int
    skipped: int
    short: int
    truncated: int
    tokenizer: str | None
    bos_id: int | None
    eos_id: int | None
    fingerprint: str
    tokenizer_hash: str | None
    source_hash: str | None
    config_hash: str | None
    created_at: float
    opens_with: str


def dataset_info(dataset: TokenDataset) -> DatasetInfo:
    """Everything the ledger knows in sum; reads no shard."""
    ledger = dataset.ledger
    cache = dataset.metadata
    tokenizer = ledger.metadata.get("tokenizer", {})
    size = int(ledger.shard_bytes.sum())
    shard_format, compression = ledger.metadata["shard_format"], ledger.metadata["compression"]
    return DatasetInfo(
        path=str(dataset.path),
        rows=len(dataset),
        tokens=dataset.num_tokens,
        shards=ledger.num_shards,
        batches=len(ledger.batch_offsets),
        bytes=size,
        bits_per_token=8 * size / dataset.num_tokens if dataset.num_tokens else None,
        dtype=dataset.dtype.name,
        columns={item.name: str(item.type) for item in dataset.schema},
        format=shard_format,
        compression=compression,
        sources=ledger.num_sources,
        parts=ledger.num_parts,
        skipped=ledger.total("skipped"),
        short=ledger.total("short"),
        truncated=ledger.total("truncated"),
        tokenizer=tokenizer.get("name"),
        bos_id=tokenizer.get("bos_id"),
        eos_id=tokenizer.get("eos_id"),
        fingerprint=dataset.fingerprint,
        tokenizer_hash=cache.tokenizer_hash,
        source_hash=cache.source_hash,
        config_hash=cache.config_hash,
        created_at=cache.created_at,
        opens_with=_OPENS[shard_format, compression == "none"],
    )
