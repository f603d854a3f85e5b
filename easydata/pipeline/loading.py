"""The last stage: samples to batches, which it counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, MutableMapping, Sized
from typing import TYPE_CHECKING, Any

from easydata._units import format_count
from easydata.loader.data_loader import DataLoader
from easydata.loader.mixing import Mixture
from easydata.loader.protocols import SampleSource
from easydata.pipeline.context import logging_at

if TYPE_CHECKING:
    from easydata.loader.jax_data import JaxBatches
    from easydata.pipeline.config import ObservabilityConfig, PipelineConfig

__all__ = ["PipelineLoader", "make_loader"]

_log = logging.getLogger("easydata")

Batch = dict[str, Any]  # of NumPy arrays, or of JAX's


class PipelineLoader:
    """The batches of a pipeline; iterating twice gives the same batches twice.

    Attributes:
        batches: where they come from, a `DataLoader` or a `StreamLoader`.
        batch_size: samples in a batch.
        seq_len: tokens in a sample.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        config: PipelineConfig,
        metrics: MutableMapping[str, Any],
    ) -> None:
        """
        Args:
            batches: the batches.
            config: says how often to log, and whether to measure.
            metrics: where what was loaded is counted, under "load".
        """
        self.batches = batches
        self.batch_size = config.load.batch_size
        self.seq_len = config.pack.seq_length
        self._observability: ObservabilityConfig = config.observability
        self._metrics = metrics

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: nobody knows before they were read.
        """
        if not isinstance(self.batches, Sized):
            raise TypeError("how many batches a stream gives is not known before it was read")
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        observability = self._observability
        start = time.monotonic()
        counts = {"batches": 0, "samples": 0, "tokens": 0}
        for batch in self.batches:
            yield batch
            ids = batch["input_ids"]
            counts["batches"] += 1
            counts["samples"] += ids.shape[0]
            counts["tokens"] += ids.size
            seconds = time.monotonic() - start
            if observability.metrics_enabled:
                self._metrics["load"] = {**counts, "seconds": seconds}
            if counts["batches"] % observability.log_interval == 0:
                with logging_at(observability.log_level):
                    _log.info(
                        "%s batches, %s tokens, %s tokens/s",
                        format_count(counts["batches"]),
                        format_count(counts["tokens"]),
                        format_count(counts["tokens"] / max(seconds, 1e-9)),
                    )


def make_loader(samples: SampleSource | Mixture, config: PipelineConfig) -> DataLoader | JaxBatches:
    """Batches of the samples of one dataset, or of a mixture.

    Raises:
        UsageError: there are fewer samples than in a batch.
    """
    load = config.load
    if isinstance(samples, Mixture):
        order: dict[str, Any] = {}  # a mixture brings its own
    else:
        shuffle = config.pack.shuffle_packed
        order = {
            "shuffle": shuffle,
            "shuffle_buffer_size": load.shuffle_buffer_size if shuffle else None,
            "seed": config.seed or 0,
        }
    is_ahead = load.prefetch_enabled and load.prefetch_workers > 0
    loader = DataLoader(
        samples,
        load.batch_size,
        epochs=1,
        drop_last=load.drop_last,
        prefetch=load.prefetch_buffer_size if is_ahead else 0,
        prefetch_workers=load.prefetch_workers if is_ahead else 1,
        **order,
    )
    return loader.to_jax() if load.prefetch_to_device else loader
