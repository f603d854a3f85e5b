"""The save stage: what a pipeline made, written to files, once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_strings
from easydata.format.codecs import Codec, resolve_format
from easydata.loader.mixing import Mixture
from easydata.pipeline.frozen import thaw
from easydata.pipeline.save_rows import SavedRows, rows_of
from easydata.pipeline.save_target import Target, make_target
from easydata.pipeline.save_writing import Layout, save_rows

if TYPE_CHECKING:
    from easydata.pipeline.config import DatasetConfig, PipelineConfig

__all__ = ["MIXTURE", "safe_name", "save_results"]

MIXTURE = "mixture"
_UNSAFE = re.compile(r"[^\w.-]+")


class _Item(NamedTuple):
    name: str
    rows: SavedRows
    layout: Layout
    target: Target


def save_results(result: Any, config: PipelineConfig) -> dict[str, str]:
    """Write what a pipeline made; what is saved already is not written again.

    One result goes to `save.output_dir`, several to folders of their names in it. A dataset with
    a `save_path` goes there, also out of a mixture. Unless `save.enabled`, only those are saved;
    if there are none, all.

    Args:
        result: a `TokenDataset` or samples of each dataset by name, or a `Mixture`, of which
            one epoch is saved. Anything else with a `schema` and `batches()` does for documents.
        config: of the whole pipeline.

    Returns:
        Where each result is, by name; a mixture is called "mixture".

    Raises:
        OutputExistsError: something else is at one of the places.
        UsageError: a result cannot be saved as the configuration says; nothing was written.
        StorageError: files cannot be written, or not uploaded. Each place holds all of a result,
            or what was there before.
    """
    items = list(_items(result, config))
    _refuse_same_places(items)
    for item in items:
        item.layout.check(item.name, item.rows)
    overwrite = config.save.overwrite
    saved = {
        item.name: save_rows(item.name, item.rows, item.layout, item.target, overwrite=overwrite)
        for item in items
    }
    if config.save.push_to_hub:
        from easydata.pipeline.save_hub import push_results

        push_results(saved, {item.name: item.layout.format for item in items}, config)
    return saved


def safe_name(name: str) -> str:
    """A name for a folder; names that differ have folders that differ.

    >>> safe_name("wiki"), safe_name("a/b")
    ('wiki', 'a-b-5745aec9')
    """
    made = _UNSAFE.sub("-", name).strip(".")
    return made if made == name else f"{made or 'dataset'}-{fingerprint_strings([name])[:8]}"


def _items(result: Any, config: PipelineConfig) -> Iterator[_Item]:
    by_name = {str(dataset.name): dataset for dataset in config.datasets}
    elsewhere = [name for name, dataset in by_name.items() if dataset.save_path is not None]
    saves_all = config.save.enabled or not elsewhere
    output_dir = str(config.save.output_dir)
    is_mixture = isinstance(result, Mixture)
    parts: Mapping[str, Any] = result.sources if is_mixture else result
    for name, value in parts.items():
        dataset = by_name.get(name)
        if dataset is not None and dataset.save_path is not None:
            yield _item(name, value, config, dataset, str(dataset.save_path))
        elif saves_all and not is_mixture:
            place = output_dir if len(parts) == 1 else _join(output_dir, safe_name(name))
            yield _item(name, value, config, dataset, place)
    if is_mixture and saves_all:
        _refuse_shards_of_mixed(config)
        yield _item(MIXTURE, result, config, None, output_dir)


def _item(
    name: str, value: Any, config: PipelineConfig, dataset: DatasetConfig | None, place: str
) -> _Item:
    save = config.save
    form, compression = str(save.format), save.compression
    if dataset is not None and dataset.save_format is not None:
        form = dataset.save_format
    if form == "arrow" and compression is not None:
        try:
            resolve_format("ipc", Codec.parse(compression))
        except UsageError as error:
            raise UsageError(
                f"dataset {name!r} is saved as arrow with compression {compression!r}: {error}"
            ) from error
    layout = Layout(
        form,
        compression,
        (dataset.num_shards if dataset is not None else None) or save.num_shards,
        save.max_shard_bytes,
        dataset.shard_column if dataset is not None else None,
    )
    rows = rows_of(value, shuffle=config.pack.shuffle_packed, seed=config.seed or 0)
    options = thaw(config.source.storage_options or {})
    return _Item(name, rows, layout, make_target(place, options))


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else str(PurePath(folder, name))


def _refuse_shards_of_mixed(config: PipelineConfig) -> None:
    for dataset in config.datasets:
        if dataset.save_path is None and dataset.num_shards is not None:
            raise UsageError(
                f"dataset {dataset.name!r} has num_shards={dataset.num_shards}, but its samples "
                "are saved in a mixture. Set num_shards of the save stage, or give the dataset a "
                "save_path of its own."
            )


def _refuse_same_places(items: list[_Item]) -> None:
    for at, item in enumerate(items):
        place = PurePath(item.target.path)
        for other in items[:at]:
            there = PurePath(other.target.path)
            if place.is_relative_to(there) or there.is_relative_to(place):
                raise UsageError(
                    f"{other.name!r} is saved to {there} and {item.name!r} to {place}; give each "
                    "a save_path apart from the other."
                )
