"""Splits by content."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import datasets
import pytest

import easydata as ed

from .reports import report
from .support import SMALL, everything, rows, shards, texts, write

SPLITS = {"train": 0.8, "validation": 0.15, "test": 0.05}
ROWS = rows(1500, seed=5)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splits")
    source = write(folder / "a.jsonl", ROWS)
    found = ed.build(source, out=folder / "out", splits=SPLITS, keep_fields=["id"], **SMALL)
    return folder, found


def numbers(ds: ed.TokenDataset) -> list[int]:
    return ds.column("id").to_pylist()


def test_shares_are_about_as_asked(split):
    _, found = split
    assert list(found) == list(SPLITS)
    for name, share in SPLITS.items():
        deviation = (share * (1 - share) * len(ROWS)) ** 0.5
        assert abs(len(found[name]) - share * len(ROWS)) < 4 * deviation


def test_all_splits_together_are_all_rows_in_order(split):
    _, found = split
    for ds in found.values():
        assert numbers(ds) == sorted(numbers(ds))
        for i, number in enumerate(numbers(ds)):
            assert ds.decode(i) == ROWS[number]["text"]
            assert ds.lineage(i).record == number
    assert sorted(sum(map(numbers, found.values()), [])) == list(range(len(ROWS)))


def test_a_row_is_in_the_split_of_its_text_alone(split, tmp_path):
    _, found = split
    split_of = {ROWS[n]["text"]: name for name, ds in found.items() for n in numbers(ds)}
    chosen = [{"text": text} for text in sorted(split_of)[::7]] * 2
    again = ed.build(chosen, tokenizer="bytes", out=tmp_path / "o", splits=SPLITS)
    count = 0
    for name, ds in again.items():
        for i in range(len(ds)):
            assert split_of[ds.decode(i)] == name
            count += 1
    assert count == len(chosen)


def test_more_training_data_moves_no_row_out_of_training(tmp_path):
    given = [{"text": text} for text in texts(400, seed=8)]
    small = ed.build(given, tokenizer="bytes", out=tmp_path / "s", splits={"a": 0.7, "b": 0.3})
    large = ed.build(given, tokenizer="bytes", out=tmp_path / "l", splits={"a": 0.9, "b": 0.1})
    inner = {small["a"].decode(i) for i in range(len(small["a"]))}
    outer = {large["a"].decode(i) for i in range(len(large["a"]))}
    assert inner < outer


def test_datasets_opens_all_splits(split):
    folder, found = split
    loaded = datasets.load_from_disk(folder / "out")
    assert isinstance(loaded, datasets.DatasetDict)
    assert list(loaded) == list(SPLITS)
    for name, ds in found.items():
        assert loaded[name]["id"][:] == numbers(ds)
        assert loaded[name].split == name
        assert datasets.load_from_disk(folder / "out" / name).num_rows == len(ds)


def test_opening_says_which_splits_there_are(split):
    folder, found = split
    with pytest.raises(ed.NotADatasetError, match="train, validation, test"):
        ed.open_dataset(folder / "out")
    with pytest.raises(ed.NotADatasetError, match="'dev'"):
        ed.open_dataset(folder / "out", split="dev")
    assert len(ed.open_dataset(folder / "out", split="test")) == len(found["test"])
    assert {k: len(v) for k, v in ed.open_splits(folder / "out").items()} == {
        k: len(v) for k, v in found.items()
    }


def test_an_empty_split_opens_everywhere(tmp_path):
    out = tmp_path / "out"
    found = ed.build(
        [{"text": "one"}], tokenizer="bytes", out=out, splits={"a": 0.999999, "b": 0.000001}
    )
    assert [len(ds) for ds in found.values()] == [1, 0]
    assert datasets.load_from_disk(out)["b"].num_rows == 0
    for ds in found.values():
        ds.verify()


def test_one_split_is_allowed(tmp_path):
    found = ed.build(rows(5), tokenizer="bytes", out=tmp_path / "out", splits={"all": 1})
    assert len(found["all"]) == 5


def test_a_second_build_is_a_hit(split):
    folder, _ = split
    before = everything(folder / "out")
    again = report(folder / "a.jsonl", folder / "out", splits=SPLITS, keep_fields=["id"])
    assert again.outcome is None
    assert everything(folder / "out") == before


@pytest.mark.parametrize("was_split", [True, False])
def test_with_overwrite_a_dataset_becomes_splits_and_back(tmp_path, was_split):
    source = write(tmp_path / "a.jsonl", ROWS[:200])
    out = tmp_path / "out"
    kinds = [{"splits": SPLITS}, {}]
    first, second = kinds if was_split else kinds[::-1]
    report(source, out, **first)
    with pytest.raises(ed.OutputExistsError, match="splits changed: "):
        report(source, out, **second)
    report(source, out, overwrite=True, **second)
    report(source, tmp_path / "clean", **second)
    assert shards(out) == shards(tmp_path / "clean")
    assert sorted(p.name for p in out.iterdir() if not p.name.startswith("ledger-")) == sorted(
        p.name for p in (tmp_path / "clean").iterdir() if not p.name.startswith("ledger-")
    )
    loaded = datasets.load_from_disk(out)
    assert isinstance(loaded, datasets.Dataset if was_split else datasets.DatasetDict)


def test_other_splits_replace_the_old_ones(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS[:200])
    out = tmp_path / "out"
    report(source, out, splits=SPLITS)
    (out / "test" / "mine.txt").write_text("x")
    report(source, out, overwrite=True, splits={"train": 0.5, "held_out": 0.5})
    assert sorted(ed.open_splits(out)) == ["held_out", "train"]
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["held_out", "test", "train"]
    assert [p.name for p in (out / "test").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("before", ["nothing", "dataset", "splits"])
def test_splits_are_visible_all_or_none_at_every_rename(tmp_path, monkeypatch, before):
    source = write(tmp_path / "a.jsonl", ROWS[:100])
    old_source = write(tmp_path / "old.jsonl", ROWS[100:150])
    real = os.replace
    for number in range(1000):
        out = tmp_path / f"out-{number}"
        if before != "nothing":
            report(old_source, out, splits=SPLITS if before == "splits" else None)
        calls = 0

        def fail_one(origin, target, number=number):
            nonlocal calls
            calls += 1
            if calls - 1 == number:
                raise OSError(errno.ENOSPC, "full")
            real(origin, target)

        options = {"splits": SPLITS, "part_size": "100kB", "overwrite": True}
        monkeypatch.setattr(os, "replace", fail_one)
        try:
            report(source, out, **options)
        except ed.StorageError:
            monkeypatch.setattr(os, "replace", real)
        else:
            monkeypatch.setattr(os, "replace", real)
            break
        assert visible_rows(out) in (0, 100, 50 if before != "nothing" else 0)
        report(source, out, **options)
        assert visible_rows(out) == 100
    assert calls == number
    assert number > 10


def visible_rows(out: Path) -> int:
    """Rows of what opens at `out`: one dataset, or all splits; 0 if neither does."""
    try:
        return len(ed.open_dataset(out, verify="open"))
    except ed.NotADatasetError:
        pass
    try:
        return sum(len(ds) for ds in ed.open_splits(out, verify="open").values())
    except ed.NotADatasetError:
        return 0
