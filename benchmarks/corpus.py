"""The data of the benchmarks: the standard library's sources, and a tokenizer trained on them."""

from __future__ import annotations

import json
import os
import random
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.common import Options

__all__ = [
    "EOS",
    "build",
    "jsonl",
    "pieces",
    "shuffled_texts",
    "stdlib_texts",
    "tokenizer",
    "write_jsonl",
]

EOS = "<|endoftext|>"
_QUICK_BYTES = 400_000
_PIECE_CHARACTERS = 2000


@cache
def stdlib_texts() -> list[str]:
    """Every Python source of the standard library that is UTF-8 and not empty, by path."""
    root = Path(sysconfig.get_path("stdlib"))
    texts = []
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "dist-packages"}.isdisjoint(path.parts):
            try:
                texts.append(path.read_bytes().decode())
            except UnicodeDecodeError:
                continue
    return [text for text in texts if text]


def shuffled_texts() -> list[str]:
    """The same in a seeded random order."""
    texts = stdlib_texts()
    return random.Random(0).sample(texts, len(texts))


def tokenizer(options: Options) -> Path:
    """A byte-level BPE with 32,000 tokens (2,000 with --quick), trained once."""
    path = options.data / "tokenizer.json"
    if not path.exists():
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        found = Tokenizer(models.BPE())
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        found.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=options.pick(32_000, 2000),
            special_tokens=[EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = shuffled_texts()
        found.train_from_iterator(_first(texts, _QUICK_BYTES) if options.quick else texts, trainer)
        _publish(path, [found.to_str()])
    return path


def jsonl(options: Options, megabytes: float) -> Path:
    """A JSONL file of about this size with the field "text", a row for each source file.

    The sources are repeated until it is full. Each copy names its number in a comment: easydata
    tokenizes what it has seen before only once, which is not what is measured.
    """
    path = options.data / f"stdlib-{megabytes:g}MB.jsonl"
    if not path.exists():
        write_jsonl(path, _copies(shuffled_texts()), int(megabytes * 1e6))
    return path


def pieces(options: Options, megabytes: float) -> Path:
    """Like `jsonl`, but in rows of about 2,000 characters, so that any shard size is possible."""
    path = options.data / f"pieces-{megabytes:g}MB.jsonl"
    if not path.exists():
        rows = (piece for text in _copies(shuffled_texts()) for piece in _cut(text))
        write_jsonl(path, rows, int(megabytes * 1e6))
    return path


def build(options: Options, name: str, source: Path, **build_options: Any) -> Path:
    """A dataset directory built from `source`; anew in every run, by the code that is measured."""
    import easydata as ed

    out = options.scratch / name
    ed.build(source, tokenizer=tokenizer(options), out=out, **build_options)
    return out


def write_jsonl(path: Path, texts: Iterable[str], size: int) -> None:
    """Write rows until the file has `size` bytes."""

    def lines() -> Iterator[str]:
        written = 0
        for text in texts:
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            yield line
            written += len(line.encode())
            if written >= size:
                return

    _publish(path, lines())


def _copies(texts: list[str]) -> Iterator[str]:
    number = 0
    while True:
        yield from (f"# copy {number}\n{text}" for text in texts)
        number += 1


def _cut(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARACTERS):
        yield text[start : start + _PIECE_CHARACTERS]


def _first(texts: list[str], size: int) -> Iterator[str]:
    for text in texts:
        yield text
        size -= len(text)
        if size <= 0:
            return


def _publish(path: Path, pieces_of_text: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces_of_text)
    temporary.rename(path)
