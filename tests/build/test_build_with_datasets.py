"""An outside test: what users of datasets do, done on our folder."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

import easydata as ed

from .reports import report
from .support import SMALL, rows, shards, write

ROWS = rows(200)


@pytest.fixture
def folder(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    ed.build(source, out=tmp_path / "out", keep_fields=["id", "text"], **SMALL)
    return tmp_path


@pytest.fixture
def loaded(folder):
    return datasets.load_from_disk(folder / "out")


def tokens(row):
    return [*ROWS[row]["text"].encode(), 256]


def test_rows(loaded):
    assert loaded.num_rows == len(ROWS)
    assert loaded[5] == {"input_ids": tokens(5), "id": 5, "text": ROWS[5]["text"]}
    assert loaded[-1]["id"] == 199
    assert loaded[3:6]["id"] == [3, 4, 5]
    assert [row["id"] for row in loaded] == list(range(200))


def test_map_keeps_its_result_in_our_folder_and_a_rebuild_keeps_it(folder, loaded):
    out = folder / "out"
    before = shards(out)
    mapped = loaded.map(lambda row: {"length": len(row["input_ids"])})
    cached = sorted(out.glob("cache-*.arrow"))
    assert cached
    assert mapped["length"][:] == [len(tokens(i)) for i in range(200)]

    assert report(folder / "a.jsonl", out, keep_fields=["id", "text"]).outcome is None
    ed.open_dataset(out, verify="open")
    write(folder / "a.jsonl", rows(200, seed=1))
    report(folder / "a.jsonl", out, keep_fields=["id", "text"], overwrite=True)
    assert sorted(out.glob("cache-*.arrow")) == cached
    assert not set(before) & set(shards(out))

    # Another content, another fingerprint: no old result is served.
    again = datasets.load_from_disk(out).map(lambda row: {"length": len(row["input_ids"])})
    assert again["length"][:] == [len(row["text"].encode()) + 1 for row in rows(200, seed=1)]
    # And what was opened before still reads what it read.
    assert loaded[7]["input_ids"] == tokens(7)


def test_cleaning_up_leaves_our_files(folder, loaded):
    before = shards(folder / "out")
    loaded.map(lambda row: {"length": len(row["input_ids"])})
    assert loaded.cleanup_cache_files() > 0
    assert shards(folder / "out") == before
    ed.open_dataset(folder / "out", verify="open")


def test_filter_select_shuffle_and_split(loaded):
    assert loaded.filter(lambda row: row["id"] % 3 == 0)["id"][:] == list(range(0, 200, 3))
    assert loaded.select([7, 3])["input_ids"][:] == [tokens(7), tokens(3)]
    assert sorted(loaded.shuffle(seed=1)["id"][:]) == list(range(200))
    parts = loaded.train_test_split(test_size=0.25, seed=1)
    assert {name: part.num_rows for name, part in parts.items()} == {"train": 150, "test": 50}
    assert sorted(parts["train"]["id"][:] + parts["test"]["id"][:]) == list(range(200))


def test_numpy_format_keeps_the_type(loaded):
    row = loaded.with_format("numpy", dtype=None)[4]
    assert row["input_ids"].tolist() == tokens(4)
    assert loaded.features["input_ids"].feature.dtype == "uint16"
    table = loaded.with_format("arrow")[0:2]
    assert table["input_ids"].type.value_type == "uint16"


def test_concatenate_and_stream(loaded):
    both = datasets.concatenate_datasets([loaded, loaded])
    assert both.num_rows == 400
    assert [row["id"] for row in loaded.to_iterable_dataset().take(3)] == [0, 1, 2]


def test_what_datasets_saves_elsewhere_opens_here(folder, loaded):
    loaded.filter(lambda row: row["id"] < 50).save_to_disk(folder / "saved")
    with pytest.warns(UserWarning, match="no easydata ledger"):
        ds = ed.open_dataset(folder / "saved")
    assert len(ds) == 50
    assert ds[9]["input_ids"].tolist() == tokens(9)
    assert ds.column("id").to_pylist() == list(range(50))
    assert ds.num_tokens == sum(len(tokens(i)) for i in range(50))


def test_a_dataset_that_was_read_is_a_source_again(folder, loaded):
    ds = ed.build(loaded, out=folder / "again", keep_fields=["id"], **SMALL)
    assert [ds.decode(i) for i in range(len(ds))] == [row["text"] for row in ROWS]
    assert np.array_equal(
        ds.tokens(0, ds.num_tokens), ed.open_dataset(folder / "out").tokens(0, ds.num_tokens)
    )
