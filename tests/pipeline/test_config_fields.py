"""Each configuration alone: its fields, their defaults, and what they keep."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from easydata.build import build
from easydata.cache.tree import TreeCacheManager
from easydata.errors import UsageError
from easydata.loader import DataLoader
from easydata.pipeline import config as configs
from easydata.pipeline.config import (
    CacheStageConfig,
    DatasetConfig,
    LoadStageConfig,
    MixStageConfig,
    ObservabilityConfig,
    PackStageConfig,
    RayConfig,
    SaveStageConfig,
    SourceStageConfig,
    TokenizerConfig,
    TokenizeStageConfig,
)
from easydata.pipeline.frozen import FrozenDict, thaw

# The page of the reference, with ours where it differs.
DEFAULTS: dict[str, dict[str, Any]] = {
    "TokenizerConfig": {
        "max_length": 2048,
        "truncation": True,
        "padding": False,
        "add_special_tokens": True,
        "return_attention_mask": True,
        "trust_remote_code": False,
    },
    "DatasetConfig": {
        "name": None,
        "type": None,
        "split": "train",
        "dataset_split_name": None,
        "num_rows": None,
        "tokenizer": None,
        "tokenizer_kwargs": None,
        "cache_path": None,
        "cache_enabled": True,
        "save_path": None,
        "save_format": None,
        "content_field": "text",
        "additional_fields": None,
        "format_callback": None,
        "format_version": None,
        "format_fields": None,
        "shard_column": None,
        "num_shards": None,
    },
    "SourceStageConfig": {
        "streaming": True,
        "cloud_max_retries": 3,
        "cloud_retry_delay": 1.0,
        "storage_options": None,
    },
    "TokenizeStageConfig": {
        "default_tokenizer": None,
        "max_length": None,
        "batch_size": 1000,
        "num_workers": None,
        "cache_tokenized": True,
        "remove_columns": None,
        "on_error": "raise",
    },
    "CacheStageConfig": {
        "enabled": True,
        "cache_type": "hierarchical",
        "cache_dir": ".cache/easydata",
        "memory_cache_size": 100,
        "disk_cache_expiry": None,
        "compression": "none",
        "hash_fn": "combined",
    },
    "MixStageConfig": {
        "weights": None,
        "weight_schedule": None,
        "weight_schedule_type": "step",
        "block_size": 1000,
        "stop_strategy": "restart",
        "seed": None,
    },
    "WeightSchedulePoint": {},
    "PackStageConfig": {
        "enabled": False,
        "seq_length": 2048,
        "eos_token_id": None,
        "pad_token_id": None,
        "strategy": "greedy",
        "num_packers": 4,
        "include_segment_ids": True,
        "shuffle_packed": True,
        "shuffle_buffer_factor": 10,
    },
    "LoadStageConfig": {
        "batch_size": 8,
        "prefetch_enabled": True,
        "prefetch_workers": 2,
        "prefetch_buffer_size": 4,
        "shuffle_buffer_size": None,
        "drop_last": True,
        "prefetch_to_device": False,
    },
    "SaveStageConfig": {
        "enabled": False,
        "output_dir": "./output",
        "format": "parquet",
        "num_shards": None,
        "compression": None,
        "max_shard_size": "500MB",
        "overwrite": False,
        "push_to_hub": False,
        "hub_repo_id": None,
        "hub_private": False,
        "hub_token": None,
    },
    "RayConfig": {
        "enabled": False,
        "num_workers": 4,
        "resources_per_worker": None,
        "use_gpu": False,
        "object_store_memory": None,
    },
    "ObservabilityConfig": {
        "progress_enabled": True,
        "progress_type": "rich",
        "metrics_enabled": True,
        "log_level": "INFO",
        "log_interval": 100,
    },
    "PipelineConfig": {"default_tokenizer": None, "streaming": True, "seed": None},
}
REQUIRED = {
    "TokenizerConfig": {"name_or_path": "bytes"},
    "DatasetConfig": {"data_files": "a.txt"},
    "WeightSchedulePoint": {"step": 0, "weights": {"a": 1}},
    "PipelineConfig": {"datasets": [{"data_files": "a.txt", "tokenizer": "bytes"}]},
}
STAGES = {
    "source": SourceStageConfig(),
    "tokenize": TokenizeStageConfig(),
    "cache": CacheStageConfig(),
    "mix": MixStageConfig(),
    "pack": PackStageConfig(),
    "load": LoadStageConfig(),
    "save": SaveStageConfig(),
    "ray": RayConfig(),
    "observability": ObservabilityConfig(),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_fields_and_defaults_of_the_page(name: str) -> None:
    cls = getattr(configs, name)
    required = REQUIRED.get(name, {})
    made = cls(**required)
    values = {field.name: getattr(made, field.name) for field in dataclasses.fields(cls)}
    for field in required:
        del values[field]
    expected = DEFAULTS[name] | (STAGES if name == "PipelineConfig" else {})
    assert values == expected
    assert [type(value) for value in values.values()] == [type(v) for v in expected.values()]


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_field_is_documented_with_its_default(name: str) -> None:
    text = inspect.cleandoc(getattr(configs, name).__doc__).split("Attributes:\n")[1]
    entries = re.findall(r"^    (\w+): ((?:.|\n     )+)$", text, re.MULTILINE)
    documented = {field: " ".join(line.split()) for field, line in entries}
    fields = [field.name for field in dataclasses.fields(getattr(configs, name))]
    assert list(documented) == fields
    for field, default in DEFAULTS[name].items():
        shown = f'"{default}"' if isinstance(default, str) else repr(default)
        assert documented[field].endswith(f". ({shown})") or documented[field].endswith(
            f" ({shown})"
        ), documented[field]


def test_one_default_for_one_thing() -> None:
    def default(function: Any, name: str) -> Any:
        return inspect.signature(function).parameters[name].default

    cache, save, load = CacheStageConfig(), SaveStageConfig(), LoadStageConfig()
    assert cache.compression == default(build, "compression")
    assert cache.compression == default(TreeCacheManager, "compression")
    assert cache.memory_cache_size == default(TreeCacheManager, "memory_size")
    assert load.drop_last == default(DataLoader, "drop_last")
    assert DatasetConfig("a").content_field == default(build, "text_field")
    assert DatasetConfig("a").num_rows == default(build, "limit")
    assert DatasetConfig("a").type == default(build, "type")
    assert SourceStageConfig().storage_options == default(build, "storage_options")
    assert TokenizeStageConfig().max_length == default(build, "max_length")
    assert TokenizeStageConfig().num_workers == default(build, "workers")
    assert save.overwrite == default(build, "overwrite")
    # These differ, as the pages of the reference say: of values and of datasets, and of what is
    # mapped and what is handed on.
    assert (cache.disk_cache_expiry, default(TreeCacheManager, "disk_expiry")) == (None, 86400)
    assert (save.format, default(build, "format")) == ("parquet", None)
    assert (save.max_shard_size, default(build, "shard_size")) == ("500MB", "256MB")


def test_what_is_kept_cannot_change() -> None:
    weights = {"a": np.float64(0.25), "b": 0.75}
    options = {"client": {"hosts": ["x", "y"]}}
    mix = MixStageConfig(weights=weights, seed=np.int64(3))
    source = SourceStageConfig(storage_options=options)
    names = ["id"]
    dataset = DatasetConfig(["a", Path("b")], additional_fields=names, cache_path=Path("c"))
    weights["a"] = 5.0
    options["client"]["hosts"].append("z")
    names.append("x")
    assert mix.weights == {"a": 0.25, "b": 0.75}
    assert [type(value) for value in mix.weights.values()] == [float, float]
    assert type(mix.seed) is int
    assert source.storage_options == {"client": {"hosts": ("x", "y")}}
    assert thaw(source.storage_options) == {"client": {"hosts": ["x", "y"]}}
    assert (dataset.data_files, dataset.cache_path) == (("a", "b"), "c")
    assert dataset.additional_fields == ("id",)
    with pytest.raises(TypeError):
        mix.weights["a"] = 1.0  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mix.seed = 4  # type: ignore[misc]
    for made in (mix, source, dataset):
        for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
            assert other == made
            assert hash(other) == hash(made)
    assert mix != MixStageConfig(weights={"a": 0.5, "b": 0.5}, seed=3)
    assert repr(mix.weights) == "{'a': 0.25, 'b': 0.75}"
    assert len({FrozenDict({"a": 1, "b": 2}), FrozenDict({"b": 2, "a": 1})}) == 1


def test_the_other_name_of_storage_options() -> None:
    made = SourceStageConfig(dask_storage_options={"key": "k"})
    assert made == SourceStageConfig(storage_options={"key": "k"})
    assert made == SourceStageConfig.from_dict({"dask_storage_options": {"key": "k"}})
    assert made.to_dict() == {"storage_options": {"key": "k"}}
    changed = dataclasses.replace(made, streaming=False)
    assert changed == SourceStageConfig(storage_options={"key": "k"}, streaming=False)


def test_secrets_are_not_shown() -> None:
    shown = repr(
        [SaveStageConfig(hub_token="hf_1"), SourceStageConfig(storage_options={"k": "s3"})]
    )
    assert "hf_1" not in shown
    assert "s3" not in shown


@pytest.mark.parametrize("limit", [None, 5e-3, 3600])
def test_what_is_taken(limit: float | None) -> None:
    assert CacheStageConfig(disk_cache_expiry=limit).disk_cache_expiry == limit
    assert CacheStageConfig(compression="zstd:09").compression == "zstd:9"
    assert SaveStageConfig(max_shard_size="64MiB").max_shard_bytes == 64 * 2**20
    assert SaveStageConfig().max_shard_bytes == 500_000_000
    assert RayConfig(object_store_memory="2GB").object_store_bytes == 2_000_000_000
    assert RayConfig().object_store_bytes is None
    assert SaveStageConfig(format="jsonl", compression="gzip").compression == "gzip"
    assert MixStageConfig(weights={"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}).weights is not None
    assert MixStageConfig(weights={"a": 1, "b": 0}).weights == {"a": 1, "b": 0}
    assert TokenizerConfig("a", max_length=9).cut_length == 9
    assert TokenizerConfig("a", max_length=9, truncation=False).cut_length is None


@pytest.mark.parametrize(
    "data",
    [
        pa.table({"text": ["a"]}),
        datasets.Dataset.from_dict({"text": ["a"]}),
        datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})}),
    ],
)
def test_dataset_objects(data: Any) -> None:
    made = DatasetConfig(data)
    assert made.data_files is data
    with pytest.raises(UsageError, match=r"DatasetConfig\.data_files is of type \w+, which"):
        made.to_dict()


def test_objects_are_not_compared_with_defaults() -> None:
    table = pd.DataFrame({"text": ["a", "b"]})
    with pytest.raises(UsageError, match=r"DatasetConfig\.tokenizer is of type DataFrame, which"):
        DatasetConfig("a", tokenizer=table).to_dict()


def test_rows_as_data() -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    assert DatasetConfig(rows).data_files == tuple(rows)
