"""A cheap identity of what a user passes as `tokenizer=`, found without loading it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from easydata.fingerprint import fingerprint_bytes, fingerprint_json
from easydata.stages.declared import COMPANIONS
from easydata.stages.stored import STORED_NAME

__all__ = ["tokenizer_source_hash"]

_KIND = "easydata tokenizer source 1"  # to be counted up when the same files load differently
_MAX_FILES = 1000
_WEIGHTS_BYTES = 64 << 20
_WEIGHTS = frozenset({".bin", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors"})
# By which of them are installed, transformers decides how to read a folder.
_READERS = ("tokenizers", "transformers", "sentencepiece", "tiktoken", "mistral-common")
# Code that comes with a folder may read anything, and may be another tomorrow.
_CODE = b'"auto_map"'


def tokenizer_source_hash(tokenizer: Any) -> str | None:
    """An identity of the tokenizer that `load_tokenizer` would make, without the work of it.

    Equal hashes mean equal tokenizers, given equal options of `load_tokenizer`; only the names
    that they bear may differ. The same tokenizer may have several hashes: one as a file, another
    as a folder, another for each version of the libraries that read it.

    Args:
        tokenizer: as for `load_tokenizer`.

    Returns:
        32 hexadecimal digits, or None where only loading tells: for objects, for HuggingFace
        names, for what cannot be read, and for folders without a tokenizer.json that hold code, a
        link to a folder, or more than 1,000 files.
    """
    if isinstance(tokenizer, str) and tokenizer == "bytes":
        return fingerprint_json([_KIND, "bytes"])
    if not isinstance(tokenizer, str | os.PathLike):
        return None
    path = Path(tokenizer).expanduser()
    try:
        if path.is_dir():
            return _hash_folder(path)
        return _hash_file(path, {}) if path.is_file() else None
    except OSError:  # loading it will say what is wrong
        return None


def _hash_folder(folder: Path) -> str | None:
    stored = _hash_of(folder / STORED_NAME)
    path = folder / "tokenizer.json"
    if path.is_file():
        return _hash_file(path, {STORED_NAME: stored} if stored else {})
    hashes: dict[str, str] = {}
    for file in _files(folder):
        if len(hashes) == _MAX_FILES or file.is_dir():
            return None
        if file.suffix in _WEIGHTS and file.stat().st_size >= _WEIGHTS_BYTES:
            continue
        data = file.read_bytes()
        if file.suffix == ".json" and _CODE in data:
            return None
        hashes[file.relative_to(folder).as_posix()] = fingerprint_bytes(data)
    return fingerprint_json([_KIND, hashes, [_version(name) for name in _READERS]])


def _hash_file(path: Path, others: dict[str, str]) -> str:
    hashes = dict(others)
    for name in COMPANIONS:
        found = _hash_of(path.parent / name)
        if found is not None:
            hashes[name] = found
    data = fingerprint_bytes(path.read_bytes())
    return fingerprint_json([_KIND, data, hashes, _version("tokenizers")])


def _hash_of(path: Path) -> str | None:
    try:
        return fingerprint_bytes(path.read_bytes())
    except FileNotFoundError:
        return None


def _files(folder: Path) -> Iterator[Path]:
    """All files below the folder, and the links to folders, which are not followed."""
    for root, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in [*links, *names]:
            yield Path(root, name)


def _raise(error: OSError) -> NoReturn:
    raise error


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
