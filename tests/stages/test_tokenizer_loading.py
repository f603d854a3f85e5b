from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.implementations import ByteLevelBPETokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from easydata.errors import MissingDependencyError, TokenizerError, UsageError
from easydata.stages import Tokenizer as Protocol
from easydata.stages import load_tokenizer
from easydata.stages.stored import STORED_NAME
from tests.bpe import train_bpe

from .conftest import TEXTS

BOTH = ("<|endoftext|>", "<start>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer.json and nothing else."""
    train_bpe(special=BOTH).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(fields))


def test_importing_the_package_imports_no_tokenizer_library(
    fresh_python: Callable[..., str],
) -> None:
    program = (
        "import sys, easydata.stages as s; s.load_tokenizer('bytes').encode(['a']);"
        "print([m for m in ('tokenizers', 'transformers', 'torch') if m in sys.modules])"
    )
    assert fresh_python(program) == "[]\n"


def test_a_folder_needs_no_transformers(folder: Path, fresh_python: Callable[..., str]) -> None:
    program = (
        "import sys; from easydata.stages import load_tokenizer as load; t = load(sys.argv[1]);"
        "print(t.vocab_size, 'transformers' in sys.modules)"
    )
    assert fresh_python(program, str(folder)) == "274 False\n"


def test_every_form_of_one_tokenizer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    path = folder / "tokenizer.json"
    core = Tokenizer.from_file(str(path))
    fast = PreTrainedTokenizerFast(tokenizer_object=core)
    forms: list[Any] = [path, str(path), folder, str(folder), f"~/{folder.name}", core, fast]
    tokenizers = [load_tokenizer(form) for form in forms]
    expected = tokenizers[0].encode(TEXTS)[0].tolist()
    for tokenizer in tokenizers:
        assert isinstance(tokenizer, Protocol)
        assert tokenizer.encode(TEXTS)[0].tolist() == expected
        assert tokenizer.fingerprint == tokenizers[0].fingerprint
    names = [tokenizer.name for tokenizer in tokenizers]
    assert names[1] == str(path)
    assert names[5] == "tokenizers.Tokenizer (BPE)"
    assert load_tokenizer(tokenizers[0]) is tokenizers[0]


def test_the_librarys_own_wrapper_class() -> None:
    wrapper = ByteLevelBPETokenizer()
    wrapper.train_from_iterator(["the cat"], vocab_size=260, show_progress=False)
    ids = load_tokenizer(wrapper).encode(["the cat"])[0]
    assert ids.tolist() == wrapper.encode("the cat").ids


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", ["<start>", {"content": "<start>", "lstrip": False}])
def test_declared_beside_the_file(folder: Path, name: str, token: object) -> None:
    assert load_tokenizer(folder).declared_eos is None
    write(folder / name, eos_token=token, bos_token=None, unk_token=3, model_max_length=5)
    for source in (folder, folder / "tokenizer.json"):
        tokenizer = load_tokenizer(source)
        assert (tokenizer.declared_eos, tokenizer.declared_bos) == ("<start>", None)


def test_the_config_goes_before_the_map(folder: Path) -> None:
    write(folder / "special_tokens_map.json", eos_token="<a>", bos_token="<b>")
    write(folder / "tokenizer_config.json", eos_token="<c>", bos_token=None)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.declared_eos, tokenizer.declared_bos) == ("<c>", "<b>")


def test_more_tokens_that_the_config_calls_special(folder: Path) -> None:
    core = train_bpe()
    core.add_tokens(["<x>", "<y>"])
    core.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", additional_special_tokens=["<x>"])
    assert load_tokenizer(folder).special_tokens == ("<|endoftext|>", "<x>")


def test_a_fast_transformers_tokenizer(bpe: Tokenizer) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|endoftext|>",
        bos_token="<begin>",
    )
    fast(["the cat"], truncation=True, max_length=2)
    before = fast.backend_tokenizer.to_str()
    tokenizer = load_tokenizer(fast)
    assert (tokenizer.declared_eos, tokenizer.declared_bos) == ("<|endoftext|>", "<begin>")
    assert tokenizer.token_id("<begin>") == 273
    assert tokenizer.vocab_size == 274
    assert [note.split(",")[0] for note in tokenizer.notes] == ["truncation to 2 tokens"]
    assert fast.backend_tokenizer.to_str() == before
    expected = fast.encode("the cat", add_special_tokens=False)
    assert tokenizer.encode(["the cat"])[0].tolist() == expected
    assert 273 not in tokenizer.encode(["<begin>"])[0]
    assert 273 in load_tokenizer(fast, parse_special=True).encode(["<begin>"])[0]


@pytest.mark.parametrize("parse_special", [False, True])
def test_files_bring_it_back(folder: Path, tmp_path: Path, *, parse_special: bool) -> None:
    write(folder / "tokenizer_config.json", eos_token="<|endoftext|>", bos_token="<start>")
    tokenizer = load_tokenizer(folder, parse_special=parse_special)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in tokenizer.files().items():
        (copy / name).write_bytes(data)
    again = load_tokenizer(copy)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.spec() == tokenizer.spec()
    assert again.files() == tokenizer.files()
    theirs = AutoTokenizer.from_pretrained(str(copy))
    assert (theirs.eos_token, theirs.bos_token) == ("<|endoftext|>", "<start>")
    other = load_tokenizer(copy, parse_special=not parse_special)
    assert other.fingerprint != tokenizer.fingerprint


def test_bytes_are_stored_too(tmp_path: Path) -> None:
    for name, data in load_tokenizer("bytes").files().items():
        (tmp_path / name).write_bytes(data)
    assert load_tokenizer(tmp_path).fingerprint == load_tokenizer("bytes").fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read .*easydata-tokenizer.json"),
        ("[]", "does not name a kind"),
        ('{"kind": "magic", "name": "x"}', r"this version knows \(bytes, json, transformers\)"),
        ('{"kind": "bytes", "name": "x", "new": 1}', "Update easydata"),
    ],
)
def test_a_broken_stored_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / STORED_NAME).write_text(content)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)


def test_parse_special_belongs_to_loading(folder: Path) -> None:
    spec = load_tokenizer(folder).spec()
    with pytest.raises(UsageError, match=r"parse_special=True cannot be changed.*first loaded"):
        load_tokenizer(spec, parse_special=True)
    assert load_tokenizer(spec, parse_special=False).spec() == spec


@pytest.mark.parametrize("name", ["./nothing", "nothing.json", "a/b/c", "/no/such", "~/none"])
def test_no_such_file(name: str) -> None:
    with pytest.raises(TokenizerError, match=r"no such file or folder \(looked for /"):
        load_tokenizer(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a tokenizer in the JSON .*EOF"),
        (b"{}", "is not a tokenizer in the JSON .*Model missing"),
        (b"[1]", "is not a tokenizer in the JSON"),
        (b"\xff\xfe", "cannot read the tokenizer .*utf-8"),
    ],
)
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [("{", "cannot read"), ("[]", "holds a list")])
def test_a_broken_companion(folder: Path, content: str, message: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=f"{message}.*tokenizer_config.json|config.json holds"):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"holds no tokenizer: it has no tokenizer.json"):
        load_tokenizer(tmp_path)


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        TokenizerError,
        match=r"tokenizer 'gtp2': .*looked for .*/gtp2\).*HuggingFace name: OSError",
    ):
        load_tokenizer("gtp2")


def test_a_hub_name(monkeypatch: pytest.MonkeyPatch, bpe: Tokenizer) -> None:
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda _, **__: fast)
    tokenizer = load_tokenizer("someone/something")
    assert (tokenizer.name, tokenizer.declared_eos) == ("someone/something", "<|endoftext|>")


@pytest.mark.parametrize("kind", ["name", "folder"])
def test_transformers_is_an_extra(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    source = "gpt2" if kind == "name" else str(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"pip install 'easydata\[transformers\]'"):
        load_tokenizer(source)


def test_objects_are_recognised_without_importing_their_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "tokenizers")
    monkeypatch.delitem(sys.modules, "transformers.tokenization_utils_base")
    with pytest.raises(TokenizerError, match=r"^3 is no tokenizer"):
        load_tokenizer(3)
    assert not {"tokenizers", "transformers.tokenization_utils_base"} & set(sys.modules)


@pytest.mark.parametrize("what", [3, None, Tokenizer, ["a"] * 100])
def test_what_is_no_tokenizer(what: object) -> None:
    with pytest.raises(TokenizerError, match=r"is no tokenizer. Pass 'bytes', a tokenizer.json"):
        load_tokenizer(what)
