"""From a dataset of documents to one of samples of a fixed length."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from easydata._fs import publish_file, storage_errors
from easydata.build.existing import Existing
from easydata.build.job import BuildJob, SampleCounts
from easydata.build.progress import Progress, Snapshot
from easydata.build.publish import Prepared, commit, prepare
from easydata.build.sample_layout import Arrays, SampleLayout
from easydata.build.sample_options import SampleOptions
from easydata.dataset import TokenDataset
from easydata.dataset.info import sample_alignment
from easydata.errors import UsageError
from easydata.format.alignment import ALIGNMENT
from easydata.format.directory import TOKENS
from easydata.format.features import HUGGINGFACE_KEY, huggingface_metadata
from easydata.format.ledger import METADATA_KEY, PartEntry, ShardEntry
from easydata.format.shards import IpcShardWriter, ParquetShardWriter
from easydata.loader.order import SampleOrder
from easydata.loader.packing import pack
from easydata.loader.protocols import SampleSource
from easydata.metadata import CacheMetadata

__all__ = ["make_samples"]

_log = logging.getLogger("easydata")
_FRAME_BYTES = 1024  # of a record batch beside its buffers, at most


def make_samples(
    job: BuildJob,
    documents: Mapping[str | None, TokenDataset],
    work: Path,
    progress: Progress,
    existing: Existing | None,
    *,
    request: str | None,
) -> SampleCounts:
    """Pack documents and publish the samples.

    Args:
        job: what to build.
        documents: of each split.
        work: where shards lie until the dataset is published.
        progress: told how far it is.
        existing: a complete dataset at the same place.
        request: identity of the call, for the ledger.

    Returns:
        The counts of all splits together.

    Raises:
        UsageError: a split has too few tokens for one sample.
        StorageError: files cannot be written; what was there is still there.
    """
    folder = work / "samples"
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
    prepared, counts = [], []
    try:
        for split, dataset in documents.items():
            with storage_errors(folder):
                (folder / (split or "all")).mkdir(parents=True)
            made = _SplitMaker(job, dataset, split, folder / (split or "all"))
            prepared.append(made.prepare(progress, request))
            counts.append(made.counts)
    except BaseException:  # also Ctrl-C: nothing continues from these files
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _tell_alignment(job, next(iter(documents.values())).dtype.itemsize)
    old = list(existing.folders.values()) if existing else []
    commit(job.out, prepared, old, has_documents=True)
    return sum(counts[1:], counts[0])


def _tell_alignment(job: BuildJob, itemsize: int) -> None:
    assert job.options.samples is not None
    seq_len = job.options.samples.seq_len
    is_mapped = job.options.shard_format == "ipc" and job.options.codec.is_zero_copy
    if is_mapped and sample_alignment(seq_len, itemsize) < ALIGNMENT:
        _log.warning(
            "Samples of %d tokens of %d bytes lie at multiples of %d bytes, not of %d; choose a "
            "seq_len that %d divides to have every sample aligned.",
            seq_len,
            itemsize,
            sample_alignment(seq_len, itemsize),
            ALIGNMENT,
            ALIGNMENT // itemsize,
        )


class _Shards(NamedTuple):
    """See `Assembled`."""

    folder: Path
    shards: list[ShardEntry]
    parts: tuple[PartEntry, ...] = ()


class _SplitMaker:
    """Makes the samples of one split.

    Attributes:
        counts: what packing does to its documents.
    """

    def __init__(
        self, job: BuildJob, documents: TokenDataset, split: str | None, folder: Path
    ) -> None:
        self._job = job
        self._documents = documents
        self._split = split
        self._folder = folder
        assert job.options.samples is not None
        self._options = job.options.samples
        self._pad_token_id = job.recipe.values["pad_id"]
        self._refuse_too_few()
        options = self._options
        self._source = pack(
            documents,
            options.seq_len,
            options.pack,
            pad_token_id=self._pad_token_id,
            include_segment_ids=options.segment_ids,
        )
        self._layout = SampleLayout(self._source.read(np.zeros(1, np.int64)), options.seq_len)
        self.counts = _count(self._source, documents, options)
        self._cache = CacheMetadata(
            source_hash=documents.metadata.source_hash,
            tokenizer_hash=job.tokenizer["fingerprint"],
            transform_hash=job.transform_hash,
            config_hash=job.recipe.fingerprint,
        )

    def prepare(self, progress: Progress, request: str | None) -> Prepared:
        """Write the shards, and everything else but what makes them visible."""
        job = self._job
        return prepare(
            job.out if self._split is None else job.out / self._split,
            _Shards(self._folder, self._write(progress)),
            schema=self._layout.schema,
            split=self._split,
            sources=[],  # those of its documents are recorded with them
            metadata={
                "token_column": TOKENS,
                "shard_format": job.options.shard_format,
                "compression": str(job.options.codec),
                "recipe": dict(job.recipe.values),
                "command": job.command,
                "split": self._split,
                "tokenizer": dict(job.tokenizer),
                "transform": job.transform and job.transform.to_json(),
                "request": request,
                "versions": job.versions,
                "samples": {
                    **self._options.values,
                    "pad_id": self._pad_token_id,
                    "documents": self._documents.fingerprint,
                    **vars(self.counts),
                },
            },
            cache=self._cache,
            tokenizer_files=job.tokenizer_files,
        )

    def _write(self, progress: Progress) -> list[ShardEntry]:
        """Shards of whole record batches."""
        options, layout = self._job.options, self._layout
        is_parquet = options.shard_format == "parquet"
        kind = ParquetShardWriter if is_parquet else IpcShardWriter
        suffix = ".parquet" if is_parquet else ".arrow"
        batches = layout.batches(self._runs())
        shards: list[ShardEntry] = []
        total = self._source.num_samples * layout.row_bytes
        done = 0
        batch = next(batches, None)
        while batch is not None:
            path = self._folder / f"{len(shards)}{suffix}"
            with publish_file(path) as file:
                writer = kind(file, layout.schema, self._header(), options.codec)
                is_empty = True
                while batch is not None and (
                    is_empty or file.tell() + batch.nbytes + _FRAME_BYTES <= options.shard_bytes
                ):
                    writer.write(batch, batch.num_rows * self._options.seq_len)
                    is_empty = False
                    done += batch.num_rows
                    tokens = done * self._options.seq_len
                    progress.update(Snapshot(done * layout.row_bytes, total, done, tokens))
                    batch = next(batches, None)
                shards.append(writer.finish(path.name))
        return shards

    def _runs(self) -> Iterator[Arrays]:
        """All samples in order, some at a time."""
        num_samples, step = self._source.num_samples, self._layout.rows_per_run
        order = SampleOrder(num_samples, shuffle=self._options.shuffle, seed=self._options.seed)
        for start in range(0, num_samples, step):
            yield self._source.read(order.visits(start, min(start + step, num_samples)))

    def _header(self) -> dict[bytes, bytes]:
        """Schema metadata of a shard: nothing that is known only when it is written."""
        features = huggingface_metadata(self._layout.schema, str(self._cache.source_hash)[:16])
        return {
            HUGGINGFACE_KEY: features,
            METADATA_KEY: self._cache.to_json(content_only=True).encode(),
        }

    def _refuse_too_few(self) -> None:
        num_tokens, seq_len = self._documents.num_tokens, self._options.seq_len
        where = "The input has" if self._split is None else f"The split {self._split!r} has"
        if not num_tokens:
            raise UsageError(f"{where} no tokens to make samples of. Give more data.")
        if num_tokens < seq_len and self._pad_token_id is None:
            raise UsageError(
                f"seq_len is {seq_len}, but {where.lower()} only {num_tokens} tokens. Choose a "
                "shorter seq_len, or fill the sample up with pad_token=..."
            )


def _count(source: SampleSource, documents: TokenDataset, options: SampleOptions) -> SampleCounts:
    lengths = documents.lengths()
    lengths = lengths[lengths > 0]
    if options.pack == "concat":
        ends = lengths.cumsum()
        is_split = (ends - lengths) // options.seq_len != (ends - 1) // options.seq_len
    else:
        is_split = lengths > options.seq_len
    spare = source.num_samples * options.seq_len - documents.num_tokens
    return SampleCounts(
        num_samples=source.num_samples,
        num_documents=len(lengths),
        split_documents=int(is_split.sum()),
        padding_tokens=max(spare, 0),
        left_out_tokens=max(-spare, 0),
    )
