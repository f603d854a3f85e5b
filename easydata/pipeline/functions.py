"""Pipelines in one call."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from easydata.errors import UsageError
from easydata.pipeline.base import Config
from easydata.pipeline.checks import ConfigError, nearest
from easydata.pipeline.config import DatasetConfig, PipelineConfig, TokenizerConfig
from easydata.pipeline.pipeline import Pipeline

__all__ = ["create_pipeline", "tokenize_and_save"]

_MAX_LENGTH = 2048
_NOT_OPTIONS = ("datasets", "default_tokenizer")
_OWN = [field.name for field in dataclasses.fields(PipelineConfig)]
_STAGES: dict[str, type[Config]] = {
    name: kind
    for name, kind in get_type_hints(PipelineConfig).items()
    if isinstance(kind, type) and issubclass(kind, Config)
}
# Every field of a stage's configuration, with the stages that have it.
_STAGES_OF: dict[str, list[str]] = {}
for _stage, _kind in _STAGES.items():
    for _name in inspect.signature(_kind).parameters:
        _STAGES_OF.setdefault(_name, []).append(_stage)
_OF_DATASET = [
    field.name
    for field in dataclasses.fields(DatasetConfig)
    if field.name not in ("data_files", "name", "tokenizer", "save_path", "save_format")
]


def create_pipeline(datasets: Any, default_tokenizer: Any = None, **options: Any) -> Pipeline:
    """A pipeline of datasets and options, to which stages are still to be added.

    >>> create_pipeline("data/*.jsonl", "bytes", seq_length=128).config.pack.seq_length
    128

    Args:
        datasets: one or a list of: a path, a `DatasetConfig`, a dict of its fields, a dataset
            object, a list of paths. Each is a dataset of its own.
        default_tokenizer: for datasets that name none.
        options: fields of `PipelineConfig`; or of the configuration of a stage, if no other stage
            has a field of that name. `load={"batch_size": 8}` sets one that is in several.

    Raises:
        UsageError: an option is unknown, ambiguous or wrong; it has a line for everything that is.
    """
    items = datasets if isinstance(datasets, list | tuple) else [datasets]
    values = _nested(options)
    return Pipeline(
        PipelineConfig.from_dict(
            {
                **values,
                "datasets": [_dataset(item) for item in items],
                "default_tokenizer": default_tokenizer,
            }
        )
    )


def tokenize_and_save(
    data_files: Any,
    tokenizer: Any,
    output_path: str | os.PathLike[str],
    output_format: str = "parquet",
    max_length: int | None = _MAX_LENGTH,
    **options: Any,
) -> Path | str:
    """Tokenize files and save their tokens; what was done before is not done again.

    Args:
        data_files: a path, folder, pattern or URL, a list of them, or a dataset object.
        tokenizer: a name, path, object, `TokenizerConfig` or a dict of its fields.
        output_path: the folder or URL to save to.
        output_format: "parquet", "arrow" or "jsonl".
        max_length: tokens to which rows are cut, None for no limit; a `TokenizerConfig` brings
            its own.
        options: as for `create_pipeline`, and fields of `DatasetConfig`, such as
            `content_field="body"`, which go first.

    Returns:
        Where it was saved: a path, or a URL as text.

    Raises:
        EasyDataError: one of its subclasses; what was saved before stays.
    """
    if isinstance(tokenizer, TokenizerConfig | Mapping):
        if max_length != _MAX_LENGTH:
            raise UsageError(
                f"max_length is {max_length!r}, but the tokenizer comes with a configuration of "
                "its own; set max_length there."
            )
        length: dict[str, Any] = {}
    else:
        length = {"max_length": max_length}
    dataset = {name: options.pop(name) for name in _OF_DATASET if name in options}
    values = _nested({**options, **length})
    save = values.pop("save", {})
    own = {"enabled": True, "output_dir": output_path, "format": output_format}
    pipeline = create_pipeline(
        {"data_files": data_files, "tokenizer": tokenizer, **dataset},
        save=_with("save", save, own),
        **values,
    )
    pipeline.source().tokenize().build()
    (saved,) = pipeline.get_context().saved.values()
    return saved if "://" in saved else Path(saved)


def _dataset(item: Any) -> Any:
    # A DatasetDict is a dict, too, but of splits.
    if isinstance(item, DatasetConfig) or type(item) is dict:
        return item
    return {"data_files": item}


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as fields of `PipelineConfig`.

    Raises:
        UsageError: one is unknown, or there are several that it could be.
    """
    known = [name for name in [*_OWN, *_STAGES_OF] if name not in _NOT_OPTIONS]
    values = {name: value for name, value in options.items() if name in _OWN}
    lines = []
    for name, value in options.items():
        if name in values:
            continue
        stages = _STAGES_OF.get(name, [])
        if len(stages) == 1:
            (stage,) = stages
            values[stage] = _with(stage, values.get(stage, {}), {name: value})
        elif stages:
            forms = " or ".join(f"{stage}={{{name!r}: {value!r}}}" for stage in stages)
            lines.append(f"{name}: a field of {' and '.join(stages)}; say which with {forms}.")
        else:
            lines.append(f"{name}: unknown; {nearest(name, known)}")
    if lines:
        raise ConfigError("", lines)
    return values


def _with(stage: str, config: Any, fields: Mapping[str, Any]) -> Any:
    """The configuration of a stage, or a mapping of its fields, with some fields more."""
    if isinstance(config, Config):
        return dataclasses.replace(config, **fields)
    if not isinstance(config, Mapping):
        return config  # which `PipelineConfig` refuses
    twice = [name for name in fields if name in config]
    if twice:
        raise UsageError(f"{twice[0]} is given twice: as an option and in {stage}=…; give it once.")
    return {**config, **fields}
