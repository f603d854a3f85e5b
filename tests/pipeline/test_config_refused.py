"""What each configuration alone refuses, and in which words."""

from __future__ import annotations

import dataclasses
import pickle
import re
from typing import Any

import pytest

from easydata.errors import UsageError
from easydata.pipeline import config as configs
from easydata.pipeline.base import Config
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
    WeightSchedulePoint,
)
from tests.pipeline.test_config_fields import DEFAULTS, REQUIRED

COUNT = "it must be a whole number from 1 up."
WRONG: list[tuple[type[Config], dict[str, Any], str]] = [
    *(
        (cls, {name: value}, f"{name} is {value!r}; {COUNT}")
        for cls, names in (
            (TokenizerConfig, ["max_length"]),
            (DatasetConfig, ["num_rows", "num_shards"]),
            (TokenizeStageConfig, ["max_length", "batch_size", "num_workers"]),
            (CacheStageConfig, ["memory_cache_size"]),
            (MixStageConfig, ["block_size"]),
            (PackStageConfig, ["seq_length", "num_packers", "shuffle_buffer_factor"]),
            (LoadStageConfig, ["batch_size", "prefetch_workers", "prefetch_buffer_size"]),
            (LoadStageConfig, ["shuffle_buffer_size"]),
            (SaveStageConfig, ["num_shards"]),
            (RayConfig, ["num_workers"]),
            (ObservabilityConfig, ["log_interval"]),
        )
        for name in names
        for value in (0, -1, True, 1.0, "8")
    ),
    *(
        (cls, {field.name: 1}, f"{field.name} is 1; it must be true or false.")
        for cls in (getattr(configs, name) for name in DEFAULTS)
        for field in dataclasses.fields(cls)
        if isinstance(field.default, bool) and field.name != "padding"
    ),
    (LoadStageConfig, {"batch_size": None}, f"batch_size is None; {COUNT}"),
    (TokenizerConfig, {"padding": 0}, "padding is 0; choose one of False, longest, max_length."),
    (TokenizerConfig, {"padding": True}, "padding is True; "),
    (TokenizerConfig, {"padding": "longst"}, "did you mean longest? Choices: False, longest,"),
    (
        TokenizerConfig,
        {"padding": "max_length", "max_length": None},
        "padding is 'max_length', but max_length is None; set max_length.",
    ),
    (
        TokenizerConfig,
        {"padding": "max_length", "truncation": False},
        "padding is 'max_length', but truncation is False; longer rows would not fit.",
    ),
    (TokenizerConfig, {"name_or_path": ""}, "name_or_path is ''; it must be a path."),
    (TokenizerConfig, {"name_or_path": 3}, "it must be a name, a path or a tokenizer object."),
    (TokenizerConfig, {"name_or_path": TokenizerConfig("a")}, "it must be a name, a path or a"),
    (DatasetConfig, {"data_files": ""}, "data_files is ''; it must be a path."),
    (DatasetConfig, {"data_files": None}, "data_files is None; it must be a path, folder,"),
    (DatasetConfig, {"data_files": []}, "data_files is []; it must be a path, folder,"),
    (DatasetConfig, {"data_files": {"train": "a"}}, "it must be a path, folder, pattern or URL"),
    (DatasetConfig, {"data_files": ["a", 3]}, "data_files[1] is 3; it must be a path, folder,"),
    (DatasetConfig, {"name": ""}, "name is ''; it must be text."),
    (DatasetConfig, {"name": 2024}, "name is 2024; it must be text. In a file, put quotes"),
    (DatasetConfig, {"type": "parqet"}, "type is 'parqet'; did you mean parquet? Choices: json,"),
    (DatasetConfig, {"split": None}, "split is None; it must be text."),
    (DatasetConfig, {"tokenizer": True}, "tokenizer is True; it must be a name, a path or a"),
    (DatasetConfig, {"tokenizer": ["a"]}, "tokenizer is ['a']; it must be a name, a path or"),
    (DatasetConfig, {"tokenizer": {"name": "a"}}, "tokenizer.name: unknown; did you mean name_or"),
    (DatasetConfig, {"tokenizer": {}}, "tokenizer.name_or_path: missing; every TokenizerConfig"),
    (DatasetConfig, {"tokenizer_kwargs": 3}, "must be a mapping of TokenizerConfig's fields."),
    (DatasetConfig, {"tokenizer_kwargs": {"pading": 1}}, "tokenizer_kwargs.pading: unknown; did"),
    (DatasetConfig, {"tokenizer_kwargs": {"name_or_path": "a"}}, "name_or_path: unknown; "),
    (DatasetConfig, {"tokenizer_kwargs": {"max_length": 0}}, "tokenizer_kwargs.max_length is 0;"),
    (DatasetConfig, {"cache_path": "s3://b"}, "cache_path is 's3://b'; it must be a folder of a"),
    (DatasetConfig, {"save_path": "a\0"}, "save_path is 'a\\x00'; it must be a path."),
    (DatasetConfig, {"save_format": "arow"}, "save_format is 'arow'; did you mean arrow?"),
    (DatasetConfig, {"additional_fields": "id"}, "additional_fields is 'id'; it must be a list"),
    (DatasetConfig, {"additional_fields": ["a", "a"]}, "additional_fields names 'a' twice;"),
    (DatasetConfig, {"additional_fields": ["a", 1]}, "additional_fields[1] is 1; it must be text"),
    (DatasetConfig, {"format_callback": "os:remove"}, "format_callback is the text 'os:remove'; "),
    (DatasetConfig, {"format_callback": 3}, "format_callback is 3; it must be a function"),
    (DatasetConfig, {"format_fields": {"a": "x", "b": "x"}}, "calls both 'a' and 'b' 'x'; give"),
    (DatasetConfig, {"format_fields": {"a": 1}}, "format_fields.a is 1; it must be text."),
    (DatasetConfig, {"format_fields": ["a"]}, "format_fields is ['a']; it must be a mapping of"),
    (DatasetConfig, {"format_version": "1"}, "format_version is '1', but there is no format_cal"),
    (DatasetConfig, {"shard_column": "a"}, "num_shards is None, but shard_column is 'a'; say how"),
    (SourceStageConfig, {"cloud_max_retries": -1}, "is -1; it must be a whole number from 0 up."),
    (SourceStageConfig, {"cloud_retry_delay": -0.1}, "is -0.1; it must be a number from 0 up."),
    (SourceStageConfig, {"cloud_retry_delay": float("inf")}, "is inf; it must be a number from"),
    (SourceStageConfig, {"cloud_retry_delay": float("nan")}, "is nan; it must be a number from"),
    (SourceStageConfig, {"cloud_retry_delay": "1e-3"}, "YAML takes 1.0e-3 as one, but not 1e-3."),
    (SourceStageConfig, {"storage_options": {1: 2}}, "storage_options has the key 1; keys must"),
    (SourceStageConfig, {"storage_options": {"a": [{1: 2}]}}, "storage_options.a[0] has the key 1"),
    (SourceStageConfig, {"dask_storage_options": 3}, "storage_options is 3; it must be a mapping"),
    (
        SourceStageConfig,
        {"dask_storage_options": {}, "storage_options": {}},
        "dask_storage_options is another name of storage_options, and both are given;",
    ),
    (TokenizeStageConfig, {"default_tokenizer": 1.5}, "default_tokenizer is 1.5; it must be a na"),
    (TokenizeStageConfig, {"remove_columns": [""]}, "remove_columns[0] is ''; it must be text."),
    (CacheStageConfig, {"cache_type": "disc"}, "cache_type is 'disc'; did you mean disk? Choices"),
    (CacheStageConfig, {"cache_dir": None}, "cache_dir is None; it must be a path."),
    (CacheStageConfig, {"disk_cache_expiry": 0}, "is 0; it must be a number above 0."),
    (CacheStageConfig, {"compression": "lz5"}, "compression is 'lz5'; choose one of none, lz4,"),
    (CacheStageConfig, {"compression": "zstd:23"}, "compression is 'zstd:23'; choose one of none"),
    (CacheStageConfig, {"compression": None}, "compression is None; choose one of none, lz4,"),
    (CacheStageConfig, {"hash_fn": "contents"}, "hash_fn is 'contents'; did you mean content?"),
    (MixStageConfig, {"weights": {"a": 0.5, "b": 0.4}}, "weights adds up to 0.9; the shares must"),
    (MixStageConfig, {"weights": {"a": 1.5, "b": -0.5}}, "weights.b is -0.5; it must be a number"),
    (MixStageConfig, {"weights": {"a": True}}, "weights.a is True; it must be a number from 0"),
    (MixStageConfig, {"weights": {False: 1}}, "weights has the key False; keys must be text."),
    (MixStageConfig, {"weights": {}}, "weights adds up to 0; the shares must add up to 1."),
    (MixStageConfig, {"weight_schedule": []}, "weight_schedule is []; it must be a list of at"),
    (MixStageConfig, {"weight_schedule": [3]}, "weight_schedule[0] is 3; it must be WeightSched"),
    (
        MixStageConfig,
        {"weight_schedule": [{"step": -1, "weights": {"a": 1}}, {"step": 0, "weights": {"a": 2}}]},
        "weight_schedule[1].weights adds up to 2; the shares must add up to 1.",
    ),
    (
        MixStageConfig,
        {"weight_schedule": [{"step": 5, "weights": {"a": 1}}, {"step": 5, "weights": {"a": 1}}]},
        "weight_schedule[1].step is 5 after 5; steps must increase.",
    ),
    (
        MixStageConfig,
        {"weights": {"a": 1}, "weight_schedule": [{"step": 0, "weights": {"a": 1}}]},
        "weight_schedule and weights are both given; give one of them.",
    ),
    (MixStageConfig, {"weight_schedule_type": "linar"}, "did you mean linear? Choices: step, lin"),
    (MixStageConfig, {"stop_strategy": "stop"}, "stop_strategy is 'stop'; "),
    (MixStageConfig, {"seed": 2**64}, "it must be a whole number from 0 to 18446744073709551615."),
    (MixStageConfig, {"seed": -1}, "seed is -1; it must be a whole number from 0 to"),
    (WeightSchedulePoint, {"step": 1.5}, "step is 1.5; it must be a whole number from 0 up."),
    (WeightSchedulePoint, {"weights": None}, "weights is None; it must be a mapping of datasets'"),
    (PackStageConfig, {"eos_token_id": -1}, "eos_token_id is -1; it must be a whole number from 0"),
    (PackStageConfig, {"pad_token_id": "0"}, "pad_token_id is '0'; it must be a whole number"),
    (PackStageConfig, {"strategy": "bestfit"}, "strategy is 'bestfit'; did you mean best_fit?"),
    (SaveStageConfig, {"output_dir": 3}, "output_dir is 3; it must be a path."),
    (SaveStageConfig, {"format": "json"}, "format is 'json'; did you mean jsonl? Choices: parq"),
    (SaveStageConfig, {"compression": "zip"}, "compression is 'zip'; choose one of none, lz4,"),
    (SaveStageConfig, {"compression": "gzip", "format": "arrow"}, "but format is 'arrow': Arrow"),
    (SaveStageConfig, {"max_shard_size": "5QB"}, "max_shard_size is '5QB'; give a number of bytes"),
    (SaveStageConfig, {"max_shard_size": 0}, "max_shard_size is 0; it must be at least 1 byte."),
    (SaveStageConfig, {"push_to_hub": True}, "hub_repo_id is None, but push_to_hub is True; say"),
    (RayConfig, {"resources_per_worker": {"GPU": 0}}, "resources_per_worker.GPU is 0; it must be"),
    (RayConfig, {"object_store_memory": "much"}, "object_store_memory is 'much'; give a number"),
    (
        ObservabilityConfig,
        {"progress_type": "ritch"},
        "progress_type is 'ritch'; did you mean rich",
    ),
    (ObservabilityConfig, {"log_level": "info"}, "log_level is 'info'; did you mean INFO? Choices"),
]


@pytest.mark.parametrize(("cls", "values", "expected"), WRONG)
def test_what_is_refused(cls: type[Config], values: dict[str, Any], expected: str) -> None:
    values = REQUIRED.get(cls.__name__, {}) | values
    for make in (cls, lambda **values: cls.from_dict(values)):
        with pytest.raises(UsageError) as caught:
            make(**values)
        line = next(line for line in str(caught.value).splitlines() if expected in line)
        assert re.match(
            rf"{cls.__name__}\.({'|'.join(values)}|hub_repo_id|num_shards|storage_options)\b", line
        )


def test_all_errors_of_a_class_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        PackStageConfig(seq_length=0, strategy="gredy", num_packers=-1)  # type: ignore[arg-type]
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error).splitlines() == [
        "PackStageConfig.seq_length is 0; it must be a whole number from 1 up.",
        "PackStageConfig.strategy is 'gredy'; did you mean greedy? Choices: greedy, concat, pool, "
        "first_fit, best_fit, pad.",
        "PackStageConfig.num_packers is -1; it must be a whole number from 1 up.",
    ]


def test_all_errors_of_a_mapping_and_a_list_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        DatasetConfig(["", "a", 3], format_fields={"a": "", "b": 1}, additional_fields=[1, 2])
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "DatasetConfig.data_files[0]",
        "DatasetConfig.data_files[2]",
        "DatasetConfig.additional_fields[0]",
        "DatasetConfig.additional_fields[1]",
        "DatasetConfig.format_fields.a",
        "DatasetConfig.format_fields.b",
    ]


def test_no_contradiction_is_found_with_a_wrong_field() -> None:
    with pytest.raises(UsageError) as caught:
        SaveStageConfig(push_to_hub=True, hub_repo_id=5)  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == [
        "SaveStageConfig.hub_repo_id is 5; it must be text. In a file, put quotes around it."
    ]
