"""A build that is killed at random moments continues, and ends with the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

import easydata as ed

from .killing import OPTIONS, build_with_kills, kill_after_new_names, start
from .support import environment, rows, shards, write


def test_killed_builds_end_with_the_same_bytes(tmp_path):
    source = write(tmp_path / "a.jsonl", rows(400))
    ed.build(source, out=tmp_path / "whole", tokenizer="bytes", part_size="4kB", shard_size="20kB")
    whole = shards(tmp_path / "whole")
    assert len(whole) > 4
    killed = 0
    for number in range(1, 21):  # a build may be done before this process has its turn
        out = tmp_path / f"out-{number}"
        command = ["build", source, *OPTIONS, "--out", out]
        killed += build_with_kills(command, out, kills=5, seed=number, whole=whole)
        if killed >= 3:
            break
    assert killed >= 3


def test_the_old_dataset_stays_until_the_new_one_is_complete(tmp_path):
    sizes = {"tokenizer": "bytes", "part_size": "4kB", "shard_size": "20kB"}
    source = write(tmp_path / "a.jsonl", rows(400, seed=1))
    ed.build(source, out=tmp_path / "whole", **sizes)
    whole = shards(tmp_path / "whole")
    old_source = write(tmp_path / "old.jsonl", rows(300, seed=2))
    killed = 0
    for number in range(2, 22):
        out = tmp_path / f"out-{number}"
        ed.build(old_source, out=out, **sizes)
        command = ["build", source, *OPTIONS, "--out", out, "--overwrite"]
        killed += build_with_kills(command, out, kills=4, seed=number, whole=whole, old=shards(out))
        if killed >= 2:
            break
    assert killed >= 2


def test_a_killed_build_says_how_to_go_on(tmp_path):
    source = write(tmp_path / "a.jsonl", rows(400))
    out = tmp_path / "out"
    for _ in range(20):
        is_killed = kill_after_new_names(start("build", source, *OPTIONS, "--out", out), out, 6)
        if is_killed:
            break
        shutil.rmtree(out)  # it was done before this process had its turn
    assert is_killed
    process = start("info", out)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "has not finished" in messages.decode()
    assert "Run the same build again" in messages.decode()


KILLED = """
import os, signal, sys
import easydata as ed
from easydata import _fs
from easydata.build import publish

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target, real=os.replace):
    if "tokenizer-" in str(target):
        kill()
    real(source, target)

if sys.argv[3] == "after the commit":
    publish.remove_superseded = kill
else:
    _fs.os.replace = replace
ed.build(sys.argv[1], out=sys.argv[2], tokenizer="bytes", overwrite=True, workers=1)
"""


@pytest.mark.parametrize("moment", ["after the commit", "in the tokenizer"])
@pytest.mark.parametrize("splits", [None, {"a": 0.5, "b": 0.5}], ids=["whole", "splits"])
def test_nothing_is_left_of_a_killed_build(tmp_path, moment, splits):
    program = KILLED.replace("workers=1", f"workers=1, splits={splits}")
    out = tmp_path / "out"
    sizes = {"tokenizer": "bytes", "workers": 1, "splits": splits}
    ed.build(rows(20), out=out, **sizes)
    old = shards(out)
    source = write(tmp_path / "a.jsonl", rows(30, seed=1))
    done = subprocess.run(
        [sys.executable, "-c", program, source, out, moment], env=environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert any(path.name.startswith((".tmp", ".build")) for path in out.rglob(".*"))
    ed.build(source, out=out, overwrite=moment != "after the commit", **sizes)
    ed.build(source, out=tmp_path / "whole", **sizes)
    assert shards(out) == shards(tmp_path / "whole") != old
    assert [str(path) for path in out.rglob(".*")] == []
    ledgers = [path.parent for path in out.rglob("ledger-*")]
    assert len(ledgers) == len(set(ledgers))
