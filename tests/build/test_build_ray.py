"""Builds whose tokenizing runs on Ray give the same bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import ray

import easydata as ed
from easydata.engine import ProcessEngine, RayEngine, SerialEngine
from tests.rays import small_ray

from .support import SMALL, environment, rows, shards, write

ROWS = rows(150)


@pytest.fixture(scope="module")
def on_ray():
    with small_ray(), RayEngine(2, modules=["easydata.build.task"]) as engine:
        yield engine


@pytest.mark.parametrize(
    "kind", [{}, {"compression": "zstd", "splits": {"a": 0.6, "b": 0.4}}, {"format": "parquet"}]
)
def test_the_engine_changes_no_byte(tmp_path, on_ray, kind):
    source = write(tmp_path / "a.jsonl", ROWS)
    options = {**SMALL, "shard_size": "5kB", "keep_fields": ["id"], **kind}
    found = []
    with ProcessEngine(2) as processes:
        for number, engine in enumerate([on_ray, SerialEngine(), processes]):
            ed.build(source, out=tmp_path / str(number), engine=engine, **options)
            found.append(shards(tmp_path / str(number)))
    assert len(found[0]) > 1
    assert found[1] == found[0]
    assert found[2] == found[0]


SCRIPT = """
import sys
import easydata as ed
from easydata.engine import RayEngine

def encode(texts):
    return [list(text.encode()) for text in texts]

tokenizer = ed.CallableTokenizer(encode, vocab_size=300, identity="bytes here", eos_id=0)
with RayEngine(1, address=sys.argv[1], resources_per_worker={"CPU": 0}) as engine:
    ed.build("a.jsonl", out="out", tokenizer=tokenizer, part_size="4kB", engine=engine)
"""


def test_a_tokenizer_of_the_script_itself_runs_on_ray(tmp_path, on_ray):
    write(tmp_path / "a.jsonl", ROWS)
    address = ray.get_runtime_context().gcs_address
    subprocess.run(
        [sys.executable, "-c", SCRIPT, address], cwd=tmp_path, env=environment(), check=True
    )
    ds = ed.open_dataset(tmp_path / "out")
    expected = [[*row["text"].encode(), 0] for row in ROWS]
    assert ds.to_table()["input_ids"].to_pylist() == expected


def test_a_tokenizer_that_no_other_process_can_find_is_told(tmp_path, on_ray):
    tokenizer = ed.CallableTokenizer(lambda texts: [], vocab_size=9, identity="lost", eos_id=0)
    with pytest.raises(ed.TokenizerError, match="top level of a module"):
        ed.build(ROWS, out=tmp_path / "out", tokenizer=tokenizer, engine=on_ray)


def test_a_broken_row_is_told_by_file_and_line(tmp_path, on_ray):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "good"}\n{"text": \n')
    with pytest.raises(ed.BadRowError, match=r"a\.jsonl, row 1 \(line 2\)"):
        ed.build(source, out=tmp_path / "out", engine=on_ray, **SMALL)
    assert not (tmp_path / "out").exists()
