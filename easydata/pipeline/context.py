"""What a pipeline has done: its results and its measurements."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easydata.pipeline.config import ObservabilityConfig
    from easydata.pipeline.tokenized import TokenizedDataset

__all__ = ["PipelineContext", "logging_at"]

_log = logging.getLogger("easydata")


@dataclass
class PipelineContext:
    """What the last `build` of a pipeline did.

    Attributes:
        datasets: what became of each dataset, by name.
        samples: what became of each after packing, by name; empty where nothing was packed.
        saved: what was written, by name: paths.
        metrics: numbers by stage, such as `metrics["tokenize"]["wiki"]["rows"]`; empty where
            `metrics_enabled` is False.
    """

    datasets: Mapping[str, TokenizedDataset] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, stage: str, observability: ObservabilityConfig) -> Iterator[dict[str, Any]]:
        """Numbers to fill in for a stage, whose seconds are added at its end."""
        numbers: dict[str, Any] = {}
        start = time.monotonic()
        yield numbers
        if observability.metrics_enabled:
            self.metrics[stage] = {**numbers, "seconds": time.monotonic() - start}


@contextlib.contextmanager
def logging_at(level: str) -> Iterator[None]:
    """Log what easydata says from this level up, as long as it lasts."""
    before = _log.level
    _log.setLevel(level)
    try:
        yield
    finally:
        _log.setLevel(before)
