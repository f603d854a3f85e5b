from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from easydata.stages import CallableTokenizer, load_tokenizer, tokenizer_source_hash
from easydata.stages import source_hash as module
from tests.bpe import train_bpe


def store(tokenizer: Any, folder: Path, **options: Any) -> Path:
    folder.mkdir()
    for name, data in load_tokenizer(tokenizer, **options).files().items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    """All files that are read for a tokenizer.json, with weights and a readme beside them."""
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(), eos_token="<|endoftext|>", chat_template="{{ eos_token }}"
    )
    folder = store(theirs, tmp_path / "fast")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "README.md").write_text("hello")
    return folder


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A folder that only `transformers` can read."""
    return store(ByT5Tokenizer(), tmp_path / "slow")


def opened(folder: Path, path: Path, fresh_python: Callable[..., str]) -> set[str]:
    """Names of the files of `folder` that loading `path` opens, as Python reports them."""
    program = (
        "import sys, json; from pathlib import Path; from easydata.stages import load_tokenizer\n"
        "folder, path = sys.argv[1:]; seen = set()\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).startswith(folder): seen.add(str(args[0]))\n"
        "sys.addaudithook(hook); load_tokenizer(path)\n"
        "print(json.dumps(sorted(p for p in seen if Path(p).is_file())))"
    )
    return {Path(p).name for p in json.loads(fresh_python(program, str(folder), str(path)))}


@pytest.mark.parametrize("source", ["", "tokenizer.json"])
def test_every_file_that_loading_opens_counts(
    source: str, fast: Path, fresh_python: Callable[..., str]
) -> None:
    path = fast / source
    read = opened(fast, path, fresh_python)
    companions = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
    stored = set() if source else {"easydata-tokenizer.json"}
    assert read == {"tokenizer.json", *companions, *stored}
    before = tokenizer_source_hash(path)
    assert before == tokenizer_source_hash(str(path))
    for name in sorted(p.name for p in fast.iterdir()):
        data = (fast / name).read_bytes()
        (fast / name).write_bytes(data + b" ")
        assert (tokenizer_source_hash(path) == before) == (name not in read), name
        (fast / name).unlink()
        assert (tokenizer_source_hash(path) == before) == (name not in read), name
        (fast / name).write_bytes(data)
    assert tokenizer_source_hash(path) == before


def test_every_file_of_a_transformers_folder_counts(
    slow: Path, fresh_python: Callable[..., str]
) -> None:
    (slow / "sub").mkdir()
    (slow / "sub" / "vocab.txt").write_text("a")
    before = tokenizer_source_hash(slow)
    names = {p.relative_to(slow).as_posix() for p in slow.rglob("*") if p.is_file()}
    assert before is not None
    assert opened(slow, slow, fresh_python) <= {Path(name).name for name in names}
    for name in names:
        data = (slow / name).read_bytes()
        (slow / name).write_bytes(data + b" ")
        assert tokenizer_source_hash(slow) != before
        (slow / name).write_bytes(data)
    (slow / "sub" / "vocab.txt").rename(slow / "vocab.txt")
    assert tokenizer_source_hash(slow) != before


def test_a_tokenizer_json_takes_the_place_of_transformers(slow: Path) -> None:
    before = tokenizer_source_hash(slow)
    train_bpe().save(str(slow / "tokenizer.json"))
    assert tokenizer_source_hash(slow) != before


def test_the_hash_follows_content_not_place(fast: Path, tmp_path: Path) -> None:
    before = tokenizer_source_hash(fast)
    os.utime(fast / "tokenizer.json", (1, 1))
    (tmp_path / "link").symlink_to(fast)
    moved = tmp_path / "moved"
    fast.rename(moved)
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(moved)
    assert tokenizer_source_hash(moved) == tokenizer_source_hash(tmp_path / "link") == before


def test_equal_hashes_load_equally(tmp_path: Path) -> None:
    """Among many near misses: where two hashes agree, the tokenizers do."""
    seen: dict[str, tuple[object, ...]] = {}
    sources: list[Path | str] = ["bytes", store("bytes", tmp_path / "b")]
    for i, eos in enumerate((None, "<|endoftext|>", "<x>")):
        for j, parse in enumerate((False, True)):
            core = train_bpe(special=("<|endoftext|>", "<x>"))
            theirs = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos)
            folder = store(theirs, tmp_path / f"{i}{j}", parse_special=parse)
            sources += [folder, folder / "tokenizer.json"]
    for source in sources:
        found = tokenizer_source_hash(source)
        assert found is not None
        tokenizer = load_tokenizer(source)
        same = (tokenizer.fingerprint, tokenizer.declared_eos, tokenizer.declared_pad)
        assert seen.setdefault(found, same) == same
    # The three files differ, however the folders that hold them parse; no folder equals another.
    assert len(seen) == 2 + 3 + 6


def test_versions_of_the_libraries_count(
    fast: Path, slow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashes() -> list[str | None]:
        return [tokenizer_source_hash(source) for source in (fast, slow, "bytes")]

    before = hashes()
    monkeypatch.setattr(module, "version", {"tokenizers": "1", "transformers": "1"}.__getitem__)
    monkeypatch.setattr(module, "PackageNotFoundError", KeyError)
    first = hashes()
    monkeypatch.setattr(module, "version", {"tokenizers": "1", "transformers": "2"}.__getitem__)
    second = hashes()
    monkeypatch.setattr(module, "version", {"tokenizers": "2", "transformers": "2"}.__getitem__)
    third = hashes()
    changes = [
        [a != b for a, b in zip(one, other, strict=True)]
        for one, other in ((before, first), (first, second), (second, third))
    ]
    assert changes == [[True, True, False], [False, True, False], [True, True, False]]


def test_what_only_loading_tells(fast: Path, slow: Path, bpe: Tokenizer) -> None:
    function = CallableTokenizer(lambda t: [[0] for _ in t], vocab_size=1, identity="x")
    loaded = load_tokenizer(fast)
    for given in (bpe, function, loaded, loaded.spec(), ByT5Tokenizer(), None, 3):
        assert tokenizer_source_hash(given) is None
    for name in ("gpt2", "someone/something", "./nowhere", str(fast / "nothing.json")):
        assert tokenizer_source_hash(name) is None
    (slow / "link").symlink_to(fast)
    assert tokenizer_source_hash(slow) is None


def test_a_folder_with_code(slow: Path, fast: Path) -> None:
    for folder in (slow, fast):
        path = folder / "tokenizer_config.json"
        fields = json.loads(path.read_text())
        path.write_text(json.dumps(fields | {"auto_map": {"AutoTokenizer": ["a--b.C", None]}}))
    assert tokenizer_source_hash(slow) is None
    assert tokenizer_source_hash(fast) is not None  # its tokenizer.json is read, and no code


def test_weights_are_not_read(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WEIGHTS_BYTES", 100)
    before = tokenizer_source_hash(slow)
    (slow / "model.safetensors").write_bytes(b"x" * 100)
    assert tokenizer_source_hash(slow) == before
    (slow / "model.safetensors").write_bytes(b"x" * 99)
    assert tokenizer_source_hash(slow) != before
    (slow / "model.safetensors").rename(slow / "vocab.model")
    assert tokenizer_source_hash(slow) != before


def test_too_many_files(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(list(slow.iterdir()))
    monkeypatch.setattr(module, "_MAX_FILES", count)
    assert tokenizer_source_hash(slow) is not None
    monkeypatch.setattr(module, "_MAX_FILES", count - 1)
    assert tokenizer_source_hash(slow) is None


def test_loading_no_library(fast: Path, fresh_python: Callable[..., str]) -> None:
    program = (
        "import sys; from easydata.stages import tokenizer_source_hash as find;"
        "print(find(sys.argv[1]), [m for m in ('tokenizers', 'transformers') if m in sys.modules])"
    )
    expected = f"{tokenizer_source_hash(fast)} []\n"
    assert fresh_python(program, str(fast), hash_seed=4) == expected
