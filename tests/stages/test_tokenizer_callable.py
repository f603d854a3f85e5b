from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.errors import TokenizerError, UsageError
from easydata.stages import CallableTokenizer, load_tokenizer


def letters(texts: list[str]) -> list[list[int]]:
    return [[ord(c) for c in text] for text in texts]


def spell(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def make(function: Callable[..., Any] = letters, **options: Any) -> CallableTokenizer:
    defaults: dict[str, Any] = {"vocab_size": 256, "identity": "latin 1"}
    return CallableTokenizer(**({"function": function} | defaults | options))


def test_encode_and_decode() -> None:
    tokenizer = make(decode=spell, eos_id=0, bos_id=1)
    ids, lengths = tokenizer.encode(("ab", "", "c"))
    assert (ids.tolist(), lengths.tolist()) == ([97, 98, 99], [2, 0, 1])
    assert (ids.dtype.name, lengths.dtype.name) == ("uint32", "int64")
    assert tokenizer.decode([1, 97, 98, 0]) == "ab"
    assert (tokenizer.declared_eos, tokenizer.declared_bos) == (0, 1)
    assert (tokenizer.name, tokenizer.vocab_size) == ("latin 1", 256)
    assert tokenizer.token_id("a") is None
    assert tokenizer.files() == {}
    assert tokenizer.notes == tokenizer.special_tokens == ()
    assert load_tokenizer(tokenizer) is tokenizer


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_ids(texts: list[str]) -> None:
    ids, lengths = make().encode(texts)
    assert (ids.tolist(), lengths.tolist()) == ([], [0] * len(texts))


def test_arrays_and_tuples_are_lists_too() -> None:
    tokenizer = make(lambda _: (np.array([1, 2], dtype=np.uint8), (3,)))
    assert tokenizer.encode(["", ""])[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned NoneType None for 2 texts; it must return a list"),
        ([[1]], "returned 1 lists for 2 texts"),
        ([[1], [2], [3]], "returned 3 lists for 2 texts"),
        ([[1], "23"], "returned str '23' for text 1; it must be a list of token ids"),
        ([[1], 2], "returned int 2 for text 1"),
        ([[1], np.ones((1, 1))], "for text 1; it must be a list of token ids"),
        ([[1], [2.5]], "returned float 2.5 as token 0 of text 1; token ids must be integers"),
        ([[1], [2, None]], "returned NoneType None as token 1 of text 1"),
        ([[1], [2, [3]]], r"returned list \[3\] as token 1 of text 1"),
        ([[[1]], [[2]]], r"returned list \[1\] as token 0 of text 0"),
        ([[True], [False]], "returned bool True as token 0 of text 0"),
        ([["a"], [1]], "returned str 'a' as token 0 of text 0"),
        ([[1], [5, 256]], "returned int 256 as token 1 of text 1; its vocabulary size is 256"),
        ([[1], [-1]], "returned int -1 as token 0 of text 1; .*ids go from 0 to 255"),
        ([[1], [2**70]], "returned int 1180591620717411303424 as token 0 of text 1"),
        ([np.array([1]), np.array([2], np.uint64)], "integers of types that do not mix"),
        ("x" * 60, r"returned str 'x+\.\.\. for 2 texts"),
    ],
)
def test_what_a_function_must_not_return(result: object, message: str) -> None:
    with pytest.raises(TokenizerError, match=f"^tokenizer 'latin 1' .*{message}"):
        make(lambda _: result).encode(["a", "b"])


def test_without_decode() -> None:
    with pytest.raises(TokenizerError, match=r"cannot decode: pass decode= to CallableTokenizer"):
        make().decode([1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function": None}, "function is None, which cannot be called"),
        ({"identity": " "}, "identity is ' '; pass a string that names"),
        ({"identity": 3}, "identity is 3"),
        ({"vocab_size": 0}, "vocab_size is 0; it must be from 1"),
        ({"vocab_size": 2**32 + 1}, "vocab_size is 4294967297"),
        ({"eos_id": 256}, "eos_id is 256, but vocab_size is 256.*Count BOS and EOS"),
        ({"bos_id": -1}, "bos_id is -1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(**options)


def test_fingerprint_follows_the_identity() -> None:
    same = {make().fingerprint, make(spell).fingerprint, make(eos_id=3).fingerprint}
    assert same == {"d85eb99c9c5681ec338f6fd9d81d0f0c"}
    assert make(identity="latin 2").fingerprint not in same
    assert make(vocab_size=128).fingerprint not in same


def test_in_another_process(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    (tmp_path / "their_module.py").write_text(
        "def letters(texts):\n    return [[ord(c) for c in t] for t in texts]\n"
    )
    stored = tmp_path / "spec"
    program = (
        "import sys, pickle, their_module; from easydata.stages import CallableTokenizer as C;"
        "t = C(their_module.letters, vocab_size=300, identity='x', eos_id=7);"
        "open(sys.argv[1], 'wb').write(pickle.dumps(t.spec())); print(t.fingerprint)"
    )
    fingerprint = fresh_python(program, str(stored), path=str(tmp_path))
    program = (
        "import sys, pickle; from easydata.stages import load_tokenizer as load;"
        "t = load(pickle.loads(open(sys.argv[1], 'rb').read()));"
        "print(t.fingerprint, t.encode(['ab'])[0].tolist(), t.declared_eos)"
    )
    found = fresh_python(program, str(stored), path=str(tmp_path))
    assert found == f"{fingerprint.strip()} [97, 98] 7\n"


def test_a_function_without_a_place_cannot_leave_the_process() -> None:
    for tokenizer in (make(lambda texts: [[0] for _ in texts]), make(decode=lambda _: "")):
        assert load_tokenizer(tokenizer.spec()).fingerprint == tokenizer.fingerprint
        with pytest.raises(TokenizerError, match=r"<lambda> of module .*'def' at the top level"):
            pickle.dumps(tokenizer.spec())


def test_a_bare_function() -> None:
    with pytest.raises(TokenizerError, match=r"function letters .*Wrap it: CallableTokenizer\("):
        load_tokenizer(letters)


def test_special_tokens_cannot_be_parsed() -> None:
    with pytest.raises(UsageError, match=r"parse_special=True .*'latin 1'"):
        load_tokenizer(make(), parse_special=True)
