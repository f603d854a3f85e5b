"""A build of samples that is killed leaves the old ones, or none, and is continued."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import easydata as ed

from .killing import OPTIONS, kill_after_new_names, start
from .reports import report
from .support import environment, rows, shards, write


@pytest.fixture
def source(tmp_path) -> Path:
    return write(tmp_path / "a.jsonl", rows(120))


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    source = write(tmp_path / "b.jsonl", rows(400))
    options = ["--seq-len", "32", "--shuffle", "--overwrite"]
    whole = clean(source, tmp_path / "whole", seq_len=32, shuffle=True)
    chance = random.Random(3)
    killed = 0
    for number in range(20):  # a build may be done before this process has its turn
        out = tmp_path / f"out-{number}"
        report(rows(100, seed=5), out, seq_len=16)
        old, new = top(shards(out)), top(whole)
        command = ["build", source, *OPTIONS, "--out", out, *options]
        for _ in range(4):
            killed += kill_after_new_names(start(*command), out, int(2 ** chance.uniform(1, 5.5)))
            ds = ed.open_dataset(out, verify="open")
            assert top_of(ds) in (old, new)
        process = start(*command)
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages.decode()
        assert shards(out) == whole
        assert not list(out.rglob(".*"))
        if killed >= 2:
            break
    assert killed >= 2


def clean(source: Path, folder: Path, **options: object) -> dict[str, bytes]:
    report(source, folder, **options)
    return shards(folder)


def top(found: dict[str, bytes]) -> dict[str, bytes]:
    """The shards of the samples alone."""
    return {name: data for name, data in found.items() if "/" not in name}


def top_of(ds: ed.TokenDataset) -> dict[str, bytes]:
    names = [ds.ledger.shard_name(i) for i in range(ds.ledger.num_shards)]
    return {name: (ds.path / name).read_bytes() for name in names}


KILLED = """
import os, signal, sys
import easydata as ed
from easydata.build import publish, samples, steps

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[3]
if moment == "before the samples":
    steps.make_samples = kill
elif moment == "in the shards":
    samples.IpcShardWriter.finish = kill
elif moment == "before the commit":
    samples.commit = kill
elif moment == "after the documents":
    publish.remove_superseded = kill
elif moment == "after the commit":
    real = samples.commit
    def commit(*arguments, **options):
        publish.remove_superseded = kill
        real(*arguments, **options)
    samples.commit = commit
elif moment == "while documents go":
    real = publish.shutil.rmtree
    def remove(path, **options):
        if os.path.basename(path) == "documents" and os.path.exists(path):
            kill()
        real(path, **options)
    publish.shutil.rmtree = remove
options = {"seq_len": 64} if moment != "while documents go" else {}
ed.build(sys.argv[1], out=sys.argv[2], tokenizer="bytes", workers=1, part_size="4kB",
         shard_size="20kB", overwrite=True, **options)
"""
MOMENTS = [
    *("after the documents", "before the samples", "in the shards", "before the commit"),
    *("after the commit", "while documents go"),
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("before", ["nothing", "samples"])
def test_nothing_is_left_of_a_build_that_is_killed_at(source, out, tmp_path, moment, before):
    if before == "samples" or moment == "while documents go":
        report(rows(50, seed=1), out, seq_len=16)
    arguments = [sys.executable, "-c", KILLED, source, out, moment]
    done = subprocess.run(arguments, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    options = {} if moment == "while documents go" else {"seq_len": 64}
    is_there = moment in ("after the commit", "while documents go")
    report(source, out, overwrite=before == "samples" and not is_there, **options)
    assert shards(out) == clean(source, tmp_path / "clean", **options)
    assert not list(out.rglob(".*"))
    assert (out / "documents").exists() == bool(options)


def test_old_samples_are_not_taken_for_those_of_new_documents(source, out, tmp_path):
    report(write(source, rows(50)), out, seq_len=64)
    old = top(shards(out))
    write(source, rows(120))
    arguments = [sys.executable, "-c", KILLED, source, out, "before the samples"]
    done = subprocess.run(arguments, env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(ed.open_dataset(out / "documents")) == 120
    assert top_of(ed.open_dataset(out)) == old
    with pytest.raises(ed.OutputExistsError, match="other rows"):
        report(source, out, seq_len=64)
    report(source, out, overwrite=True, seq_len=64)
    assert shards(out) == clean(source, tmp_path / "clean", seq_len=64) != old
