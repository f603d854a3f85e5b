"""Pipeline: text in files to tokens, samples, batches, each made once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Self

from easydata.errors import UsageError
from easydata.loader.protocols import SampleSource
from easydata.pipeline.config import (
    CacheStageConfig,
    LoadStageConfig,
    MixStageConfig,
    PackStageConfig,
    PipelineConfig,
    SaveStageConfig,
    SourceStageConfig,
    TokenizeStageConfig,
)
from easydata.pipeline.config_files import load_config
from easydata.pipeline.context import PipelineContext, logging_at
from easydata.pipeline.description import describe_pipeline
from easydata.pipeline.engines import engine_maker
from easydata.pipeline.loading import PipelineLoader, make_loader
from easydata.pipeline.order import STAGES, check_next
from easydata.pipeline.samples import mix_samples, pack_dataset
from easydata.pipeline.saving import save_results
from easydata.pipeline.stream_samples import StreamedSamples
from easydata.pipeline.streaming import TokenStream, make_stream_loader, stream_samples
from easydata.pipeline.tokenized import TokenizedDataset, tokenize_dataset

if TYPE_CHECKING:
    from easydata.build.progress import ProgressKind

__all__ = ["Pipeline"]


class Pipeline:
    """Tokenizes, caches, mixes, packs, saves and loads what a configuration names.

    For example `Pipeline.from_config("pipeline.yaml").source().tokenize().pack().load().build()`.

    `source()` comes first; the other stages may be left out, and each may be given a
    configuration in place of the pipeline's. A stage that is not called but needed runs as the
    configuration says: data is tokenized in any case, and cached unless `cache.enabled` is
    False; `mix` runs before loading where there are several datasets; `pack` and `save` run where
    they are `enabled`. Nothing happens before `build()`.
    """

    def __init__(self, config: PipelineConfig) -> None:
        if not isinstance(config, PipelineConfig):
            raise UsageError(
                f"config is a {type(config).__name__}; pass a PipelineConfig, or use "
                "Pipeline.from_config for a mapping or a file."
            )
        self._config = config
        self._called: list[str] = []
        self._context = PipelineContext()
        self._result: Any = None
        self._is_built = False

    @classmethod
    def from_config(
        cls, config: PipelineConfig | Mapping[str, Any] | str | os.PathLike[str]
    ) -> Self:
        """The pipeline of a configuration, a mapping of its fields, or a YAML or JSON file.

        Raises:
            UsageError: the configuration is wrong; it has a line for everything that is.
        """
        if isinstance(config, str | os.PathLike):
            return cls(load_config(config))
        if isinstance(config, Mapping):
            return cls(PipelineConfig.from_dict(config))
        return cls(config)

    @property
    def config(self) -> PipelineConfig:
        """The configuration, with what the stages were given."""
        return self._config

    def source(self, config: SourceStageConfig | None = None) -> Self:
        """Read the datasets' files."""
        return self._call("source", config)

    def tokenize(self, config: TokenizeStageConfig | None = None) -> Self:
        """Turn text into tokens."""
        return self._call("tokenize", config)

    def cache(self, config: CacheStageConfig | None = None) -> Self:
        """Keep the tokens for the next run; this holds by configuration, too."""
        return self._call("cache", config)

    def mix(self, config: MixStageConfig | None = None) -> Self:
        """Mix the samples of all datasets, in exact shares."""
        return self._call("mix", config)

    def pack(self, config: PackStageConfig | None = None) -> Self:
        """Put the rows of each dataset together to samples of one length."""
        return self._call("pack", config)

    def save(self, config: SaveStageConfig | None = None) -> Self:
        """Write the result to files, whether or not `save.enabled`."""
        self._call("save", config)
        save = dataclasses.replace(self._config.save, enabled=True)
        self._config = dataclasses.replace(self._config, save=save)
        return self

    def load(self, config: LoadStageConfig | None = None) -> Self:
        """Give batches."""
        return self._call("load", config)

    def get_stages(self) -> list[str]:
        """The stages that `build` runs, in order; the configuration may add to those called."""
        config = self._config
        wanted = {*self._called, "source", "tokenize"}
        if config.cache.enabled:
            wanted.add("cache")
        if config.pack.enabled:
            wanted.add("pack")
        if config.save.enabled or any(dataset.save_path for dataset in config.datasets):
            wanted.add("save")
        if "load" in wanted and len(config.datasets) > 1:
            wanted.add("mix")
        return [stage for stage in STAGES if stage in wanted]

    def build(self) -> Any:
        """Run every stage; what is cached is not made again.

        Returns:
            With `load()` the loader, an iterable of batches. Else with `mix()` a `Mixture` of
            samples; with `pack()` the samples of each dataset by name; else the `TokenDataset`
            of each by name (a `TokenStream` where it is not cached). Where there is one dataset,
            its own in place of a dictionary.

        Raises:
            EasyDataError: one of its subclasses; what was cached before stays.
        """
        if not self._called:
            raise UsageError("Nothing to build: begin with source().")
        config = self._config
        stages = self.get_stages()
        self._context = PipelineContext()
        self._is_built = False
        with logging_at(config.observability.log_level):
            datasets = self._tokenize()
            result: Any = {name: item.tokens for name, item in datasets.items()}
            is_streamed = any(item.report is None for item in datasets.values())
            if {"mix", "pack", "load"} & {*stages}:
                result = self._pack(datasets, is_packed="pack" in stages)
                if "mix" in stages and not is_streamed:
                    result = mix_samples(result, config)
            if "save" in stages:
                self._save(result)
            if "load" in stages and is_streamed:
                batches = make_stream_loader(result, config)
                result = PipelineLoader(batches, config, self._context.metrics)
            elif isinstance(result, dict) and len(result) == 1:
                (result,) = result.values()
            if "load" in stages and not is_streamed:
                loader = make_loader(result, config)
                result = PipelineLoader(loader, config, self._context.metrics)
        self._result, self._is_built = result, True
        return result

    def get_data(self) -> Any:
        """What `build` gave; it is called if it was not yet."""
        return self._result if self._is_built else self.build()

    def get_context(self) -> PipelineContext:
        """What the last `build` did."""
        return self._context

    def describe(self) -> None:
        """Print the stages, with counts and cache hits once they have run."""
        print(self)

    def __str__(self) -> str:
        return describe_pipeline(self._config, self.get_stages(), self._context)

    def _call(self, stage: str, config: Any) -> Self:
        check_next(stage, self._called)
        if config is not None:
            expected = type(getattr(self._config, stage))
            if not isinstance(config, expected):
                raise UsageError(
                    f"{stage}() is given a {type(config).__name__}; it takes a {expected.__name__}."
                )
            self._config = dataclasses.replace(self._config, **{stage: config})
        self._called.append(stage)
        self._is_built = False
        return self

    def _tokenize(self) -> dict[str, TokenizedDataset]:
        config = self._config
        found: dict[str, TokenizedDataset] = {}
        maker = engine_maker(config.ray)
        with (
            self._context.timed("tokenize", config.observability) as numbers,
            maker() if maker else nullcontext() as engine,
        ):
            for dataset in config.datasets:
                item = tokenize_dataset(
                    dataset, config, engine=engine, stream_engine=maker, progress=self._progress
                )
                found[item.name] = item
                numbers[item.name] = item.metrics()
        self._context.datasets = found
        return found

    def _pack(self, datasets: Mapping[str, TokenizedDataset], *, is_packed: bool) -> dict[str, Any]:
        config = self._config
        with self._context.timed("pack", config.observability) as numbers:
            samples = {
                name: self._samples(item, is_packed=is_packed) for name, item in datasets.items()
            }
            for name, item in samples.items():
                if not isinstance(item, StreamedSamples):
                    numbers[name] = {"samples": item.num_samples}
        self._context.samples = samples
        return samples

    def _samples(
        self, item: TokenizedDataset, *, is_packed: bool
    ) -> SampleSource | StreamedSamples:
        if isinstance(item.tokens, TokenStream):
            return stream_samples(item.tokens, self._config, is_packed=is_packed)
        return pack_dataset(item.tokens, self._config.pack, is_packed=is_packed)

    def _save(self, result: Any) -> None:
        with self._context.timed("save", self._config.observability) as numbers:
            self._context.saved = save_results(result, self._config)
            numbers.update(self._context.saved)

    @property
    def _progress(self) -> ProgressKind:
        observability = self._config.observability
        return observability.progress_type if observability.progress_enabled else "none"
