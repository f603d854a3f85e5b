"""create_pipeline and tokenize_and_save."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import easydata as ed
from easydata.pipeline.config import DatasetConfig, LoadStageConfig, TokenizerConfig
from easydata.pipeline.functions import create_pipeline, tokenize_and_save
from easydata.pipeline.pipeline import Pipeline

from .saved import EXPECTED, ROWS, read_all


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return "data.jsonl"


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        (Path("a.jsonl"), ["a.jsonl"]),
        (["a.jsonl", Path("b.jsonl")], ["a.jsonl", "b.jsonl"]),
        ([["a.jsonl", "b.jsonl"]], [("a.jsonl", "b.jsonl")]),
        (DatasetConfig("a.jsonl"), ["a.jsonl"]),
        ({"data_files": "a.jsonl"}, ["a.jsonl"]),
        ([{"data_files": "a.jsonl"}, DatasetConfig("b"), "c"], ["a.jsonl", "b", "c"]),
    ],
)
def test_datasets(datasets: Any, expected: list[Any]) -> None:
    pipeline = create_pipeline(datasets, "bytes")
    assert isinstance(pipeline, Pipeline)
    assert [dataset.data_files for dataset in pipeline.config.datasets] == expected
    assert pipeline.config.default_tokenizer == "bytes"


def test_options_of_the_pipeline_and_of_stages() -> None:
    config = create_pipeline(
        "a",
        "bytes",
        seed=3,
        streaming=False,
        seq_length=64,
        cache_dir="c",
        load={"batch_size": 2},
        drop_last=False,
        pack={"enabled": True},
        dask_storage_options={"anon": True},
    ).config
    assert (config.seed, config.streaming) == (3, False)
    assert (config.pack.seq_length, config.pack.enabled) == (64, True)
    assert config.cache.cache_dir == "c"
    assert (config.load.batch_size, config.load.drop_last) == (2, False)
    assert config.source.storage_options == {"anon": True}
    config = create_pipeline(
        "a", "bytes", drop_last=False, load=LoadStageConfig(batch_size=3)
    ).config
    assert (config.load.batch_size, config.load.drop_last) == (3, False)


def test_wrong_options() -> None:
    with pytest.raises(ed.UsageError) as error:
        create_pipeline("a", "bytes", batch_size=8, seq_lenght=3, qqqq=1)
    lines = str(error.value).split("\n")
    assert lines[0] == (
        "batch_size: a field of tokenize and load; say which with "
        "tokenize={'batch_size': 8} or load={'batch_size': 8}."
    )
    assert lines[1] == "seq_lenght: unknown; did you mean seq_length?"
    assert lines[2].startswith("qqqq: unknown; choose one of streaming, seed, source")
    with pytest.raises(ed.UsageError, match=r"seq_length is 0"):
        create_pipeline("a", "bytes", seq_length=0)
    with pytest.raises(ed.UsageError, match=r"drop_last is given twice: .* load=…"):
        create_pipeline("a", "bytes", drop_last=True, load={"drop_last": False})
    with pytest.raises(ed.UsageError, match=r"load is 3"):
        create_pipeline("a", "bytes", drop_last=True, load=3)
    with pytest.raises(ed.UsageError, match="tokenizer is None"):
        create_pipeline("a")


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_tokenize_and_save(data: str, form: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "easydata")

    def run(**options: Any) -> Any:
        return tokenize_and_save(
            data,
            "bytes",
            Path("out"),
            form,
            additional_fields=["id", "lang"],
            progress_enabled=False,
            **options,
        )

    path = run()
    assert isinstance(path, Path)
    assert read_all(path) == EXPECTED
    caplog.clear()
    assert run() == path
    assert "is up to date" in caplog.records[0].message
    assert "saved there already" in caplog.records[1].message
    with pytest.raises(ed.OutputExistsError):
        run(max_length=4)
    run(max_length=4, overwrite=True, save={"num_shards": 2})
    assert [row["input_ids"] for row in read_all(path)] == [
        [*row["input_ids"][:3], 256] if len(row["input_ids"]) > 4 else row["input_ids"]
        for row in EXPECTED
    ]


def test_files_by_the_value_of_a_field(data: str) -> None:
    path = tokenize_and_save(
        data,
        "bytes",
        "out",
        additional_fields=["lang"],
        shard_column="lang",
        num_shards=3,
        progress_enabled=False,
    )
    assert isinstance(path, Path)
    assert len([*path.glob("data-*.parquet")]) == 3


def test_a_tokenizer_with_its_own_length(data: str) -> None:
    tokenizer = TokenizerConfig("bytes", max_length=3)
    path = tokenize_and_save(data, tokenizer, "out", "jsonl", progress_enabled=False)
    assert isinstance(path, Path)
    assert max(len(row["input_ids"]) for row in read_all(path)) == 3
    with pytest.raises(ed.UsageError, match=r"max_length is 9.*configuration of its own"):
        tokenize_and_save(data, tokenizer, "out", "jsonl", 9)


def test_to_a_url(data: str) -> None:
    assert tokenize_and_save(data, "bytes", "memory://t/o", progress_enabled=False) == (
        "memory://t/o"
    )


def test_a_pipeline_that_saves(data: str) -> None:
    pipeline = create_pipeline(
        [data, {"data_files": data, "name": "own", "save_path": "own", "num_rows": 5}],
        "bytes",
        save={"enabled": True, "output_dir": "all"},
        pack={"enabled": True, "pad_token_id": 0},
        seq_length=16,
        progress_enabled=False,
    )
    pipeline.source().build()
    saved = pipeline.get_context().saved
    assert {name: Path(path).name for name, path in saved.items()} == {
        "dataset_0": "dataset_0",
        "own": "own",
    }
    assert all(len(row["input_ids"]) == 16 for row in read_all(Path(saved["own"])))
