"""Folders whose tokenizer is code of their own, which only the user can allow to run."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from easydata.errors import TokenizerError
from easydata.stages import load_tokenizer

CODE = """
from transformers import ByT5Tokenizer


class TwiceTokenizer(ByT5Tokenizer):
    def _tokenize(self, text):
        return [token for token in super()._tokenize(text) for _ in range(2)]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    modules = str(tmp_path / "modules")
    monkeypatch.setenv("HF_MODULES_CACHE", modules)  # for other processes; this one has read it
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    folder = tmp_path / "twice"
    folder.mkdir()
    (folder / "twice.py").write_text(CODE)
    config = {
        "tokenizer_class": "TwiceTokenizer",
        "auto_map": {"AutoTokenizer": ["twice.TwiceTokenizer", None]},
        "eos_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    yield folder
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


def test_code_runs_only_if_trusted(folder: Path) -> None:
    with pytest.raises(
        TokenizerError, match=r"custom code.*If you trust this code, pass trust_remote_code=True"
    ):
        load_tokenizer(folder)
    tokenizer = load_tokenizer(folder, trust_remote_code=True)
    assert tokenizer.encode(["ab"])[0].tolist() == [100, 100, 101, 101]
    assert tokenizer.declared_eos == "</s>"
    assert tokenizer.files() == {}
    again = load_tokenizer(folder, trust_remote_code=True)
    assert again.fingerprint == tokenizer.fingerprint
    (folder / "twice.py").write_text(CODE.replace("range(2)", "range(3)"))
    other = load_tokenizer(folder, trust_remote_code=True)
    assert other.encode(["a"])[0].tolist() == [100, 100, 100]
    assert other.fingerprint != tokenizer.fingerprint


def test_in_another_process(folder: Path, fresh_python: Callable[..., str]) -> None:
    tokenizer = load_tokenizer(folder, trust_remote_code=True)
    path = folder / "spec"
    path.write_bytes(pickle.dumps(tokenizer.spec()))
    program = (
        "import sys, pickle; from easydata.stages import load_tokenizer as load;"
        "t = load(pickle.loads(open(sys.argv[1], 'rb').read()));"
        "print(t.fingerprint, t.encode(['a'])[0].tolist())"
    )
    assert fresh_python(program, str(path)) == f"{tokenizer.fingerprint} [100, 100]\n"


def test_true_is_harmless_where_no_code_is_needed(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(str(tmp_path / "tokenizer.json"))
    for source in ("bytes", bpe, tmp_path, tmp_path / "tokenizer.json"):
        trusted = load_tokenizer(source, trust_remote_code=True)
        assert trusted.fingerprint == load_tokenizer(source).fingerprint


@pytest.mark.parametrize("trusted", [False, True])
def test_a_hub_name_is_told(
    bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe)
    told: list[Any] = []

    def from_pretrained(name: str, **options: Any) -> PreTrainedTokenizerFast:
        told.append((name, options))
        return fast

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    load_tokenizer("someone/something", trust_remote_code=trusted)
    assert told == [("someone/something", {"trust_remote_code": trusted})]
