"""Why a dataset that is there is another one than a build asks for, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easydata.build.existing import Existing
from easydata.build.job import BuildJob
from easydata.build.sample_options import NO_SAMPLES
from easydata.fingerprint import FunctionIdentity, differences
from easydata.stages import tokenizer_differences

__all__ = [
    "option_differences",
    "reasons_to_rebuild",
    "tokenizer_reasons",
    "transform_reasons",
]


def reasons_to_rebuild(existing: Existing, job: BuildJob) -> list[str]:
    """What makes the dataset another than the one asked for, as far as it is known at once.

    A source without an identity (an iterable of rows) is compared when it is read.
    """
    before, now = existing.metadata["recipe"], job.recipe.values
    found = []
    if before["tokenizer"] != now["tokenizer"]:
        found += tokenizer_reasons(existing, job.tokenizer, job.tokenizer_files)
    if before["transform"] != now["transform"]:
        found += transform_reasons(existing, job.transform)
    others = {**NO_SAMPLES, **now}
    del others["tokenizer"], others["transform"]
    found += option_differences(before, others)
    return found + existing.changed_sources(job.sources, job.options.hash_fn)


def tokenizer_reasons(
    existing: Existing, tokenizer: Mapping[str, Any], files: Mapping[str, bytes]
) -> list[str]:
    """How the tokenizer that made the dataset differs from another one.

    Args:
        existing: the dataset.
        tokenizer: what a ledger would say of the other one.
        files: those of the other one.
    """
    before = existing.metadata["tokenizer"]
    stored = existing.tokenizer_files()
    found: list[str] = []
    if stored and files:
        found = tokenizer_differences(stored, files)
    elif before["vocab_size"] != tokenizer["vocab_size"]:
        found = [f"vocab {before['vocab_size']} → {tokenizer['vocab_size']}"]
    if not found:
        found = [f"{before['name']} → {tokenizer['name']}"]
        if before["name"] == tokenizer["name"]:
            found = [f"{before['name']} has another fingerprint"]
    return [f"tokenizer changed: {', '.join(found)}"]


def transform_reasons(existing: Existing, transform: FunctionIdentity | None) -> list[str]:
    """How the function that rows went through differs from another one."""
    recorded = existing.metadata["transform"]
    if recorded is None:
        return [f"transform changed: none → {transform.name}"] if transform else []
    before = FunctionIdentity.from_json(recorded)
    if transform is None:
        return [f"transform changed: {before.name} → none"]
    return [f"transform changed: {', '.join(differences(before, transform))}"]


def option_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The options in `now` that were others before."""
    before = {**NO_SAMPLES, **before}
    return [
        f"{name} changed: {_shown(name, before.get(name))} → {_shown(name, value)}"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    # A template is too long to be shown; its fingerprint tells one from another.
    return str(value)[:8] if name == "chat_template" else str(value)
