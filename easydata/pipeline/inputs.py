"""From what a dataset's configuration names as data to what `build` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from easydata.errors import SourceNotFoundError, UsageError
from easydata.format.directory import INFO_FILE, SPLITS_FILE, STATE_FILE

if TYPE_CHECKING:
    from easydata.pipeline.config import DatasetConfig, SourceStageConfig

__all__ = ["HUB_TYPES", "build_type", "open_inputs"]

HUB_TYPES = ("hf", "huggingface")


def open_inputs(dataset: DatasetConfig, source: SourceStageConfig) -> Any:
    """What to pass to `build` as sources.

    A HuggingFace name (type "hf") is loaded with `datasets`, streamed if `source.streaming`; of a
    folder that `save_to_disk` made, or a dictionary of splits, `dataset.split` is taken.

    Raises:
        SourceNotFoundError: there is no such dataset or split.
        MissingDependencyError: `datasets` cannot be imported.
    """
    data = dataset.data_files
    if isinstance(data, str | Path) and _is_saved(Path(data)):
        import datasets

        return _split_of(datasets.load_from_disk(str(data)), dataset)
    if dataset.type in HUB_TYPES:
        return _from_hub(dataset, source)
    if isinstance(data, tuple):
        return list(data)
    return _split_of(data, dataset)


def build_type(dataset: DatasetConfig) -> str | None:
    """The `type` argument of `build`."""
    if dataset.type in HUB_TYPES:
        return None
    return "text" if dataset.type == "txt" else dataset.type


def _is_saved(path: Path) -> bool:
    return (path / SPLITS_FILE).is_file() or all(
        (path / name).is_file() for name in (STATE_FILE, INFO_FILE)
    )


def _from_hub(dataset: DatasetConfig, source: SourceStageConfig) -> Any:
    import datasets

    if not isinstance(dataset.data_files, str | Path):
        raise UsageError(
            f"dataset {dataset.name!r} has the type {dataset.type!r}; give one HuggingFace name "
            "as data_files."
        )
    try:
        return datasets.load_dataset(
            str(dataset.data_files),
            name=dataset.dataset_split_name,
            split=dataset.split,
            streaming=source.streaming,
            storage_options=dict(source.storage_options or {}) or None,
        )
    except (FileNotFoundError, ValueError, ConnectionError) as error:
        raise SourceNotFoundError(
            f"dataset {dataset.name!r}: {dataset.data_files}, split {dataset.split!r}, does not "
            f"load: {error}"
        ) from error


def _split_of(data: Any, dataset: DatasetConfig) -> Any:
    """The configured split of a dictionary of splits; anything else as it is."""
    if not type(data).__name__.endswith("DatasetDict"):
        return data
    if dataset.split not in data:
        raise SourceNotFoundError(
            f"dataset {dataset.name!r} has no split {dataset.split!r}; it has "
            f"{', '.join(map(repr, data))}."
        )
    return data[dataset.split]
