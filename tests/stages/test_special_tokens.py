from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from easydata.errors import TokenizerError, UsageError
from easydata.stages import CallableTokenizer, SpecialTokens, load_tokenizer, resolve_special
from easydata.stages.special import WELL_KNOWN_BOS, WELL_KNOWN_EOS
from tests.bpe import train_bpe

from .conftest import word_level

FUNCTION = CallableTokenizer(lambda texts: [[0] for _ in texts], vocab_size=9, identity="test")


def test_the_option_wins(tmp_path: Path) -> None:
    train_bpe(special=("<|endoftext|>", "<stop>", "</s>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<stop>"}))
    tokenizer = load_tokenizer(tmp_path)

    def eos(given: str | int | None) -> int | None:
        return resolve_special(tokenizer, add_bos=False, add_eos=True, eos_token=given).eos_id

    assert [eos("</s>"), eos(7), eos(0), eos(None)] == [2, 7, 0, 1]


def test_well_known_names_in_order() -> None:
    names = [n for n in (*WELL_KNOWN_EOS, *WELL_KNOWN_BOS) if " " not in n]
    tokenizer = load_tokenizer(word_level(" ".join(["x", *reversed(names)]), unk="x"))
    found = resolve_special(tokenizer, add_bos=True, add_eos=True)
    assert found == SpecialTokens(
        bos_id=tokenizer.token_id("<|begin_of_text|>"), eos_id=tokenizer.token_id("<|endoftext|>")
    )
    assert found.bos_id != found.eos_id


@pytest.mark.parametrize("name", WELL_KNOWN_EOS)
def test_each_well_known_eos(name: str) -> None:
    tokenizer = load_tokenizer(word_level(f"x {name}", unk="x"))
    assert resolve_special(tokenizer, add_bos=False, add_eos=True).eos_id == 1


def test_ids_that_a_tokenizer_declares() -> None:
    found = resolve_special(load_tokenizer("bytes"), add_bos=True, add_eos=True)
    assert found == SpecialTokens(bos_id=257, eos_id=256)


def test_nothing_wanted(bpe: Tokenizer) -> None:
    found = resolve_special(load_tokenizer(bpe), add_bos=False, add_eos=False)
    assert found == SpecialTokens(None, None)


def test_nothing_found() -> None:
    tokenizer = load_tokenizer(word_level("x [SEP]", unk="x"))
    with pytest.raises(
        TokenizerError,
        match=r"declares no EOS token.*none of <\|endoftext\|>.*eos_token= \(--eos-token\), or "
        r"pass add_eos=False \(--no-add-eos\)",
    ):
        resolve_special(tokenizer, add_bos=False, add_eos=True)
    with pytest.raises(TokenizerError, match=r"no BOS token.*--bos-token.*--no-add-bos"):
        resolve_special(FUNCTION, add_bos=True, add_eos=False)


def test_what_exists_is_shown(bpe: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"\(its special tokens: <\|endoftext\|>\)"):
        resolve_special(load_tokenizer(bpe), add_bos=True, add_eos=False)


def test_an_option_that_is_not_in_the_vocabulary(bpe: Tokenizer) -> None:
    with pytest.raises(
        UsageError,
        match=r"eos_token '<\|endoftxt\|>' is not in the vocabulary.*\(close: <\|endoftext\|>\)",
    ):
        resolve_special(
            load_tokenizer(bpe),
            add_bos=False,
            add_eos=True,
            eos_token="<|endoftxt|>",
        )


@pytest.mark.parametrize("given", [9, -1, True])
def test_an_option_that_is_no_id(given: int) -> None:
    with pytest.raises(UsageError, match=rf"eos_token {given} is no id .*ids 0 to 8"):
        resolve_special(FUNCTION, add_bos=False, add_eos=True, eos_token=given)


def test_a_declared_token_that_is_missing(tmp_path: Path) -> None:
    word_level("x </s>", unk="x").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>"}))
    with pytest.raises(TokenizerError, match=r"declares '<s>' as its EOS.*not in.*close: </s>"):
        resolve_special(load_tokenizer(tmp_path), add_bos=False, add_eos=True)


@pytest.mark.parametrize("which", ["bos", "eos"])
def test_a_token_that_is_not_to_be_added(which: str) -> None:
    options = {"add_bos": False, "add_eos": False, f"{which}_token": 3}
    with pytest.raises(UsageError, match=rf"{which}_token is 3, but add_{which} is False"):
        resolve_special(FUNCTION, **options)  # type: ignore[arg-type]
