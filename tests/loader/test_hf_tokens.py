"""Datasets of HuggingFace as streams of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

import easydata as ed
from easydata.errors import UsageError
from easydata.loader.hf_tokens import HuggingFaceTokens

RNG = np.random.default_rng(0)
ROWS = [RNG.integers(0, 1000, int(n)).tolist() for n in RNG.integers(0, 60, 300)]
KINDS = {
    "int32": datasets.Sequence(datasets.Value("int32")),
    "int64": datasets.Sequence(datasets.Value("int64")),
    "uint16": datasets.Sequence(datasets.Value("uint16")),
    "large": datasets.LargeList(datasets.Value("int32")),
}


def made(kind: str = "int32", rows: list[list[int]] = ROWS, **other: Any) -> datasets.Dataset:
    features = datasets.Features(
        {"input_ids": KINDS[kind], **{name: datasets.Value("string") for name in other}}
    )
    return datasets.Dataset.from_dict({"input_ids": rows, **other}, features=features)


def stored(dataset: datasets.Dataset, folder: Path, **options: Any) -> datasets.Dataset:
    dataset.save_to_disk(folder, **options)
    return datasets.load_from_disk(folder)


def stream(rows: list[list[int]]) -> list[int]:
    return sum(rows, [])


def read(data: Any, seq_len: int = 16) -> list[int]:
    loader = ed.DataLoader(data, 4, seq_len, shuffle=False, epochs=1, drop_last=False)
    return np.concatenate([batch["input_ids"].ravel() for batch in loader]).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["memory", "disk", "sliced", "concatenated"])
def test_every_token_in_order(kind: str, where: str, tmp_path: Path) -> None:
    dataset, rows = made(kind), ROWS
    if where == "disk":
        dataset = stored(dataset, tmp_path, num_shards=3)
    elif where == "sliced":
        dataset, rows = dataset.select(range(17, 250)), ROWS[17:250]
        assert dataset._indices is None
    elif where == "concatenated":
        dataset = datasets.concatenate_datasets([dataset, dataset.select(range(5, 9))])
        rows = ROWS + ROWS[5:9]
    whole = stream(rows)
    tokens = HuggingFaceTokens(dataset)
    assert tokens.num_tokens == len(whole)
    assert tokens.lengths().tolist() == list(map(len, rows))
    assert read(dataset) == whole[: len(whole) // 16 * 16]
    assert tokens.dtype == (np.int32 if kind == "large" else np.dtype(kind))


def test_rows_in_another_order(tmp_path: Path) -> None:
    dataset = stored(made(), tmp_path).shuffle(seed=3)
    assert dataset._indices is not None
    rows = list(dataset["input_ids"])
    assert rows != ROWS
    whole = stream(rows)
    assert read(dataset) == whole[: len(whole) // 16 * 16]
    picked = dataset.filter(lambda row: len(row["input_ids"]) > 30)
    assert HuggingFaceTokens(picked).lengths().min() > 30
    for strategy in ("greedy", "best_fit"):
        packed = ed.pack(HuggingFaceTokens(dataset), 64, strategy, pad_token_id=0)
        found = packed.read(np.arange(packed.num_samples))
        ids = found["input_ids"][found["loss_mask"]]
        assert sorted(ids.tolist()) == sorted(whole)


def test_batches_are_views_of_the_map(tmp_path: Path) -> None:
    dataset = stored(made(rows=[list(range(900))]), tmp_path)
    loader = ed.DataLoader(dataset, 4, 16, shuffle=False, epochs=1)
    values = dataset.data.column("input_ids").chunk(0).flatten().to_numpy()
    for number, batch in enumerate(loader):
        assert batch["input_ids"].ctypes.data == values[number * 64 :].ctypes.data
    assert loader.stats.views == 14


def test_samples_of_one_length() -> None:
    kind = pa.list_(pa.int32(), 8)
    table = pa.table({"input_ids": pa.array(np.arange(80).reshape(10, 8).tolist(), kind)})
    assert read(datasets.Dataset(table.slice(2)), 8) == list(range(16, 80))


def test_a_view_outlives_the_dataset() -> None:
    dataset = made(rows=[list(range(100))])
    batch = next(iter(ed.DataLoader(dataset, 2, 16, shuffle=False)))["input_ids"]
    del dataset
    assert batch.tolist() == [list(range(16)), list(range(16, 32))]


def test_the_state_belongs_to_the_dataset() -> None:
    one, other = (
        ed.DataLoader(data, 2, 16) for data in (made(), made(rows=[row[::-1] for row in ROWS]))
    )
    next(iter(one))
    with pytest.raises(UsageError, match="another sequence of samples: tokens was"):
        other.load_state_dict(one.state_dict())


def test_other_columns() -> None:
    named = made().rename_column("input_ids", "ids")
    assert read(named) == read(made())
    with pytest.raises(UsageError, match=r"no column 'input_ids' .* only text: string"):
        HuggingFaceTokens(made(text=["x"] * 300).remove_columns("input_ids"))
    two = named.add_column("more", ROWS)
    with pytest.raises(UsageError, match="no column 'input_ids'"):
        HuggingFaceTokens(two)
    assert HuggingFaceTokens(two, "more").num_tokens == HuggingFaceTokens(named).num_tokens


@pytest.mark.parametrize(
    ("rows", "message"),
    [([[1], None, [2]], "rows without tokens"), ([[1, None]], "missing ids")],
)
def test_missing_values(rows: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HuggingFaceTokens(made(rows=rows))


def test_what_is_no_dataset_of_one_split() -> None:
    both = datasets.DatasetDict({"train": made(), "test": made()})
    with pytest.raises(UsageError, match="a DatasetDict is no source of samples"):
        ed.DataLoader(both, 2, 16)
    with pytest.raises(UsageError, match="a IterableDataset is no source of samples"):
        ed.DataLoader(made().to_iterable_dataset(), 2, 16)
