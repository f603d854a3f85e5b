"""What the tests of pipelines share: rows, a tokenizer that counts, and a small configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import easydata as ed


class Counting:
    """A tokenizer of characters that remembers the texts it was given."""

    def __init__(self, identity: str = "characters 1") -> None:
        self.texts: list[str] = []
        self.calls: list[int] = []
        self.tokenizer = ed.CallableTokenizer(
            self._encode, vocab_size=1 << 16, identity=identity, eos_id=0, pad_id=1
        )

    def _encode(self, given: list[str]) -> list[list[int]]:
        self.texts += given
        self.calls.append(len(given))
        return [[ord(char) for char in text] for text in given]


def write_rows(path: Path, texts: Sequence[str], **fields: Sequence[Any]) -> Path:
    """A file of rows with these texts, and these other fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": text, **{name: values[i] for name, values in fields.items()}}
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(name: str, count: int) -> list[str]:
    """Different texts of different lengths."""
    return [f"{i} " + name * (1 + i * 7 % 31) for i in range(count)]


def quiet(folder: Path, **fields: Any) -> dict[str, Any]:
    """Fields of a configuration with its cache below `folder`, that shows nothing."""
    return {
        "cache": {"cache_dir": str(folder / "cache"), **fields.pop("cache", {})},
        "observability": {"progress_enabled": False, **fields.pop("observability", {})},
        **fields,
    }
