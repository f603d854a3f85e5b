"""The tokenizing stage: each dataset becomes a `TokenDataset`, was one before, or is a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easydata.build.existing import inspect_output
from easydata.build.run import BuildReport, Replace, run
from easydata.dataset import TokenDataset, open_dataset
from easydata.engine import Engine
from easydata.pipeline.arguments import build_arguments, is_cached
from easydata.pipeline.engines import EngineMaker
from easydata.pipeline.held import HeldDatasets, open_temporary, temporary_folder
from easydata.pipeline.inputs import open_inputs
from easydata.pipeline.slots import Slot, age_of, find_slot
from easydata.pipeline.streaming import TokenStream, make_stream

if TYPE_CHECKING:
    from easydata.build.progress import ProgressKind
    from easydata.pipeline.config import DatasetConfig, PipelineConfig

__all__ = ["TokenizedDataset", "tokenize_dataset"]

# One set of datasets for all pipelines of this process: over the disk, and of those of
# `cache_type` "memory", which are in no other place.
_OVER_DISK = HeldDatasets()
_IN_MEMORY = HeldDatasets(delete=True)
_memory_folder: Path | None = None


@dataclass(frozen=True)
class TokenizedDataset:
    """What became of one dataset.

    Attributes:
        name: as in its configuration.
        tokens: the opened dataset; or a stream, whose tokens are made while they are read.
        report: what was done for it; None for a stream.
    """

    name: str
    tokens: TokenDataset | TokenStream
    report: BuildReport | None

    @property
    def is_hit(self) -> bool:
        """Whether it was there before, and nothing was done."""
        return self.report is not None and self.report.outcome is None

    def metrics(self) -> dict[str, Any]:
        """Its numbers by name; none of a stream, which nobody has read yet."""
        if self.report is None or isinstance(self.tokens, TokenStream):
            return {}
        outcome = self.report.outcome
        return {
            "rows": len(self.tokens),
            "tokens": self.tokens.num_tokens,
            "hit": self.is_hit,
            "parts": outcome.parts if outcome else 0,
            "reused": outcome.reused if outcome else 0,
            "rows_reused": outcome.rows_reused if outcome else 0,
            "truncated": self.tokens.ledger.total("truncated"),
            "seconds": self.report.seconds,
        }


def tokenize_dataset(
    dataset: DatasetConfig,
    config: PipelineConfig,
    *,
    engine: Engine | None,
    stream_engine: EngineMaker | None,
    progress: ProgressKind,
) -> TokenizedDataset:
    """Tokenize what is not in the cache yet, and open it.

    What is not cached becomes a stream, or, unless `streaming`, a dataset in a temporary folder.

    Args:
        dataset: which one.
        config: of the whole pipeline.
        engine: where to tokenize; by default worker processes.
        stream_engine: makes the one of a stream, whenever it is read; likewise.
        progress: how to show it.

    Raises:
        EasyDataError: as `build`; what was cached before stays.
    """
    name = str(dataset.name)
    if not is_cached(dataset, config) and config.streaming:
        return TokenizedDataset(name, make_stream(dataset, config, engine=stream_engine), None)
    arguments = build_arguments(dataset, config)
    sources = open_inputs(dataset, config.source)
    if not is_cached(dataset, config):
        slot = Slot(temporary_folder(), is_own=True)
        report = _build(sources, arguments, slot, "changed", engine, progress)
        return TokenizedDataset(name, open_temporary(slot.path), report)
    cache = config.cache
    folder = Path(cache.cache_dir) if cache.cache_type != "memory" else _folder_of_memory()
    slot = find_slot(dataset, arguments, folder)
    expired = _expired(slot, cache.disk_cache_expiry)
    mode: Replace = "renew" if expired else "changed"
    report = _build(sources, arguments, slot, mode, engine, progress)
    if expired:
        report = replace(report, reasons=[expired])
    if cache.cache_type == "disk":
        tokens = open_dataset(slot.path)
    else:
        held = _IN_MEMORY if cache.cache_type == "memory" else _OVER_DISK
        tokens = held.open(slot.path, capacity=cache.memory_cache_size)
    return TokenizedDataset(name, tokens, report)


def _build(
    sources: Any,
    arguments: dict[str, Any],
    slot: Slot,
    mode: Replace,
    engine: Engine | None,
    progress: ProgressKind,
) -> BuildReport:
    siblings: Sequence[Any] = () if slot.path.exists() or mode == "renew" else list(slot.siblings())
    return run(
        sources,
        {**arguments, "out": slot.path},
        progress=progress,
        replace=mode,
        engine=engine,
        reuse=siblings,
    )


def _expired(slot: Slot, expiry_seconds: float | None) -> str | None:
    """Why a slot is too old, if it is."""
    if expiry_seconds is None or not slot.path.exists():
        return None
    existing = inspect_output(slot.path, overwrite=True)
    if existing is None or age_of(existing) < expiry_seconds:
        return None
    return f"expired: {age_of(existing):.0f} s old, of {expiry_seconds:.0f} s at most"


def _folder_of_memory() -> Path:
    global _memory_folder  # noqa: PLW0603
    if _memory_folder is None:
        _memory_folder = temporary_folder()
    return _memory_folder
