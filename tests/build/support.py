"""Text, and what the tests of builds ask of an output folder. Nothing here calls easydata."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Many parts and shards from a few ten kilobytes, and no tokenizer file.
SMALL: dict[str, Any] = {"tokenizer": "bytes", "part_size": "4kB", "shard_size": "20kB"}
WORDS = ("the", "cat", "sat", "on a", "mat", "while", "naïve", "café", "東京", "🙂", "def f(x):")


def texts(count: int, *, seed: int = 0, words: int = 30) -> list[str]:
    """Different texts of 1 to 2 × `words` words."""
    chance = random.Random(seed)
    return [
        f"{i} " + " ".join(chance.choices(WORDS, k=chance.randint(1, 2 * words)))
        for i in range(count)
    ]


def rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with a text and a number."""
    return [{"text": text, "id": i} for i, text in enumerate(texts(count, seed=seed))]


def jsonl(values: Iterable[Mapping[str, Any]]) -> bytes:
    """The rows as JSON Lines."""
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def write(path: Path, values: Iterable[Mapping[str, Any]]) -> Path:
    """A file of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jsonl(values))
    return path


def shards(folder: Path) -> dict[str, bytes]:
    """Every shard in a folder and its splits: relative name → bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("data-*"))
        if ".build" not in path.parts
    }


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: relative name → inode, bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def environment(**extra: str) -> dict[str, str]:
    """Of a subprocess that imports the easydata under test, with plain output."""
    root = str(Path(__file__).resolve().parents[2])
    # Coverage cannot write its data where these processes may not write, or are killed.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FORCE_COLOR", "NO_COLOR") and not name.startswith("COVERAGE_")
    }
    return {**kept, "PYTHONPATH": root, "COLUMNS": "80", **extra}
