"""Real text: what was built decodes to exactly what was read."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import pytest

import easydata as ed
from tests.bpe import train_bpe

from .support import jsonl

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# Parts and shards of a size at which each file gives several.
SIZES = {"part_size": "200kB", "shard_size": "1MB"}


def questions() -> bytes:
    """The school problems, or problems about the functions of the standard library."""
    path = SHARED / "gsm8k_train.jsonl"
    if path.exists():
        return path.read_bytes()
    found = []
    for name, value in sorted(vars(os).items()):
        text = inspect.getdoc(value) or name
        found.append({"question": f"What does os.{name} do?\n{text} é", "answer": text[:50]})
    return jsonl(found * 10)


def plays() -> bytes:
    """The plays, or sources of the standard library."""
    path = SHARED / "tinyshakespeare.txt"
    if path.exists():
        return path.read_bytes()
    modules = (argparse_source(), inspect.getsource(inspect), inspect.getsource(json))
    return "\n\n".join(modules).encode()


def argparse_source() -> str:
    import argparse

    return inspect.getsource(argparse)


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request, tmp_path_factory):
    if request.param == "bytes":
        return "bytes"
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe(plays().decode()[:200_000].splitlines(), vocab_size=2000).save(str(path))
    return path


def test_questions_and_answers(tmp_path, tokenizer):
    source = tmp_path / "train.jsonl"
    source.write_bytes(questions())
    rows = [json.loads(line) for line in questions().splitlines()]
    ds = ed.build(
        source,
        out=tmp_path / "out",
        tokenizer=tokenizer,
        text_field="question",
        keep_fields=["answer"],
        workers=2,
        **SIZES,
    )
    check(ds, [row["question"] for row in rows], tokenizer)
    assert ds.column("answer").to_pylist() == [row["answer"] for row in rows]
    assert ds.lineage(len(ds) - 1) == (str(source), len(rows) - 1)


@pytest.mark.parametrize("text_rows", ["file", "line", "paragraph"])
def test_plays(tmp_path, tokenizer, text_rows):
    source = tmp_path / "plays.txt"
    source.write_bytes(plays())
    text = plays().decode()
    expected = {
        "file": [text],
        "line": text.removesuffix("\n").split("\n"),
        "paragraph": [part.strip("\n") for part in text.split("\n\n") if part.strip()],
    }[text_rows]
    ds = ed.build(source, out=tmp_path / "out", tokenizer=tokenizer, text_rows=text_rows, **SIZES)
    check(ds, expected, tokenizer)


def check(ds: ed.TokenDataset, expected: list[str], tokenizer) -> None:
    ds.verify()
    assert len(ds) == len(expected)
    stored = ds.tokenizer()
    eos = ds.ledger.metadata["tokenizer"]["eos_id"]
    for row, text in zip(ds.to_table()["input_ids"].to_numpy(), expected, strict=True):
        assert row[-1] == eos
        assert stored.decode(row[:-1]) == text
    if tokenizer != "bytes":
        # The library's own encoding is the oracle for the ids.
        from tokenizers import Tokenizer

        library = Tokenizer.from_file(str(tokenizer))
        for row, text in list(zip(ds.to_table()["input_ids"].to_pylist(), expected, strict=True))[
            ::97
        ]:
            assert row[:-1] == library.encode(text, add_special_tokens=False).ids
