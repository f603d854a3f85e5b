"""Configurations in files: written, read back equal, and what is wrong with them named."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from easydata.errors import StorageError, UsageError
from easydata.pipeline.config import (
    DatasetConfig,
    LoadStageConfig,
    MixStageConfig,
    PackStageConfig,
    PipelineConfig,
    SaveStageConfig,
    SourceStageConfig,
    TokenizerConfig,
    WeightSchedulePoint,
)
from easydata.pipeline.config_files import dump_config, load_config
from tests.pipeline.config_strategy import pipelines

GOLDEN = """\
datasets:
- data_files:
  - data/*.jsonl
  - s3://bucket/more
  name: 'no'
  tokenizer:
    name_or_path: meta-llama/Llama-2-7b
    max_length: null
  format_fields:
    body: text
- data_files: code.parquet
  name: dataset_1
  num_rows: 1000
  tokenizer_kwargs:
    padding: longest
default_tokenizer: bytes
source:
  cloud_retry_delay: 0.5
  storage_options:
    client:
      hosts:
      - x
mix:
  weight_schedule:
  - step: 0
    weights:
      'no': 0.25
      dataset_1: 0.75
  - step: 100
    weights:
      'no': 1
      dataset_1: 0
  weight_schedule_type: linear
pack:
  enabled: true
  strategy: best_fit
"""


def golden() -> PipelineConfig:
    return PipelineConfig(
        datasets=[
            DatasetConfig(
                ["data/*.jsonl", "s3://bucket/more"],
                name="no",
                tokenizer=TokenizerConfig("meta-llama/Llama-2-7b", max_length=None),
                format_fields={"body": "text"},
            ),
            DatasetConfig(
                Path("code.parquet"), num_rows=1000, tokenizer_kwargs={"padding": "longest"}
            ),
        ],
        default_tokenizer="bytes",
        source=SourceStageConfig(
            cloud_retry_delay=0.5, storage_options={"client": {"hosts": ["x"]}}
        ),
        mix=MixStageConfig(
            weight_schedule=[
                WeightSchedulePoint(0, {"no": 0.25, "dataset_1": 0.75}),
                WeightSchedulePoint(100, {"no": 1, "dataset_1": 0}),
            ],
            weight_schedule_type="linear",
        ),
        pack=PackStageConfig(enabled=True, strategy="best_fit"),
        load=LoadStageConfig(batch_size=8),
    )


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "train.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refusal(path: Path) -> str:
    """What loading says, after the path."""
    with pytest.raises(UsageError) as caught:
        load_config(path)
    return str(caught.value).replace(f"{path}: ", "").replace(str(path), "FILE")


def test_golden_yaml(tmp_path: Path, file: Callable[..., Path]) -> None:
    assert load_config(file(GOLDEN)) == golden()
    dump_config(golden(), tmp_path / "again.yml")
    assert (tmp_path / "again.yml").read_text() == GOLDEN
    dump_config(golden(), str(tmp_path / "again.JSON"))
    assert json.loads((tmp_path / "again.JSON").read_text()) == yaml.safe_load(GOLDEN)
    assert load_config(tmp_path / "again.JSON") == golden()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.JSON",
        "again.yml",
        "train.yaml",
    ]


def test_a_byte_order_mark_and_a_shared_part(file: Callable[..., Path]) -> None:
    text = (
        "\ufeffdatasets:\n- &a {data_files: é.txt, name: a, num_rows: 3}\n"
        "- {<<: *a, name: b}\n- {<<: *a, name: c, num_rows: 5}\ndefault_tokenizer: bytes\n"
    )
    datasets = load_config(file(text)).datasets
    assert [(one.data_files, one.name, one.num_rows) for one in datasets] == [
        ("é.txt", "a", 3),
        ("é.txt", "b", 3),
        ("é.txt", "c", 5),
    ]


@settings(max_examples=80)
@given(pipelines())
def test_what_is_read_back_is_equal(config: PipelineConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.yaml", "config.json"):
            dump_config(config, Path(folder, name))
            again = load_config(Path(folder, name))
            assert again == config
            assert again.to_dict() == config.to_dict()
            assert hash(again) == hash(config)


def leaves(value: Any) -> Iterator[Any]:
    """All that is in plain data."""
    yield value
    if type(value) in (dict, list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)


@settings(max_examples=50)
@given(pipelines())
def test_plain_data_is_plain_and_short(config: PipelineConfig) -> None:
    values = config.to_dict()
    kinds = {dict, list, str, int, float, bool, type(None)}
    assert {type(leaf) for leaf in leaves(values)} <= kinds
    assert PipelineConfig.from_dict(values) == config
    for field in dataclasses.fields(config)[4:]:
        stage = getattr(config, field.name)
        changed = {
            one.name for one in dataclasses.fields(stage) if getattr(stage, one.name) != one.default
        }
        assert set(values.get(field.name, {})) == changed


def test_what_no_file_can_hold(tmp_path: Path) -> None:
    config = PipelineConfig(
        [
            DatasetConfig([{"text": "a"}], format_callback=dict.copy),
            DatasetConfig("a", tokenizer=TokenizerConfig(object())),
        ],
        default_tokenizer=object(),
        source={"storage_options": {"a": [float("nan"), b"x"]}},  # type: ignore[arg-type]
        save=SaveStageConfig(hub_token="hf_1"),
    )
    with pytest.raises(UsageError) as caught:
        dump_config(config, tmp_path / "a.yaml")
    cannot = "which no file can hold; set it in Python, with dataclasses.replace."
    kept_out = "keep it out of files: set it in Python, with dataclasses.replace."
    assert str(caught.value).replace("PipelineConfig.", "").splitlines() == [
        f"datasets[0].data_files[0] is of type dict, {cannot}",
        f"datasets[0].format_callback is of type method_descriptor, {cannot}",
        f"datasets[1].tokenizer.name_or_path is of type object, {cannot}",
        f"default_tokenizer is of type object, {cannot}",
        f"source.storage_options.a[0] is nan, {cannot}",
        f"source.storage_options.a[1] is of type bytes, {cannot}",
        f"save.hub_token is a secret; {kept_out}",
    ]
    assert list(tmp_path.iterdir()) == []


DATA = "datasets: [{data_files: a.txt}]\ndefault_tokenizer: bytes\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pack: {seq_len: 3}", "pack.seq_len: unknown; did you mean seq_length?"),
        ("packs: {seq_length: 3}", "packs: unknown; did you mean pack?"),
        ("pack: {1: 3}", "pack.1: unknown; choose one of enabled, seq_length, eos_token_id,"),
        ("pack: {seq_length: '3'}", "pack.seq_length is '3'; it must be a whole number from 1 up."),
        ("pack: {seq_length: null}", "pack.seq_length is None; it must be a whole number from 1"),
        ("pack:", "pack is None; it must be PackStageConfig(…), or a mapping of its fields."),
        ("pack: {enabled: 'true'}", "pack.enabled is 'true'; it must be true or false."),
        ("mix: {weights: {no: 1}}", "mix.weights has the key False; keys must be text. In a file,"),
        (
            "cache: {cache_dir: 2024-01-31}",
            "cache.cache_dir is datetime.date(2024, 1, 31); it must",
        ),
        ("source: {cloud_retry_delay: 1e-3}", "source.cloud_retry_delay is '1e-3'; it must be a n"),
        ("seed: 1\nseed: 2", "FILE, line 4, column 1: the key 'seed' is there twice."),
        ("pack: {seq_length: 1, 'seq_length': 2}", "FILE, line 3, column 23: the key 'seq_length'"),
        ("pack: [1", "FILE, line 3, column 9: expected ',' or ']', but got '<stream end>'."),
        ("pack: !!python/object/apply:os.getcwd []", "FILE, line 3, column 7: could not determine"),
        ("pack: *nothing", "FILE, line 3, column 7: found undefined alias 'nothing'."),
        ("---\na: 1", "FILE, line 3, column 1: but found another document."),
        ("pack: {[a]: 1}", "FILE, line 3, column 8: found unhashable key."),
        ("seed: 2024-13-45", "FILE is no YAML: month must be in 1..12."),
        ("seed: !!int ''", "FILE is no YAML: "),
        ("seed: !!timestamp x", "FILE is no YAML: "),
        ("seed: \x01", "FILE is no YAML: unacceptable character #x0001"),
        ("source: {storage_options: &a {b: *a}}", "FILE is nested too deeply for a configuration."),
    ],
)
def test_what_is_wrong_in_yaml(file: Callable[..., Path], text: str, expected: str) -> None:
    assert refusal(file(DATA + text)).startswith(expected)


def test_no_function_is_imported_by_name(file: Callable[..., Path]) -> None:
    text = "datasets: [{data_files: a, tokenizer: bytes, format_callback: 'os:getcwd'}]"
    assert refusal(file(text)) == (
        "datasets[0].format_callback is the text 'os:getcwd'; functions are never imported by "
        "name. Set it in Python, with dataclasses.replace."
    )


def test_every_line_names_the_file(file: Callable[..., Path]) -> None:
    path = file("datasets: [{data_files: a, num_rows: 0}]\nseed: -1\n")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}: datasets[0].num_rows is 0; ")
    assert second.startswith(f"{path}: seed is -1; ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"seed": 1, "seed": 1}', "the key 'seed' is there twice in a mapping."),
        ('{"pack": {"seq_len": 3}, "datasets": []}', "pack.seq_len: unknown; did you mean seq_l"),
        ('{\n  "a": 1,\n  b\n}', "FILE, line 3, column 3: Expecting property name enclosed in"),
        ('{"seed": NaN}', "NaN is no value of JSON."),
        ("[" * 100_000, "FILE is nested too deeply for a configuration."),
        ("[]", "FILE is no mapping; it must hold the fields of a PipelineConfig"),
        ("", "FILE, line 1, column 1: Expecting value."),
    ],
)
def test_what_is_wrong_in_json(file: Callable[..., Path], text: str, expected: str) -> None:
    message = refusal(file(text, "train.json"))
    assert any(line.startswith(expected) for line in message.splitlines()), message


def test_files_that_are_none(file: Callable[..., Path], tmp_path: Path) -> None:
    assert refusal(file("")).startswith("FILE is empty; it must hold the fields of a PipelineC")
    assert refusal(file("- a")).startswith("FILE is no mapping; ")
    assert refusal(file(b"\xff\xfe")).startswith("Cannot read the configuration 'utf-8' codec")
    assert "No such file" in refusal(tmp_path / "none.yaml")
    assert refusal(tmp_path / "a.toml") == "FILE ends in '.toml'; name it .yaml, .yml or .json."
    with pytest.raises(UsageError, match=r"name it \.yaml, \.yml or \.json"):
        dump_config(golden(), tmp_path / "config")
    with pytest.raises(StorageError, match="Cannot write"):
        dump_config(golden(), tmp_path / "no folder" / "a.yaml")
