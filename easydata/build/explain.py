"""Why a dataset would not do for a build, without building."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easydata._paths import local_folder
from easydata.build.api import build
from easydata.build.existing import Existing, inspect_output
from easydata.build.options import check_options, option_values
from easydata.build.prepare import TOKEN_OPTIONS, transform_identity
from easydata.build.reasons import option_differences, tokenizer_reasons, transform_reasons
from easydata.build.sample_options import NO_SAMPLES
from easydata.errors import NotADatasetError, UsageError
from easydata.sources import find_sources
from easydata.sources.sample import given_types
from easydata.stages import choose_dtype, load_tokenizer, resolve_special

__all__ = ["EXPLAINED", "explain"]

_DEFAULTS = {name: item.default for name, item in inspect.signature(build).parameters.items()}
_CHECKED = tuple(inspect.signature(check_options).parameters)
_OF_SOURCES = ("type", "text_rows", "storage_options", "retries", "retry_delay")
_OF_TRANSFORM = ("transform", "transform_version")
_OTHER = ("schema", "trust_remote_code", "hash_fn")

EXPLAINED = frozenset({*_CHECKED, *TOKEN_OPTIONS, *_OF_SOURCES, *_OF_TRANSFORM, *_OTHER})
EXPLAINED -= {"workers"}
"""The options of `build` that `explain` takes."""


def explain(
    path: str | os.PathLike[str], sources: Any = None, *, tokenizer: Any = None, **options: Any
) -> list[str]:
    """Why `build` would not take the dataset at `path` for what it is asked to make.

    Only what is given is compared, as if all else were passed as it was then. Nothing is written.

    So `explain("cache/corpus", tokenizer="new/tokenizer.json")` may give
    `["tokenizer changed: vocab 32000 → 32001"]`.

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
    existing = inspect_output(local_folder(path, name="path"), overwrite=False)
    if existing is None:
        raise NotADatasetError(f"{path} holds no complete dataset that easydata built.")
    for name in options:
        if name not in EXPLAINED:
            raise UsageError(f"{name!r} is no option of build that shapes a dataset.")
    recorded = existing.metadata["recipe"]
    found: list[str] = []
    if tokenizer is not None or any(name in options for name in TOKEN_OPTIONS):
        found += _tokenizer(existing, tokenizer, options)
    if any(name in options for name in _OF_TRANSFORM):
        identity = transform_identity(options.get("transform"), options.get("transform_version"))
        if (identity and identity.fingerprint) != recorded["transform"]:
            found += transform_reasons(existing, identity)
    found += _options(recorded, options)
    if sources is not None:
        then = {"type": recorded["type"], "text_rows": recorded["text_rows"]}
        reading = {name: ({**_DEFAULTS, **then} | options)[name] for name in _OF_SOURCES}
        hash_fn = options.get("hash_fn", _DEFAULTS["hash_fn"])
        found += existing.changed_sources(find_sources(sources, **reading), hash_fn)
    return found


def _tokenizer(existing: Existing, tokenizer: Any, options: Mapping[str, Any]) -> list[str]:
    """What differs by the tokenizer, and the ids that follow from it and its options."""
    recorded = existing.metadata["recipe"]
    asked = {**existing.metadata["tokenizer"]["asked"], **options}
    # Where conversations were rendered their special tokens counted, and no BOS or EOS was added.
    is_chat = recorded["chat_template"] is not None
    parse_special = asked["parse_special"] or is_chat or None
    if tokenizer is None:
        tokenizer = _stored_tokenizer(existing)  # which says what was asked of it
        if not is_chat:
            parse_special = options.get("parse_special")
    new = load_tokenizer(
        tokenizer,
        parse_special=parse_special,
        trust_remote_code=bool(options.get("trust_remote_code")),
    )
    found = []
    if new.fingerprint != recorded["tokenizer"]:
        facts = {"name": new.name, "vocab_size": new.vocab_size}
        found += tokenizer_reasons(existing, facts, new.files())
    pads = existing.holds_samples and (
        recorded["pack"] != "concat" or asked["pad_token"] is not None
    )
    special = resolve_special(
        new,
        add_bos=asked["add_bos"] and not is_chat,
        add_eos=asked["add_eos"] and not is_chat,
        bos_token=None if is_chat else asked["bos_token"],
        eos_token=None if is_chat else asked["eos_token"],
        add_pad=recorded["padding"] is not None or pads,
        pad_token=asked["pad_token"],
    )
    now = {
        "bos_id": special.bos_id,
        "eos_id": special.eos_id,
        "pad_id": special.pad_id,
        "dtype": choose_dtype(new.vocab_size, asked["dtype"]).name,
    }
    if is_chat:
        now["chat_template"] = new.chat_template.fingerprint if new.chat_template else None
    return found + option_differences(recorded, now)


def _stored_tokenizer(existing: Existing) -> Path:
    """The tokenizer beside the data.

    Raises:
        UsageError: it is code, which is not stored.
    """
    name = existing.metadata["tokenizer"]["folder"]
    if name is None:
        raise UsageError(
            f"The tokenizer of {existing.out} is code that is not stored. Pass tokenizer=..., too."
        )
    return next(iter(existing.folders.values())) / name


def _options(recorded: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """The other options that differ."""
    given = {name: value for name, value in options.items() if name in _CHECKED}
    # An option that was not given is taken as it was where another one needs it.
    then = {"padding", "attention_mask", "max_length", "batch_size", *NO_SAMPLES}
    if given.get("seq_len", 1) is None:
        then -= NO_SAMPLES.keys()  # they were given up with it
    if not given.get("shuffle", True):
        then.discard("seed")
    values = {name: _DEFAULTS[name] for name in _CHECKED}
    values |= {name: recorded[name] for name in then if recorded.get(name) is not None} | given
    needs = {"max_length": "max_length", "longest": "batch_size"}.get(values["padding"])
    if "padding" not in given and needs is not None and values[needs] is None:
        values["padding"] = None  # it was given up with what it needs
    if "attention_mask" not in given and values["padding"] is None:
        values["attention_mask"] = False
    checked = {**NO_SAMPLES, **option_values(check_options(**values))}
    found = option_differences(recorded, {name: checked[name] for name in checked if name in given})
    before = dict(recorded["keep_fields"])
    names = list(given.get("keep_fields", before))
    if names != list(before):
        found += option_differences({"keep_fields": list(before)}, {"keep_fields": names})
    if options.get("schema"):
        kinds = {name: str(kind) for name, kind in given_types(options["schema"]).items()}
        now = [[name, kinds.get(name, kind)] for name, kind in before.items()]
        found += option_differences(recorded, {"keep_fields": now})
    return found
