"""Where the tokens of a dataset are cached.

A slot is a dataset directory below `cache_dir/NAME`, named after what was asked for: the data as
the configuration names it, and every option that shapes tokens. So two configurations that take
turns do not drive each other out, while a file that changes is found in the slot it was in, and is
the only one to be tokenized again. Slots of one dataset lend each other finished parts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easydata.build.existing import Existing, inspect_output
from easydata.errors import EasyDataError
from easydata.fingerprint import fingerprint_json, identify_function
from easydata.stages import load_tokenizer, tokenizer_source_hash

if TYPE_CHECKING:
    from easydata.pipeline.config import DatasetConfig

__all__ = ["Slot", "age_of", "find_slot"]

_UNSAFE = re.compile(r"[^\w.-]+")
_DIGITS = 16
# What may change without making other tokens: it stays out of a slot's name.
_IGNORED = ("workers", "storage_options", "retries", "retry_delay", "hash_fn", "trust_remote_code")


@dataclass(frozen=True)
class Slot:
    """Where the tokens of one dataset lie.

    Attributes:
        path: the dataset directory; it need not exist.
        is_own: the configuration names it (`cache_path`); it is replaced when anything changes.
    """

    path: Path
    is_own: bool = False

    def siblings(self) -> Iterator[Existing]:
        """The other complete slots of the dataset, the newest first."""
        if self.is_own or not self.path.parent.is_dir():
            return
        others = [item for item in self.path.parent.iterdir() if item.is_dir()]
        for folder in sorted(others, key=lambda item: item.stat().st_mtime, reverse=True):
            if folder != self.path:
                existing = _open(folder)
                if existing is not None:
                    yield existing


def find_slot(dataset: DatasetConfig, arguments: Mapping[str, Any], folder: Path) -> Slot:
    """The slot of a dataset.

    Args:
        dataset: its configuration.
        arguments: those of `build`, by name.
        folder: the cache directory.
    """
    if dataset.cache_path is not None:
        return Slot(Path(dataset.cache_path), is_own=True)
    shaping = {
        name: value
        for name, value in arguments.items()
        if name not in (*_IGNORED, "tokenizer", "transform")
    }
    transform, version = arguments["transform"], arguments["transform_version"]
    identity = fingerprint_json(
        {
            **shaping,
            "data": _named(dataset.data_files),
            "split": [dataset.type, dataset.split, dataset.dataset_split_name],
            "tokenizer": _tokenizer_identity(arguments),
            "transform": transform and identify_function(transform, version=version).fingerprint,
        }
    )
    name = _UNSAFE.sub("-", str(dataset.name)).strip(".") or "dataset"
    return Slot(folder / name / identity[:_DIGITS])


def age_of(existing: Existing) -> float:
    """Seconds since a dataset was made."""
    return time.time() - float(existing.metadata["cache"]["created_at"])


def _named(data: Any) -> Any:
    """Files by name; an object by its kind: its content is compared when it is read."""
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, tuple | list):
        return [_named(item) for item in data[:1] if not isinstance(item, str | Path)] or [
            str(item) for item in data
        ]
    return f"a {type(data).__name__}"


def _tokenizer_identity(arguments: Mapping[str, Any]) -> str:
    tokenizer, trust = arguments["tokenizer"], arguments["trust_remote_code"]
    known = tokenizer_source_hash(tokenizer)
    return known or load_tokenizer(tokenizer, trust_remote_code=trust).fingerprint


def _open(folder: Path) -> Existing | None:
    try:
        return inspect_output(folder, overwrite=True)
    except EasyDataError:
        return None  # it belongs to someone else
