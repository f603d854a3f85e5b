"""From what a user passes to a job: arguments checked, tokenizer loaded, types agreed."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from easydata._paths import local_folder
from easydata.build.command import command_of
from easydata.build.job import BuildJob
from easydata.build.options import (
    BuildOptions,
    Recipe,
    available_cores,
    check_options,
    make_recipe,
    option_values,
)
from easydata.build.sample_options import DOCUMENTS
from easydata.build.task import MASK, BuildTask
from easydata.errors import TokenizerError, UsageError
from easydata.fingerprint import FunctionIdentity, identify_function
from easydata.format.directory import TOKENS
from easydata.sources import (
    Fields,
    RowTransform,
    Source,
    find_sources,
    infer_types,
    kept_features,
    sample_text_kind,
)
from easydata.stages import (
    ChatTemplate,
    Tokenizer,
    TokenizeStage,
    choose_dtype,
    load_tokenizer,
    resolve_special,
)

__all__ = [
    "TOKEN_OPTIONS",
    "Request",
    "check_request",
    "document_options",
    "documents_job",
    "prepare_job",
    "transform_identity",
]

# What the ids that a dataset holds follow from, besides the tokenizer.
TOKEN_OPTIONS = (
    *("parse_special", "add_bos", "add_eos", "bos_token", "eos_token", "pad_token", "dtype"),
)

_log = logging.getLogger("easydata")
_CHECKED = tuple(inspect.signature(check_options).parameters)
# Starting worker processes takes about as long as tokenizing this much in one thread.
_SMALL_BYTES = 2_000_000


class Request(NamedTuple):
    """What was asked for, checked as far as it can be without the tokenizer.

    Attributes:
        given: the sources as they were passed.
        options: the checked options.
        out: where to build.
        sources: what to read.
        transform: identity of the function that rows go through, if there is one.
        workers: how many processes shall tokenize; with one, this process does.
        is_fixed: this number was passed.
    """

    given: Sequence[Any]
    options: BuildOptions
    out: Path
    sources: Sequence[Source]
    transform: FunctionIdentity | None
    workers: int
    is_fixed: bool


def check_request(sources: Any, options: Mapping[str, Any]) -> Request:
    """Check the arguments, find the sources.

    Args:
        sources: as for `build`.
        options: all other arguments of `build` by name; `out` is None where nothing is written.

    Raises:
        EasyDataError: the first thing that is wrong.
    """
    checked = check_options(**{name: options[name] for name in _CHECKED})
    out = None if options["out"] is None else local_folder(options["out"], name="out")
    found = find_sources(
        sources,
        type=options["type"],
        storage_options=options["storage_options"],
        text_rows=options["text_rows"],
        retries=options["retries"],
        retry_delay=options["retry_delay"],
    )
    given = sources if isinstance(sources, list | tuple) else [sources]
    if out is not None:
        _refuse_own_output(out, given, found)
    return Request(
        given,
        checked,
        out or Path(os.devnull),
        found,
        transform_identity(options["transform"], options["transform_version"]),
        options["workers"] or _default_workers(found),
        options["workers"] is not None,
    )


def prepare_job(request: Request, options: Mapping[str, Any]) -> BuildJob:
    """Load the tokenizer, agree on types.

    Raises:
        EasyDataError: the first thing that is wrong; nothing was written.
    """
    checked, found = request.options, request.sources
    tokenizer = load_tokenizer(
        options["tokenizer"],
        parse_special=options["parse_special"] or None,
        trust_remote_code=options["trust_remote_code"],
    )
    chat, transform = _transform(request, options, tokenizer)
    if chat is not None:
        chat.check()
    if chat is not None and not options["parse_special"]:
        # The text of a conversation spells its special tokens, its BOS and EOS too.
        tokenizer = load_tokenizer(
            options["tokenizer"],
            parse_special=True,
            trust_remote_code=options["trust_remote_code"],
        )
    for note in tokenizer.notes:
        _log.warning("%s", note)
    pads = checked.samples is not None and checked.samples.pads(options["pad_token"])
    special = resolve_special(
        tokenizer,
        add_bos=options["add_bos"] and chat is None,
        add_eos=options["add_eos"] and chat is None,
        bos_token=options["bos_token"] if chat is None else None,
        eos_token=options["eos_token"] if chat is None else None,
        add_pad=checked.padding is not None or pads,
        pad_token=options["pad_token"],
    )
    dtype = choose_dtype(tokenizer.vocab_size, options["dtype"])
    keep = infer_types(found, checked.text_field, checked.keep_fields, options["schema"], transform)
    recipe = make_recipe(
        checked,
        keep={name: str(kind) for name, kind in keep.items()},
        tokenizer=tokenizer.fingerprint,
        bos_id=special.bos_id,
        eos_id=special.eos_id,
        pad_id=special.pad_id,
        dtype=dtype.name,
        transform=request.transform.fingerprint if request.transform else None,
        chat_template=chat.fingerprint if chat else None,
    )
    stage = TokenizeStage(
        tokenizer.spec(),
        dtype.name,
        bos_id=special.bos_id,
        eos_id=special.eos_id,
        min_tokens=checked.min_tokens,
        max_length=checked.max_length,
        batch_size=checked.batch_size,
        padding=checked.padding,
        pad_id=special.pad_id if checked.padding is not None else None,
        attention_mask=checked.attention_mask,
    )
    columns = {TOKENS: pa.list_(pa.from_numpy_dtype(dtype))}
    if checked.attention_mask:
        columns[MASK] = pa.list_(pa.uint8())
    return BuildJob(
        sources=found,
        out=request.out,
        options=checked,
        recipe=recipe,
        task=BuildTask(
            Fields(checked.text_field, keep, transform),
            stage,
            pa.schema({**columns, **keep}),
            tuple(checked.splits.values()) if checked.splits else (1.0,),
            checked.skip_bad,
        ),
        features=kept_features(found, keep, transform),
        tokenizer={
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": special.bos_id,
            "eos_id": special.eos_id,
            "pad_id": _known_pad(tokenizer) if special.pad_id is None else special.pad_id,
            "asked": {name: options[name] for name in TOKEN_OPTIONS},
        },
        tokenizer_files=tokenizer.files(),
        transform=request.transform,
        command=command_of(request.given, options),
    )


def document_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build` for the documents that samples are made of.

    They are not compressed, because samples take pieces from all over them.
    """
    return {
        **options,
        "out": Path(options["out"]) / DOCUMENTS,
        "compression": "none",
        "format": None,
        "pad_token": None,
        "seq_len": None,
        "pack": None,
        "shuffle": False,
        "seed": 0,
        "segment_ids": False,
    }


def documents_job(job: BuildJob, given: Sequence[Any], options: Mapping[str, Any]) -> BuildJob:
    """The job of the documents that another job makes samples of.

    Args:
        job: that one.
        given: the sources as they were passed.
        options: what `document_options` gave.
    """
    checked = check_options(**{name: options[name] for name in _CHECKED})
    of_samples = option_values(job.options)
    others = {name: v for name, v in job.recipe.values.items() if name not in of_samples}
    asked = {**job.tokenizer["asked"], "pad_token": None}
    return replace(
        job,
        out=options["out"],
        options=checked,
        recipe=Recipe({**others, **option_values(checked), "pad_id": None}),
        tokenizer={**job.tokenizer, "asked": asked},
        command=command_of(given, options),
        is_within_samples=True,
    )


def transform_identity(function: Any, version: str | None) -> FunctionIdentity | None:
    """Identity of the function that rows go through; None if there is none.

    Raises:
        UsageError: it cannot be identified, or there is a version of nothing.
    """
    if function is None:
        if version is not None:
            raise UsageError(
                f"transform_version is {version!r}, but there is no transform. "
                "Pass transform=..., or leave the version out."
            )
        return None
    return identify_function(function, version=version)


def _transform(
    request: Request, options: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[ChatTemplate | None, RowTransform | None]:
    """The template that conversations are rendered with, and everything done to a row."""
    checked = request.options
    rows = RowTransform(
        options["transform"],
        dict(checked.rename_fields),
        text=checked.text_field,
        identity=request.transform,
    )
    transform = rows if rows.function is not None or rows.rename else None
    template = tokenizer.chat_template
    if template is None or _kind_of_text(request, transform) == "text":
        return None, transform
    return template, replace(rows, render=template.render)


def _known_pad(tokenizer: Tokenizer) -> int | None:
    """The id for whoever fills up rows or samples later; None if there is none."""
    try:
        return resolve_special(tokenizer, add_bos=False, add_eos=False, add_pad=True).pad_id
    except TokenizerError:
        return None


def _kind_of_text(request: Request, transform: RowTransform | None) -> str:
    return sample_text_kind(request.sources, Fields(request.options.text_field, {}, transform))


def _refuse_own_output(out: Path, given: Sequence[Any], found: Sequence[Source]) -> None:
    """A dataset must not become part of its own input when it is built again."""
    inputs = [item for item in given if isinstance(item, str | os.PathLike)]
    folder = out.resolve()
    inside = [item for item in inputs if folder.is_relative_to(Path(item).resolve())]
    inside += [s.name for s in found if s.is_file and Path(s.name).resolve().is_relative_to(folder)]
    if inside:
        raise UsageError(
            f"out is {out}, which lies in the input {inside[0]} or holds it. "
            "Choose a folder apart from the input with --out."
        )


def _default_workers(sources: Sequence[Source]) -> int:
    sizes = [source.nbytes for source in sources]
    if None not in sizes and sum(size or 0 for size in sizes) < _SMALL_BYTES:
        return 1
    return available_cores()
