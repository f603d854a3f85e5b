"""A pipeline as a tree of lines, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from easydata._units import format_count
from easydata.pipeline.streaming import TokenStream

if TYPE_CHECKING:
    from easydata.pipeline.config import DatasetConfig, PipelineConfig
    from easydata.pipeline.context import PipelineContext
    from easydata.pipeline.tokenized import TokenizedDataset

__all__ = ["describe_pipeline"]

_Line = tuple[str, list[str]]  # what a stage does, and a line for each dataset


def describe_pipeline(
    config: PipelineConfig, stages: Sequence[str], context: PipelineContext
) -> str:
    """The stages with what is configured, and what was done where they have run."""
    makers = {
        "source": _source,
        "tokenize": _tokenize,
        "cache": _cache,
        "mix": _mix,
        "pack": _pack,
        "save": _save,
        "load": _load,
    }
    return "\n".join(
        ["Pipeline", *_tree([(stage, *makers[stage](config, context)) for stage in stages])]
    )


def _tree(stages: Sequence[tuple[str, str, list[str]]]) -> Iterator[str]:
    width = max(len(name) for name, _, _ in stages) + 2
    for at, (name, text, children) in enumerate(stages):
        is_last = at == len(stages) - 1
        yield f"{'└─' if is_last else '├─'} {name:<{width}}{text}".rstrip()
        for number, child in enumerate(children):
            branch = "└─" if number == len(children) - 1 else "├─"
            yield f"{'  ' if is_last else '│ '} {branch} {child}"


def _named(config: PipelineConfig, lines: Sequence[str]) -> list[str]:
    width = max(len(str(dataset.name)) for dataset in config.datasets) + 2
    return [
        f"{dataset.name!s:<{width}}{line}"
        for dataset, line in zip(config.datasets, lines, strict=True)
    ]


def _source(config: PipelineConfig, context: PipelineContext) -> _Line:
    del context
    many = f"{len(config.datasets)} datasets" if len(config.datasets) > 1 else "1 dataset"
    return many, _named(config, [_data(dataset) for dataset in config.datasets])


def _data(dataset: DatasetConfig) -> str:
    data = dataset.data_files
    if isinstance(data, tuple):
        return f"{len(data)} inputs"
    return (
        str(data) if hasattr(data, "__fspath__") or isinstance(data, str) else type(data).__name__
    )


def _tokenize(config: PipelineConfig, context: PipelineContext) -> _Line:
    if not context.datasets:
        return "not built yet", []
    lines = [_done(context.datasets[str(dataset.name)]) for dataset in config.datasets]
    return "", _named(config, lines)


def _done(item: TokenizedDataset) -> str:
    if item.report is None or isinstance(item.tokens, TokenStream):
        return "tokenized whenever it is read"
    rows, tokens = len(item.tokens), item.tokens.num_tokens
    counts = f"{format_count(rows)} rows, {format_count(tokens)} tokens"
    outcome = item.report.outcome
    seconds = f"{item.report.seconds:.2f} s"
    if outcome is None:
        return f"{counts}: cache hit ({seconds})"
    parts = [f"{counts}: tokenized ({seconds})"]
    if outcome.reused:
        parts.append(f"{outcome.reused} of {outcome.parts} parts reused")
    if outcome.rows_reused:
        parts.append(f"{format_count(outcome.rows_reused)} rows taken over")
    if item.report.reasons:
        parts.append(f"because {'; '.join(item.report.reasons)}")
    return ", ".join(parts)


def _cache(config: PipelineConfig, context: PipelineContext) -> _Line:
    cache = config.cache
    if not cache.enabled:
        return "off", []
    lines = [
        _place(context.datasets[str(dataset.name)]) if context.datasets else "not built yet"
        for dataset in config.datasets
    ]
    return f"{cache.cache_type}, {cache.compression}, {cache.hash_fn}", _named(config, lines)


def _place(item: TokenizedDataset) -> str:
    return "not cached" if isinstance(item.tokens, TokenStream) else str(item.tokens.path)


def _mix(config: PipelineConfig, context: PipelineContext) -> _Line:
    del context
    mix = config.mix
    if mix.weight_schedule is not None:
        text = f"{len(mix.weight_schedule)} points, {mix.weight_schedule_type}"
    elif mix.weights is not None:
        text = ", ".join(f"{name} {weight:g}" for name, weight in mix.weights.items())
    else:
        text = "by size"
    return f"{text}; {mix.stop_strategy}", []


def _pack(config: PipelineConfig, context: PipelineContext) -> _Line:
    pack = config.pack
    text = f"{pack.strategy}, {pack.seq_length} tokens"
    if not context.samples:
        return text, []
    lines = []
    for dataset in config.datasets:
        sample = context.samples[str(dataset.name)]
        stats = getattr(sample, "stats", None)
        full = "" if stats is None else f", {stats.utilisation:.1%} full"
        count = getattr(sample, "num_samples", None)
        lines.append("a stream" if count is None else f"{format_count(count)} samples{full}")
    return text, _named(config, lines)


def _save(config: PipelineConfig, context: PipelineContext) -> _Line:
    text = f"{config.save.format}, {config.save.output_dir}"
    return text, [f"{name}: {path}" for name, path in context.saved.items()]


def _load(config: PipelineConfig, context: PipelineContext) -> _Line:
    del context
    return f"batches of {config.load.batch_size}", []
