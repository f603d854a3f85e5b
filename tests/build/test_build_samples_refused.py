"""Wrong arguments of samples are refused, before anything is done where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import easydata as ed
from easydata.build.task import BuildTask

from .reports import report
from .support import rows, write


@pytest.fixture
def source(tmp_path) -> Path:
    return write(tmp_path / "a.jsonl", rows(120))


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"seq_len": 0}, "seq_len is 0"),
    ({"seq_len": -5}, "seq_len is -5"),
    ({"seq_len": True}, "seq_len is True"),
    ({"seq_len": 64.0}, r"seq_len is 64\.0"),
    ({"seq_len": 1 << 31}, "at most 2147483647"),
    ({"pack": "greedy"}, "pack is 'greedy', but there is no seq_len"),
    ({"shuffle": True}, "shuffle is True, but there is no seq_len"),
    ({"segment_ids": True}, "segment_ids is True, but there is no seq_len"),
    ({"seq_len": 8, "shuffle": "block"}, "shuffle is 'block'"),
    ({"seq_len": 8, "segment_ids": 1}, "segment_ids is 1"),
    ({"seq_len": 8, "seed": 3}, "seed is 3, but shuffle is False"),
    ({"seq_len": 8, "shuffle": True, "seed": -1}, "seed is -1"),
    ({"seq_len": 8, "shuffle": True, "seed": 1 << 64}, "seed is"),
    ({"seq_len": 8, "pack": "gredy"}, "did you mean 'greedy'"),
    ({"seq_len": 8, "pack": "greedy", "pad_token": 999}, "pad_token 999"),
    ({"seq_len": 8, "padding": "max_length", "max_length": 9, "pad_token": 0}, "padding is"),
    ({"seq_len": 8, "splits": {"documents": 0.5, "b": 0.5}}, "splits has the name 'documents'"),
]


@pytest.mark.parametrize(("options", "match"), WRONG, ids=str)
def test_wrong_arguments_are_refused_before_anything_is_done(source, out, options, match):
    with pytest.raises(ed.UsageError, match=match):
        report(source, out, **options)
    assert not out.exists()


def test_padding_without_a_pad_token_is_refused_before_tokenizing(source, out, monkeypatch):
    monkeypatch.delattr(BuildTask, "__call__")
    with pytest.raises(ed.TokenizerError, match="pad_token"):
        report(source, out, seq_len=8, pack="greedy")
    assert not out.exists()


def test_a_split_without_enough_tokens_is_named(out):
    splits = {"train": 0.999_999, "rare": 0.000_001}
    with pytest.raises(ed.UsageError, match="The split 'rare' has no tokens"):
        report(rows(20), out, seq_len=8, splits=splits)
