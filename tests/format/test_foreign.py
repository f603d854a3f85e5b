"""Folders that `datasets.Dataset.save_to_disk` wrote, opened by easydata."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import easydata as ed
from easydata.errors import CorruptShardError, DatasetError

ROWS = 2500  # `datasets` writes at most 1,000 rows in a batch


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def documents() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 60_000, n).tolist() for n in rng.integers(0, 20, ROWS)]


def saved(folder: Path, kind: Any, **options: Any) -> datasets.Dataset:
    rows = datasets.Dataset.from_dict(
        {"input_ids": documents(), "name": [f"row {i}" for i in range(ROWS)]},
        features=datasets.Features({"input_ids": kind, "name": datasets.Value("string")}),
    )
    rows.save_to_disk(folder, **options)
    return rows


def open_foreign(folder: Path, **options: Any) -> ed.TokenDataset:
    with pytest.warns(UserWarning, match="saved by HuggingFace datasets.*no checksums"):
        return ed.open_dataset(folder, **options)


@pytest.mark.parametrize("dtype", ["uint16", "int64"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("make_list", [datasets.List, datasets.LargeList])
def test_same_rows(tmp_path: Path, dtype: str, shards: int, make_list: Any) -> None:
    saved(tmp_path / "hf", make_list(datasets.Value(dtype)), num_shards=shards)
    ds = open_foreign(tmp_path / "hf")
    stream = [token for row in documents() for token in row]
    assert (len(ds), ds.num_tokens, ds.dtype) == (ROWS, len(stream), np.dtype(dtype))
    assert ds.ledger.num_shards == shards
    assert len(ds.ledger.batch_offsets) == 3
    assert ds.to_table()["input_ids"].to_pylist() == documents()
    assert ds[1234]["name"] == "row 1234"
    assert ds[1234]["input_ids"].tolist() == documents()[1234]
    assert ds.tokens(7, len(stream) - 7).tolist() == stream[7:-7]
    starts = np.arange(0, len(stream) - 50, 37)
    assert ds.gather(starts, 50).tolist() == [stream[s : s + 50] for s in starts.tolist()]
    assert ds.take([-1, 5])["name"].to_pylist() == [f"row {ROWS - 1}", "row 5"]
    ds.verify()
    assert ds.metadata.source_hash is None
    with pytest.raises(DatasetError, match="records no lineage"):
        ds.lineage(0)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_what_datasets_saves_again_from_ours(tmp_path: Path, compression: str) -> None:
    texts = [{"text": f"text number {i}"} for i in range(ROWS)]
    ours = ed.build(
        texts, tokenizer="bytes", out=tmp_path / "ours", compression=compression, part_size=8192
    )
    datasets.load_from_disk(str(tmp_path / "ours")).save_to_disk(tmp_path / "theirs", num_shards=2)
    again = open_foreign(tmp_path / "theirs", verify="open")
    assert again.dtype == ours.dtype
    assert again.to_table().to_pylist() == ours.to_table().to_pylist()
    assert again.tokens(0, again.num_tokens).tolist() == ours.tokens(0, ours.num_tokens).tolist()


def test_opening_ours_does_not_warn(tmp_path: Path) -> None:
    ed.build([{"text": "a"}], tokenizer="bytes", out=tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ed.open_dataset(tmp_path / "ours")) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": ["a"], "id": [1]},
            "no column 'input_ids' .*; its columns are text, id",
        ),
        ({"input_ids": ["a"]}, "of type string, which is no list of token ids"),
        ({"input_ids": [1]}, "of type int.*, which is no list"),
        ({"input_ids": [[0.5]]}, "of type list<.*double>, which is no list"),
        ({"input_ids": [["a"]]}, "of type list<.*string>, which is no list"),
    ],
)
def test_no_tokens(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "hf")
    with pytest.warns(UserWarning, match="saved by"), pytest.raises(DatasetError, match=message):
        ed.open_dataset(tmp_path / "hf")


@pytest.mark.parametrize("damage", ["missing", "empty", "no stream", "cut"])
def test_broken_shards_name_the_file(tmp_path: Path, damage: str) -> None:
    saved(tmp_path / "hf", datasets.List(datasets.Value("uint16")), num_shards=2)
    path = tmp_path / "hf" / "data-00001-of-00002.arrow"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "no stream": b"x" * 1000, "cut": data[:-999]}[damage])
    with (
        pytest.warns(UserWarning, match="saved by"),
        pytest.raises(CorruptShardError, match=r"data-00001-of-00002\.arrow cannot be read"),
    ):
        ed.open_dataset(tmp_path / "hf")


def test_no_rows(tmp_path: Path) -> None:
    rows = saved(tmp_path / "hf", datasets.List(datasets.Value("uint16")))
    rows.select([]).save_to_disk(tmp_path / "none")
    with pytest.warns(UserWarning, match="saved by"), pytest.raises(DatasetError, match="no "):
        ed.open_dataset(tmp_path / "none")


def test_the_state_of_a_loader_belongs_to_one_of_them(tmp_path: Path) -> None:
    for name, shift in (("one", 0), ("two", 1)):
        rows = [[token + shift for token in range(i % 50)] for i in range(200)]
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / name)
    one, two = (open_foreign(tmp_path / name) for name in ("one", "two"))
    state = json.loads((tmp_path / "one" / "state.json").read_text())
    assert one.fingerprint == state["_fingerprint"]
    loader = ed.DataLoader(one, 2, 16)
    next(iter(loader))
    ed.DataLoader(open_foreign(tmp_path / "one"), 2, 16).load_state_dict(loader.state_dict())
    with pytest.raises(ed.UsageError, match="belongs to another sequence of samples: tokens was"):
        ed.DataLoader(two, 2, 16).load_state_dict(loader.state_dict())
