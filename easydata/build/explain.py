"""Why a dataset would not do for a build, without building."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easydata.build.api import build
from easydata.build.existing import Existing, inspect_output
from easydata.build.options import check_options, option_values
from easydata.build.prepare import transform_identity
from easydata.build.reasons import option_differences, tokenizer_reasons, transform_reasons
from easydata.errors import NotADatasetError, UsageError
from easydata.sources import find_sources
from easydata.stages import choose_dtype, load_tokenizer, resolve_special

__all__ = ["explain"]

_DEFAULTS = {name: item.default for name, item in inspect.signature(build).parameters.items()}
_CHECKED = tuple(inspect.signature(check_options).parameters)
_OF_TOKENIZER = ("add_bos", "add_eos", "bos_token", "eos_token", "pad_token", "dtype")
_OF_SOURCES = ("type", "text_rows", "storage_options", "retries", "retry_delay")
_OF_TRANSFORM = ("transform", "transform_version")
_OTHER = ("parse_special", "trust_remote_code", "hash_fn", "tokenizer", "sources")


def explain(
    path: str | os.PathLike[str], sources: Any = None, *, tokenizer: Any = None, **options: Any
) -> list[str]:
    """Why `build` would not take the dataset at `path` for what it is asked to make.

    Only what is given is compared. Nothing is written.

    >>> explain("cache/corpus", tokenizer="new/tokenizer.json")  # doctest: +SKIP
    ['tokenizer changed: vocab 32000 → 32001']

    Args:
        path: a dataset directory, or one of splits.
        sources: as for `build`.
        tokenizer: as for `build`.
        options: any others of `build` that shape a dataset.

    Returns:
        One line for each reason; an empty list where nothing that was given differs.

    Raises:
        NotADatasetError: `build` made no complete dataset there.
        UsageError: an option is wrong, or is none of `build`.
    """
    existing = inspect_output(Path(path), overwrite=False)
    if existing is None:
        raise NotADatasetError(f"{path} holds no complete dataset that easydata built.")
    _check_names(options)
    found: list[str] = []
    if tokenizer is not None:
        found += _tokenizer(existing, tokenizer, options)
    elif any(name in options for name in _OF_TOKENIZER):
        found += _special(existing, _stored_tokenizer(existing), options)
    if any(name in options for name in _OF_TRANSFORM):
        identity = transform_identity(options.get("transform"), options.get("transform_version"))
        if (identity and identity.fingerprint) != existing.metadata["recipe"]["transform"]:
            found += transform_reasons(existing, identity)
    found += _options(existing, options)
    if sources is not None:
        reading = {name: options.get(name, _DEFAULTS[name]) for name in _OF_SOURCES}
        hash_fn = options.get("hash_fn", _DEFAULTS["hash_fn"])
        found += existing.changed_sources(find_sources(sources, **reading), hash_fn)
    return found


def _stored_tokenizer(existing: Existing) -> Any:
    """The tokenizer beside the data.

    Raises:
        UsageError: it is code, which is not stored.
    """
    name = existing.metadata["tokenizer"]["folder"]
    if name is None:
        raise UsageError(
            f"The tokenizer of {existing.out} is code that is not stored. Pass tokenizer=..., too."
        )
    return load_tokenizer(next(iter(existing.folders.values())) / name)


def _check_names(options: Mapping[str, Any]) -> None:
    known = {*_CHECKED, *_OF_TOKENIZER, *_OF_SOURCES, *_OF_TRANSFORM, *_OTHER} - {"workers"}
    for name in options:
        if name not in known:
            raise UsageError(f"{name!r} is no option of build that shapes a dataset.")


def _tokenizer(existing: Existing, tokenizer: Any, options: Mapping[str, Any]) -> list[str]:
    recorded = existing.metadata["recipe"]
    new = load_tokenizer(
        tokenizer,
        # Where conversations were rendered their special tokens counted.
        parse_special=bool(options.get("parse_special") or recorded["chat_template"]) or None,
        trust_remote_code=bool(options.get("trust_remote_code")),
    )
    found = []
    if new.fingerprint != recorded["tokenizer"]:
        facts = {"name": new.name, "vocab_size": new.vocab_size}
        found += tokenizer_reasons(existing, facts, new.files())
    if recorded["chat_template"] is not None:
        template = new.chat_template.fingerprint if new.chat_template else None
        found += option_differences(recorded, {"chat_template": template}, ["chat_template"])
    return found + _special(existing, new, options)


def _special(existing: Existing, tokenizer: Any, options: Mapping[str, Any]) -> list[str]:
    recorded = existing.metadata["recipe"]
    given = {name: options.get(name, _DEFAULTS[name]) for name in _OF_TOKENIZER}
    # What was not asked for is as it was.
    for which in ("bos", "eos"):
        if f"add_{which}" not in options and f"{which}_token" not in options:
            given[f"add_{which}"] = recorded[f"{which}_id"] is not None
            given[f"{which}_token"] = None
    special = resolve_special(
        tokenizer,
        add_bos=given["add_bos"],
        add_eos=given["add_eos"],
        bos_token=given["bos_token"],
        eos_token=given["eos_token"],
        add_pad=recorded["padding"] is not None,
        pad_token=given["pad_token"],
    )
    now: dict[str, Any] = {}
    for which in ("bos", "eos", "pad"):
        if f"{which}_token" in options or f"add_{which}" in options:
            now[f"{which}_id"] = getattr(special, f"{which}_id")
    if "dtype" in options:
        now["dtype"] = choose_dtype(tokenizer.vocab_size, options["dtype"]).name
    return option_differences(recorded, now, list(now))


def _options(existing: Existing, options: Mapping[str, Any]) -> list[str]:
    given = {name: value for name, value in options.items() if name in _CHECKED}
    recorded = existing.metadata["recipe"]
    # An option that was not given is taken as it was where another one needs it.
    kept = {name: recorded[name] for name in ("padding", "max_length", "batch_size")}
    defaults = {name: _DEFAULTS[name] for name in _CHECKED}
    kept["attention_mask"] = recorded["attention_mask"]
    checked = check_options(**{**defaults, **kept, **given})
    values = option_values(checked)
    names = [name for name in values if name in given]
    if "keep_fields" in given:
        values["keep_fields"] = list(checked.keep_fields)
        before = {**recorded, "keep_fields": [name for name, _ in recorded["keep_fields"]]}
        return option_differences(before, values, [*names, "keep_fields"])
    return option_differences(recorded, values, names)
