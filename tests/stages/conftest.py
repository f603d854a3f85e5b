"""Small real tokenizers, made here: no file and no network is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Read by huggingface_hub when it is imported, which no test has done yet.
os.environ["HF_HUB_OFFLINE"] = "1"

from tokenizers import Tokenizer, models, pre_tokenizers

from tests.bpe import train_bpe

ROOT = Path(__file__).resolve().parents[2]

TEXTS = [
    "the cat sat on the mat",
    "",
    "def f(x):\n    return x + 1\n",
    "naïve café, 東京 🙂",
    "a</s>b <|endoftext|> <pad>",
    " leading and trailing \n\n",
]


def word_level(words: str, *, unk: str | None = "[UNK]") -> Tokenizer:
    """Each word of `words` is a token, in this order."""
    vocab = {word: i for i, word in enumerate(words.split())}
    model = models.WordLevel(vocab, unk_token=unk) if unk else models.WordLevel(vocab)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def bpe() -> Tokenizer:
    return train_bpe()


@pytest.fixture
def fresh_python() -> Callable[..., str]:
    """Run a program in another Python process; its standard output."""

    def run(program: str, *args: str, hash_seed: int = 0, path: str = "") -> str:
        environ = dict(os.environ)
        environ["PYTHONHASHSEED"] = str(hash_seed)
        environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), path) if p)
        done = subprocess.run(
            [sys.executable, "-c", program, *args],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
