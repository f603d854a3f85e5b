"""Tokenizers of `transformers` in pure Python: two of its own, and one of a user's."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import ByT5Tokenizer, CanineTokenizer, PythonBackend

from easydata.errors import TokenizerError, UsageError
from easydata.stages import RowTokenizeError, load_tokenizer
from easydata.stages.stored import STORED_NAME

from .conftest import TEXTS


class Letters(PythonBackend):  # type: ignore[misc]
    """A user's own tokenizer: one id for each letter of a fixed list."""

    vocab_files_names = {"vocab_file": "letters.json"}  # noqa: RUF012
    model_input_names = ["input_ids"]  # noqa: RUF012

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        self._vocab: dict[str, int] = json.loads(Path(vocab_file).read_text())
        super().__init__(vocab_file=vocab_file, **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self._vocab)

    def get_vocab(self) -> dict[str, int]:
        return {**self._vocab, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._vocab.get(token, self._vocab.get("?"))

    def _convert_id_to_token(self, index: int) -> str:
        return next(token for token, i in self._vocab.items() if i == index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str]:
        path = Path(save_directory, (filename_prefix or "") + "letters.json")
        path.write_text(json.dumps(self._vocab))
        return (str(path),)


class Unsavable(Letters):
    def save_pretrained(self, *_: Any, **__: Any) -> tuple[str, ...]:
        raise NotImplementedError("not today")


class Unreadable(Letters):
    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Any:
        raise KeyError("lost")


def letters(folder: Path, cls: type[Letters] = Letters, letters: str = "?abc<>/s") -> Letters:
    path = folder / "vocab.json"
    path.write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    return cls(vocab_file=str(path), eos_token="</s>", unk_token="?")


def saved(tokenizer: Any, folder: Path) -> dict[str, bytes]:
    tokenizer.save_pretrained(folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("cls", [ByT5Tokenizer, CanineTokenizer])
def test_ids_are_those_of_the_library(cls: type[Any], tmp_path: Path) -> None:
    theirs = cls()
    before = saved(theirs, tmp_path)
    tokenizer = load_tokenizer(theirs)
    expected = [
        theirs.encode(text, add_special_tokens=False, split_special_tokens=True) for text in TEXTS
    ]
    ids, lengths = tokenizer.encode(TEXTS)
    assert ids.tolist() == [i for row in expected for i in row]
    assert lengths.tolist() == [len(row) for row in expected]
    assert tokenizer.decode(expected[0]) == TEXTS[0]
    assert saved(theirs, tmp_path) == before
    assert tokenizer.name == cls.__name__
    assert tokenizer.encode([])[1].tolist() == []
    assert tokenizer.token_id("no such token") is None


def test_attributes() -> None:
    tokenizer = load_tokenizer(ByT5Tokenizer())
    assert tokenizer.vocab_size == 384
    assert (tokenizer.declared_eos, tokenizer.declared_bos) == ("</s>", None)
    assert tokenizer.token_id("</s>") == 1
    assert tokenizer.token_id("<unk>") == 2
    assert tokenizer.token_id("no such token") is None
    assert "</s>" in tokenizer.special_tokens
    assert tokenizer.decode([100, 2, 1]) == "a<unk>"


def test_text_that_spells_a_special_token() -> None:
    as_text = load_tokenizer(ByT5Tokenizer())
    parsed = load_tokenizer(ByT5Tokenizer(), parse_special=True)
    assert 1 not in as_text.encode(["a</s>b"])[0]
    assert parsed.encode(["a</s>b"])[0].tolist() == [100, 1, 101]
    assert parsed.decode([100, 1, 101]) == "a</s>b"
    assert as_text.fingerprint != parsed.fingerprint
    with pytest.raises(UsageError, match=r"where this tokenizer is first loaded"):
        load_tokenizer(as_text, parse_special=True)


def test_a_users_own_class(tmp_path: Path) -> None:
    theirs = letters(tmp_path)
    tokenizer = load_tokenizer(theirs)
    assert tokenizer.encode(["ab</s>", "z"])[0].tolist() == [1, 2, 4, 6, 7, 5, 0]
    assert tokenizer.vocab_size == 9  # </s> has id 8
    assert tokenizer.token_id("</s>") == 8
    assert tokenizer.token_id("?") == 0
    assert tokenizer.token_id("no such token") is None
    assert tokenizer.decode([1, 0, 8]) == "a?"
    assert tokenizer.files() == {}
    theirs.add_tokens(["ab"])
    assert tokenizer.vocab_size == 9


def test_fingerprint(tmp_path: Path) -> None:
    first = load_tokenizer(letters(tmp_path))
    first.encode(["abc"])
    (tmp_path / "again").mkdir()
    again = load_tokenizer(letters(tmp_path / "again"))
    other = load_tokenizer(letters(tmp_path, letters="?acb<>/s"))
    assert first.fingerprint == again.fingerprint == load_tokenizer(first.spec()).fingerprint
    assert other.fingerprint != first.fingerprint
    assert load_tokenizer(letters(tmp_path, Subclass)).fingerprint != other.fingerprint


class Subclass(Letters):
    """Another class may make other ids from the same files."""


def test_files_bring_it_back(tmp_path: Path) -> None:
    for parse in (False, True):
        tokenizer = load_tokenizer(ByT5Tokenizer(), parse_special=parse)
        for name, data in tokenizer.files().items():
            (tmp_path / name).write_bytes(data)
        again = load_tokenizer(tmp_path)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(TEXTS)[0].tolist() == tokenizer.encode(TEXTS)[0].tolist()
        assert again.name == "ByT5Tokenizer"


def test_a_stored_tokenizer_that_reads_as_another(tmp_path: Path) -> None:
    for name, data in load_tokenizer(ByT5Tokenizer()).files().items():
        (tmp_path / name).write_bytes(data.replace(b"transformers.models.byt5", b"elsewhere"))
    assert b"elsewhere" in (tmp_path / STORED_NAME).read_bytes()
    with pytest.raises(TokenizerError, match=r"stored by elsewhere.*reads it as transformers\."):
        load_tokenizer(tmp_path)


def test_in_another_process(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    tokenizer = load_tokenizer(ByT5Tokenizer())
    path = tmp_path / "spec"
    path.write_bytes(pickle.dumps((tokenizer.spec(), TEXTS)))
    program = (
        "import sys, pickle; from easydata.stages import load_tokenizer as load;"
        "spec, texts = pickle.loads(open(sys.argv[1], 'rb').read()); t = load(spec);"
        "print(t.fingerprint, t.encode(texts)[0].tolist())"
    )
    expected = f"{tokenizer.fingerprint} {tokenizer.encode(TEXTS)[0].tolist()}\n"
    assert fresh_python(program, str(path), hash_seed=3) == expected


def test_what_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"cannot be saved \(NotImplementedError: not today"):
        load_tokenizer(letters(tmp_path, Unsavable))
    with pytest.raises(TokenizerError, match=r"Unreadable cannot read .*KeyError: 'lost'"):
        load_tokenizer(letters(tmp_path, Unreadable))


def test_randomness_is_refused(tmp_path: Path) -> None:
    theirs = letters(tmp_path)
    theirs.sp_model_kwargs = {"enable_sampling": True}
    with pytest.raises(TokenizerError, match=r"at random \(sp_model_kwargs has enable_sampling"):
        load_tokenizer(theirs)


def test_a_lone_surrogate_is_named() -> None:
    with pytest.raises(RowTokenizeError, match=r"^text 1: character 0"):
        load_tokenizer(ByT5Tokenizer()).encode(["a", "\ud900"])
