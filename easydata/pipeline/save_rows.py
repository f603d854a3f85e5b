"""What can be saved, each as record batches of one schema: documents, samples, mixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.build.sample_layout import SampleLayout
from easydata.dataset import TokenDataset
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader.mixing import Mixture
from easydata.loader.order import SampleOrder
from easydata.loader.protocols import SampleSource
from easydata.metadata import CacheMetadata

__all__ = ["SavedRows", "rows_of"]

_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class SavedRows:
    """Rows to be saved, read as they are written.

    Attributes:
        schema: of the batches, without metadata.
        batches: gives them, each time from the first.
        identity: of the rows and their order; None where nobody knows it.
        num_rows: how many there are; None where that is known at their end only.
        metadata: what they were made from, as far as it is known before they are read.
        final_metadata: gives all of that, once they were read.
        features: HuggingFace features (as JSON) of columns that are richer than their types.
        tokenizer: what a ledger says of the tokenizer; empty where nothing is known.
        tokenizer_folder: where its files lie.
        samples: what a ledger says of samples, which have no fields of documents; None where the
            rows are no samples.
        rows_per_batch: of batches but the last one, where they are best kept as they are.
    """

    schema: pa.Schema
    batches: Callable[[], Iterator[pa.RecordBatch]]
    identity: str | None
    num_rows: int | None
    metadata: CacheMetadata = field(default_factory=CacheMetadata)
    features: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_folder: Path | None = None
    samples: Mapping[str, Any] | None = None
    rows_per_batch: int | None = None
    final_metadata: Callable[[], CacheMetadata] | None = None

    def known_metadata(self) -> CacheMetadata:
        """What they were made from, after they were read."""
        return self.metadata if self.final_metadata is None else self.final_metadata()


def rows_of(value: Any, *, shuffle: bool, seed: int) -> SavedRows:
    """The rows of a result.

    Args:
        value: a `TokenDataset`, a `SampleSource`, a `Mixture` (one epoch, in its own order), or
            anything with a `schema` and a method `batches`; the last may also have `fingerprint`,
            the identity of its rows.
        shuffle: give samples in another order than their source has.
        seed: chooses that order, which is that of a loader's first epoch.

    Raises:
        UsageError: it is none of those.
    """
    if isinstance(value, TokenDataset):
        return _documents(value)
    if isinstance(value, Mixture):
        return _samples(value.fingerprint, value.num_samples, value.seq_len, _Mixed(value), {})
    if hasattr(value, "num_samples") and hasattr(value, "read"):
        order = {"shuffle": shuffle, **({"seed": seed} if shuffle else {})}
        identity = fingerprint_json({"samples": value.fingerprint, **order})
        read = _Ordered(value, SampleOrder(value.num_samples, shuffle=shuffle, seed=seed))
        return _samples(identity, value.num_samples, value.seq_len, read, order)
    if hasattr(value, "schema") and hasattr(value, "batches"):
        schema: pa.Schema = value.schema.remove_metadata()
        known = getattr(value, "fingerprint", None) or None
        return SavedRows(schema, lambda: iter(value.batches()), known, None)
    raise UsageError(
        f"A {type(value).__name__} cannot be saved; give token datasets, samples or a mixture."
    )


def _documents(dataset: TokenDataset) -> SavedRows:
    stored = dict(dataset.ledger.metadata.get("tokenizer", {}))
    folder = stored.pop("folder", None)
    return SavedRows(
        dataset.schema,
        lambda: _document_batches(dataset),
        dataset.fingerprint or None,
        len(dataset),
        dataset.metadata,
        _declared_features(dataset),
        stored,
        dataset.path / folder if folder else None,
    )


def _document_batches(dataset: TokenDataset) -> Iterator[pa.RecordBatch]:
    first_rows = dataset.ledger.first_rows.tolist()
    for batch, num_bytes in enumerate(dataset.ledger.batch_bytes.tolist()):
        first, stop = first_rows[batch], first_rows[batch + 1]
        step = max((stop - first) * _READ_BYTES // num_bytes, 1)
        for start in range(first, stop, step):
            yield from dataset.take(np.arange(start, min(start + step, stop))).to_batches()


def _declared_features(dataset: TokenDataset) -> dict[str, Any]:
    from easydata.sources.table_readers import hub_features

    if not dataset.ledger.num_shards:
        return {}
    path = dataset.path / dataset.ledger.shard_name(0)
    if dataset.ledger.metadata["shard_format"] == "parquet":
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
    else:
        with pa.OSFile(str(path)) as file:
            schema = pa.ipc.read_schema(file)
    return dict(hub_features(schema) or {})


class _Ordered:
    """Reads samples in an order."""

    def __init__(self, source: SampleSource, order: SampleOrder) -> None:
        self._source = source
        self._order = order
        self.num_samples = source.num_samples

    def first(self) -> dict[str, npt.NDArray[Any]]:
        """One sample, for its columns."""
        return self._source.read(np.zeros(1, np.int64))

    def runs(self, step: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """All samples, at most `step` at a time."""
        for start in range(0, self.num_samples, step):
            stop = min(start + step, self.num_samples)
            yield self._source.read(self._order.visits(start, stop))


class _Mixed:
    """Reads the samples of an epoch of a mixture."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def first(self) -> dict[str, npt.NDArray[Any]]:
        """One sample, for its columns."""
        return self._mixture.read(*self._mixture.start().take(1))

    def runs(self, step: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """All samples, at most `step` at a time."""
        run = self._mixture.start()
        left = self._mixture.num_samples
        while left:
            sources, samples = run.take(min(step, left))
            yield self._mixture.read(sources, samples)
            left -= len(samples)


def _samples(
    identity: str,
    num_samples: int,
    seq_len: int,
    reader: _Ordered | _Mixed,
    described: Mapping[str, Any],
) -> SavedRows:
    layout = SampleLayout(reader.first(), seq_len)
    return SavedRows(
        layout.schema,
        lambda: layout.batches(reader.runs(layout.rows_per_run)),
        identity,
        num_samples,
        CacheMetadata(config_hash=identity),
        samples={"seq_len": seq_len, **described},
        rows_per_batch=layout.rows_per_batch,
    )
