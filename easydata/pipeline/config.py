"""The configuration of a whole pipeline, and the tokenizer that each of its datasets gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from easydata.errors import UsageError
from easydata.pipeline.base import Config, configs_of
from easydata.pipeline.checks import ConfigError, Seed, inside, nearest
from easydata.pipeline.dataset_config import AnyTokenizer, DatasetConfig, TokenizerConfig
from easydata.pipeline.stage_configs import (
    CacheStageConfig,
    LoadStageConfig,
    MixStageConfig,
    ObservabilityConfig,
    PackStageConfig,
    RayConfig,
    SaveStageConfig,
    SourceStageConfig,
    TokenizeStageConfig,
    WeightSchedulePoint,
)

__all__ = [
    "CacheStageConfig",
    "DatasetConfig",
    "LoadStageConfig",
    "MixStageConfig",
    "ObservabilityConfig",
    "PackStageConfig",
    "PipelineConfig",
    "RayConfig",
    "SaveStageConfig",
    "SourceStageConfig",
    "TokenizeStageConfig",
    "TokenizerConfig",
    "WeightSchedulePoint",
    "resolve_tokenizer",
]

_check_datasets = configs_of(DatasetConfig)


def _datasets(name: str, value: object) -> tuple[DatasetConfig, ...]:
    datasets: tuple[DatasetConfig, ...] = _check_datasets(name, value)
    return tuple(
        dataclasses.replace(dataset, name=f"dataset_{at}") if dataset.name is None else dataset
        for at, dataset in enumerate(datasets)
    )


@dataclass(frozen=True)
class PipelineConfig(Config):
    """Everything that a pipeline does.

    Attributes:
        datasets: what it reads, at least one. Those without a name get "dataset_<position>".
        default_tokenizer: for datasets that name none: a name, path, object, TokenizerConfig or a
            mapping of its fields. (None)
        streaming: where results are not cached, make tokens while they are read; False makes
            all of them first, in a temporary folder. (True)
        seed: of everything that is random, where a stage has no seed of its own: 0 to 2^64 - 1;
            None for 0. (None)
        source: how files are read.
        tokenize: how text becomes tokens.
        cache: where results are kept for the next run.
        mix: how samples of several datasets are mixed.
        pack: how rows become samples of one length.
        load: how samples become batches.
        save: where results are written.
        ray: work on a Ray cluster.
        observability: what is shown and measured.
    """

    datasets: Annotated[Sequence[DatasetConfig], _datasets]
    default_tokenizer: AnyTokenizer | None = None
    streaming: bool = True
    seed: Seed | None = None
    source: SourceStageConfig = field(default_factory=SourceStageConfig)
    tokenize: TokenizeStageConfig = field(default_factory=TokenizeStageConfig)
    cache: CacheStageConfig = field(default_factory=CacheStageConfig)
    mix: MixStageConfig = field(default_factory=MixStageConfig)
    pack: PackStageConfig = field(default_factory=PackStageConfig)
    load: LoadStageConfig = field(default_factory=LoadStageConfig)
    save: SaveStageConfig = field(default_factory=SaveStageConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)

    def validate(self) -> None:
        """Check everything once more. What was made without an error has none.

        Raises:
            UsageError: it has a line for everything that is wrong.
        """
        self.__post_init__()

    def get_dataset_by_name(self, name: str) -> DatasetConfig:
        """The dataset of that name.

        Raises:
            UsageError: there is none.
        """
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        raise UsageError(f"There is no dataset {name!r}; {nearest(name, self._names)}")

    @property
    def _names(self) -> list[str]:
        return [str(dataset.name) for dataset in self.datasets]

    def _contradictions(self, right: Callable[..., bool]) -> Iterable[str]:
        if right("datasets"):
            names = self._names
            for at, name in enumerate(names):
                if name in names[:at]:
                    yield (
                        f"datasets[{at}].name is {name!r}, as is that of "
                        f"datasets[{names.index(name)}]; give each a name of its own."
                    )
        if right("datasets", "mix"):
            yield from self._wrong_weights()
        if right("datasets", "tokenize", "default_tokenizer"):
            for at, dataset in enumerate(self.datasets):
                try:
                    resolve_tokenizer(dataset, self)
                except ConfigError as error:
                    yield from (f"datasets[{at}].{line}" for line in error.lines)

    def _wrong_weights(self) -> Iterable[str]:
        weights = {"mix.weights": self.mix.weights}
        for at, point in enumerate(self.mix.weight_schedule or ()):
            weights[f"mix.weight_schedule[{at}].weights"] = point.weights
        for path, shares in weights.items():
            if shares is None:
                continue
            names = list(dict.fromkeys(self._names))
            for name in shares:
                if name not in names:
                    yield f"{path} names the unknown dataset {name!r}; {nearest(name, names)}"
            for name in names:
                if name not in shares:
                    yield f"{path} has no share for the dataset {name!r}; give it one, or 0."


def resolve_tokenizer(dataset: DatasetConfig, pipeline: PipelineConfig) -> TokenizerConfig:
    """The tokenizer of a dataset, with all that was said about how it is called.

    It is the dataset's own, else that of the tokenize stage, else that of the pipeline. Where it
    comes without a `TokenizerConfig`, rows are cut to `tokenize.max_length`. Last, the dataset's
    `tokenizer_kwargs` replace fields. `name_or_path` of the result may be a tokenizer object.

    Raises:
        UsageError: there is none, or `tokenizer_kwargs` contradict it.
    """
    found = next(
        (
            one
            for one in (
                dataset.tokenizer,
                pipeline.tokenize.default_tokenizer,
                pipeline.default_tokenizer,
            )
            if one is not None
        ),
        None,
    )
    if found is None:
        line = (
            "tokenizer is None, as are tokenize.default_tokenizer and default_tokenizer; "
            "set one of them."
        )
        raise ConfigError("", [line])
    if not isinstance(found, TokenizerConfig):
        found = TokenizerConfig(found, max_length=pipeline.tokenize.max_length)
    kwargs: Mapping[str, Any] = dataset.tokenizer_kwargs or {}
    with inside("tokenizer_kwargs"):
        return dataclasses.replace(found, **kwargs)
