"""Equal input and options give equal shard files, whatever happens around them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import datasets
import pytest
import zstandard

import easydata as ed
from tests.bpe import train_bpe

from .support import SMALL, environment, rows, shards, write

ROWS = rows(150)
KINDS = [
    {},
    {"compression": "lz4"},
    {"compression": "zstd"},
    {"compression": "zstd:9"},
    {"compression": "gzip"},
    {"format": "parquet"},
    {"splits": {"a": 0.6, "b": 0.4}},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_number_of_workers_changes_no_byte(tmp_path, kind):
    source = write(tmp_path / "a.jsonl", ROWS)
    found = []
    for workers in (1, 2, 4):
        out = tmp_path / str(workers)
        options = {**SMALL, "shard_size": "5kB", "keep_fields": ["id"], **kind}
        ed.build(source, out=out, workers=workers, **options)
        found.append(shards(out))
    assert len(found[0]) > 1
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_threads_that_share_a_tokenizer_change_no_byte(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS * 4)
    found = []
    for workers in (1, 2, 6):
        out = tmp_path / str(workers)
        ed.build(source, out=out, workers=workers, **{**SMALL, "tokenizer": train_bpe()})
        found.append(shards(out))
    assert len(found[0]) > 1
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_the_hash_seed_changes_no_byte(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    for seed in ("0", "1"):
        program = (
            "import easydata as ed, sys;"
            "ed.build(sys.argv[1], out=sys.argv[2], tokenizer='bytes', workers=1,"
            " part_size='4kB', shard_size='20kB', keep_fields=['id'])"
        )
        subprocess.run(
            [sys.executable, "-c", program, source, tmp_path / seed],
            env=environment(PYTHONHASHSEED=seed),
            check=True,
        )
    assert shards(tmp_path / "0") == shards(tmp_path / "1")


def test_the_order_in_which_a_folder_lists_its_files_changes_nothing(tmp_path, monkeypatch):
    for number in (3, 1, 2, 10):
        write(tmp_path / "in" / f"sub{number % 2}" / f"{number}.jsonl", rows(40, seed=number))
    ed.build(tmp_path / "in", out=tmp_path / "one", **SMALL)
    real = os.walk

    def backwards(top, *args, **kwargs):
        for folder, folders, files in real(top, *args, **kwargs):
            folders.reverse()
            yield folder, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    ed.build(tmp_path / "in", out=tmp_path / "two", **SMALL)
    assert shards(tmp_path / "one") == shards(tmp_path / "two")


def test_compression_of_the_input_changes_no_byte(tmp_path):
    plain = write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    found = []
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        out = tmp_path / f"out {name}"
        ed.build(tmp_path / name, out=out, **SMALL)
        found.append(shards(out))
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_a_generator_a_list_and_an_iterable_give_the_same_bytes(tmp_path):
    ed.build((dict(row) for row in ROWS), out=tmp_path / "generator", **SMALL)
    ed.build(ROWS, out=tmp_path / "list", **SMALL)
    lazy = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    ed.build(lazy, out=tmp_path / "lazy", **SMALL)
    assert shards(tmp_path / "generator") == shards(tmp_path / "list") == shards(tmp_path / "lazy")


def test_every_kind_of_source_gives_the_same_rows(tmp_path):
    frame = datasets.Dataset.from_list(ROWS)
    sources = {"file": write(tmp_path / "a.jsonl", ROWS), "list": ROWS, "dataset": frame}
    for name, source in sources.items():
        ds = ed.build(source, out=tmp_path / name, keep_fields=["id"], **SMALL)
        assert [ds.decode(i) for i in range(len(ds))] == [row["text"] for row in ROWS]
        assert ds.column("id").to_pylist() == [row["id"] for row in ROWS]


def test_small_files_and_one_large_file_give_the_same_tokens(tmp_path):
    for i, row in enumerate(ROWS):
        write(tmp_path / "in" / f"{i:04}.jsonl", [row])
    many = ed.build(tmp_path / "in", out=tmp_path / "many", **SMALL)
    one = ed.build(write(tmp_path / "a.jsonl", ROWS), out=tmp_path / "one", **SMALL)
    assert many.to_table()["input_ids"].to_pylist() == one.to_table()["input_ids"].to_pylist()
    assert many.lineage(7) == (str(tmp_path / "in" / "0007.jsonl"), 0)
    assert one.lineage(7) == (str(tmp_path / "a.jsonl"), 7)
