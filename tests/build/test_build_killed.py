"""A build that is killed at random moments continues, and ends with the same bytes."""

from __future__ import annotations

import easydata as ed

from .killing import OPTIONS, build_with_kills, kill_after_new_names, start
from .support import rows, shards, write


def test_killed_builds_end_with_the_same_bytes(tmp_path):
    source = write(tmp_path / "a.jsonl", rows(400))
    ed.build(source, out=tmp_path / "whole", tokenizer="bytes", part_size="4kB", shard_size="20kB")
    whole = shards(tmp_path / "whole")
    assert len(whole) > 4
    out = tmp_path / "out"
    command = ["build", source, *OPTIONS, "--out", out]
    assert build_with_kills(command, out, kills=5, seed=1, whole=whole) >= 3


def test_the_old_dataset_stays_until_the_new_one_is_complete(tmp_path):
    sizes = {"tokenizer": "bytes", "part_size": "4kB", "shard_size": "20kB"}
    source = write(tmp_path / "a.jsonl", rows(400, seed=1))
    ed.build(source, out=tmp_path / "whole", **sizes)
    whole = shards(tmp_path / "whole")
    out = tmp_path / "out"
    ed.build(write(tmp_path / "old.jsonl", rows(300, seed=2)), out=out, **sizes)
    old = shards(out)
    command = ["build", source, *OPTIONS, "--out", out, "--overwrite"]
    assert build_with_kills(command, out, kills=4, seed=2, whole=whole, old=old) >= 2


def test_a_killed_build_says_how_to_go_on(tmp_path):
    source = write(tmp_path / "a.jsonl", rows(400))
    out = tmp_path / "out"
    assert kill_after_new_names(start("build", source, *OPTIONS, "--out", out), out, 6)
    process = start("info", out)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "has not finished" in messages.decode()
    assert "Run the same build again" in messages.decode()
