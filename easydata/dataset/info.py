"""What a dataset consists of, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from easydata.dataset.token_dataset import TokenDataset
from easydata.format.alignment import ALIGNMENT

__all__ = ["DatasetInfo", "dataset_info", "sample_alignment"]

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
        rows: documents, or samples of one length.
        tokens: token ids, BOS and EOS included; of samples also padding.
        shards: files that hold them.
        batches: record batches in these.
        bytes: size of the shards.
        bits_per_token: 8 × bytes / tokens, other columns included.
        dtype: type of the token ids.
        columns: type of each column.
        format: "ipc" or "parquet".
        compression: the codec.
        seq_len: tokens in each sample; None where the rows are documents.
        pack: how documents were made into samples.
        order: of the samples: "shuffled with seed N" or "not shuffled".
        documents: with at least one token, that samples were made of.
        split_documents: those that are in several pieces.
        padding_tokens: places in the samples that are padding.
        left_out_tokens: tokens at the end of the documents that fill no sample.
        sample_alignment: bytes that the place of each sample in an uncompressed IPC shard is a
            multiple of, up to 64; None where samples are not mapped.
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
    seq_len: int | None
    pack: str | None
    order: str | None
    documents: int | None
    split_documents: int | None
    padding_tokens: int | None
    left_out_tokens: int | None
    sample_alignment: int | None
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
        **_of_samples(dataset),
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


def sample_alignment(seq_len: int, itemsize: int) -> int:
    """Bytes that the place of each sample in an uncompressed IPC shard is a multiple of, up to 64.

    The first sample of a record batch is at a multiple of 64.

    Args:
        seq_len: tokens in a sample.
        itemsize: bytes in a token.
    """
    sample_bytes = seq_len * itemsize
    return min(sample_bytes & -sample_bytes, ALIGNMENT)


def _of_samples(dataset: TokenDataset) -> dict[str, Any]:
    """What there is to say of samples, as far as it was recorded."""
    ledger = dataset.ledger
    kind = dataset.schema.field(ledger.metadata["token_column"]).type
    seq_len = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    made = ledger.metadata.get("samples", {})
    order = f"shuffled with seed {made['seed']}" if made.get("shuffle") else "not shuffled"
    form = (ledger.metadata["shard_format"], ledger.metadata["compression"])
    is_mapped, itemsize = form == ("ipc", "none"), dataset.dtype.itemsize
    return {
        "seq_len": seq_len,
        "pack": made.get("pack"),
        "order": order if "shuffle" in made else None,
        "documents": made.get("num_documents"),
        "split_documents": made.get("split_documents"),
        "padding_tokens": made.get("padding_tokens"),
        "left_out_tokens": made.get("left_out_tokens"),
        "sample_alignment": sample_alignment(seq_len, itemsize) if seq_len and is_mapped else None,
    }
