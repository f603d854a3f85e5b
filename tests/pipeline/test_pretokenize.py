"""Rows that a function makes into columns."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import easydata as ed
from easydata.pipeline.pretokenize import pretokenize

from .saved import ROWS, data_files, read_all

Row = dict[str, Any]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two files; the blocks they are read in are small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[pretokenize.__module__], "_BLOCK_BYTES", 500)
    for number, rows in enumerate((ROWS[:70], ROWS[70:])):
        Path(f"part-{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["part-0.jsonl", "part-1.jsonl"]


def to_columns(row: Row) -> Row | None:
    if row["id"] % 10 == 9:
        return None
    ids = list(row["text"].encode())
    return {"input_ids": ids, "labels": np.array([-100, *ids[1:]]), "lang": row["lang"]}


def expected(rows: list[Row] = ROWS) -> list[Row]:
    made = [to_columns(row) for row in rows]
    return [{**row, "labels": row["labels"].tolist()} for row in made if row is not None]


@pytest.mark.parametrize("form", ["arrow", "parquet", "jsonl"])
def test_rows_in_order(data: list[str], form: Any) -> None:
    path = pretokenize(data, to_columns, "out", output_format=form, num_shards=3)
    assert path == Path("out").absolute()
    assert len(data_files(Path(path))) == 3
    assert read_all(Path(path)) == expected()
    if form == "arrow":
        assert datasets.load_from_disk(path).to_list() == expected()
        tokens = ed.open_dataset(path, verify="open")
        assert tokens.schema == pa.schema(
            {
                "input_ids": pa.list_(pa.int32()),
                "labels": pa.list_(pa.int32()),
                "lang": pa.string(),
            }
        )
        assert tokens.metadata.num_examples == len(expected())
    if form == "parquet":
        assert pd.read_parquet(path)["labels"][5].tolist() == expected()[5]["labels"]
        assert pl.read_parquet(Path(path) / "*.parquet").to_dicts() == expected()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: iter(ROWS),
        lambda: datasets.Dataset.from_list(ROWS),
        lambda: pd.DataFrame(ROWS),
        lambda: pl.DataFrame(ROWS),
        lambda: pa.Table.from_pylist(ROWS).to_reader(),
    ],
)
def test_objects(tmp_path: Path, make: Callable[[], Any]) -> None:
    assert read_all(Path(pretokenize(make(), to_columns, tmp_path / "o"))) == expected()


def shift(row: Row) -> Row:
    return {"input_ids": [byte + 1 for byte in row["text"].encode()]}


def test_hits_and_reasons(data: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "easydata")
    calls = []

    def counting(row: Row) -> Row | None:
        calls.append(row["id"])
        return to_columns(row)

    def run(function: Any = counting, version: str | None = "1", **options: Any) -> list[str]:
        caplog.clear()
        calls.clear()
        pretokenize(data, function, "out", transform_version=version, **options)
        return [record.message for record in caplog.records]

    assert "rows in 1 file," in run()[0]
    assert len(calls) >= 120
    out = Path("out").absolute()
    assert run() == [f"{out} is up to date; nothing to do."]
    assert not calls
    (reason, _, _) = run(version="2")
    assert reason == (f"{out} is made anew: the transform changed: version was '1' and is '2'.")
    with Path(data[1]).open("a") as file:
        file.write('{"text": "more", "id": 120, "lang": "de"}\n')
    (reason, _, _) = run(version="2")
    assert reason == f"{out} is made anew: the content of part-1.jsonl changed."
    more = [*ROWS, {"text": "more", "id": 120, "lang": "de"}]
    assert read_all(Path("out")) == expected(more)
    (reason, *_) = run(version="2", num_shards=2)
    assert "num_shards was None and is 2" in reason
    (reason, *_) = run(shift, None, num_shards=2)
    assert "it is another function" in reason
    assert read_all(Path("out"))[1]["input_ids"] == [byte + 1 for byte in b"abc1"]
    assert run(shift, None, num_shards=2) == [f"{out} is up to date; nothing to do."]


def test_a_dataset_is_a_hit_and_rows_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "easydata")
    for source, found in ((datasets.Dataset.from_list(ROWS), True), (ROWS, False)):
        out = tmp_path / str(found)
        pretokenize(source, to_columns, out)
        caplog.clear()
        pretokenize(source, to_columns, out)
        assert ("nothing to do" in caplog.records[0].message) is found
        if not found:
            assert "nobody knows whether the rows of list are the same" in caplog.text


def test_other_results_stay(data: list[str], tmp_path: Path) -> None:
    Path("theirs").mkdir()
    Path("theirs/notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ed.OutputExistsError, match=r"notes\.txt"):
            pretokenize(data, to_columns, "theirs", overwrite=overwrite)
    ed.build(data, tokenizer="bytes", out="built", progress="none")
    with pytest.raises(ed.OutputExistsError, match="another result"):
        pretokenize(data, to_columns, "built")
    pretokenize(data, to_columns, "built", overwrite=True)
    assert read_all(Path("built")) == expected()
    with pytest.raises(ed.UsageError, match="lies in the input"):
        pretokenize(str(tmp_path), to_columns, "out")


def test_a_row_that_fails(data: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def fail(row: Row) -> Row:
        if row["id"] in (75, 76, 119):
            raise ValueError("odd")
        return {"input_ids": [row["id"]]}

    with pytest.raises(
        ed.BadRowError, match=r"part-1.jsonl, .*line 6.*fail raised ValueError: odd.*on_error"
    ) as error:
        pretokenize(data, fail, "out")
    assert isinstance(error.value.__cause__, ValueError)
    assert not Path("out").exists()
    pretokenize(data, fail, "out", on_error="skip")
    ids = [row["input_ids"][0] for row in read_all(Path("out"))]
    assert ids == [number for number in range(119) if number not in (75, 76)]
    assert "3 rows left out because they are broken" in caplog.text


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([1, 2.5], r"field 'input_ids' is \[1, 2.5\], not list<item: int32>.*schema="),
        ([1, 2**40], r"field 'input_ids' is"),
        ([True], r"field 'input_ids' is \[True\]"),
        ("text", r"field 'input_ids' is 'text'"),
        (np.array([2**31]), r"field 'input_ids' is array"),
    ],
)
def test_types_are_enforced(tmp_path: Path, value: Any, match: str) -> None:
    rows = [{"n": number} for number in range(1500)]

    def late(row: Row) -> Row:
        return {"input_ids": value if row["n"] == 1400 else [1, 2]}

    with pytest.raises(ed.BadRowError, match=rf"rows of list, row 1400: {match}"):
        pretokenize(rows, late, tmp_path / "o", transform_version="1")


def test_a_column_that_comes_late(tmp_path: Path) -> None:
    rows = [{"n": number} for number in range(1500)]

    def late(row: Row) -> Row:
        return {"a": row["n"], **({"b": [1]} if row["n"] == 1400 else {})}

    with pytest.raises(ed.BadRowError, match=r"row 1400: .*the column 'b', which no sampled row"):
        pretokenize(rows, late, tmp_path / "o")
    made = pretokenize(rows, late, tmp_path / "o", schema={"b": pa.list_(pa.uint16())})
    table = datasets.load_from_disk(made).data.table
    assert table.schema.field("b").type == pa.list_(pa.uint16())
    assert table["b"].null_count == 1499
    assert table["b"][1400].as_py() == [1]


def test_types_follow_from_values(tmp_path: Path) -> None:
    def make(row: Row) -> Row:
        number = row["n"]
        return {
            "small": np.array([number], np.uint16),
            "large": [2**40 + number],
            "score": number / 2,
            "maybe": None if number else "x",
            "vector": np.array([0.5], np.float32),
        }

    made = pretokenize([{"n": n} for n in range(3)], make, tmp_path / "o", output_format="parquet")
    assert read_all(Path(made))[2] == {
        "small": [2],
        "large": [2**40 + 2],
        "score": 1.0,
        "maybe": None,
        "vector": [0.5],
    }
    schema = pa.parquet.read_schema(data_files(Path(made))[0]).remove_metadata()
    assert [str(item.type) for item in schema] == [
        "list<element: uint16>",
        "list<element: int64>",
        "double",
        "string",
        "list<element: float>",
    ]


def test_one_object_for_all_rows(tmp_path: Path) -> None:
    shared: Row = {"input_ids": np.zeros(2, np.int64), "tags": []}

    def reuse(row: Row) -> Row:
        shared["input_ids"][:] = row["n"]
        shared["tags"][:] = [f"t{row['n']}"]
        return shared

    rows = [{"n": number} for number in range(4)]
    made = pretokenize(rows, reuse, tmp_path / "o", transform_version="1")
    assert read_all(Path(made)) == [{"input_ids": [n, n], "tags": [f"t{n}"]} for n in range(4)]


def test_wrong_arguments(data: list[str]) -> None:
    for options, match in (
        ({"output_format": "csv"}, "output_format is 'csv'"),
        ({"on_error": "skp"}, "on_error is 'skp'; did you mean skip"),
        ({"hash_fn": "x"}, "hash_fn is 'x'"),
        ({"num_shards": 0}, "num_shards is 0"),
        ({"schema": {"a": "listy"}}, "no Arrow type"),
        ({"compression": "gzip"}, "IPC has no gzip"),
    ):
        with pytest.raises(ed.UsageError, match=match):
            pretokenize(data, to_columns, "out", **options)  # type: ignore[arg-type]
    with pytest.raises(ed.SourceError, match="no sampled row came through"):
        pretokenize(data, lambda row: None, "out")
    assert not Path("out").exists()
