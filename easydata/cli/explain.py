"""`easydata explain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from easydata.build.explain import explain
from easydata.cli.values import parse_names, parse_pairs, parse_shares, parse_token

__all__ = ["explain_command"]

_PARSED: Mapping[str, Callable[[Any], Any]] = {
    "bos_token": parse_token,
    "eos_token": parse_token,
    "pad_token": parse_token,
    "keep_fields": parse_names,
    "rename_fields": partial(parse_pairs, option="--rename-fields"),
    "schema": partial(parse_pairs, option="--schema"),
    "storage_options": partial(parse_pairs, option="--storage-options"),
    "splits": partial(parse_shares, option="--splits"),
}


def _option(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, show_default=False)


def explain_command(
    path: Annotated[
        str, typer.Argument(help="A dataset directory.", show_default=False, metavar="DIR")
    ],
    sources: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, quoted globs, or URLs.")
    ] = None,
    tokenizer: Annotated[str | None, _option("A tokenizer, as for build.")] = None,
    text_field: Annotated[str | None, _option("Field that holds the text.")] = None,
    keep_fields: Annotated[list[str] | None, _option("Other fields to keep: a,b.")] = None,
    rename_fields: Annotated[list[str] | None, _option("New names of fields: old=new.")] = None,
    schema: Annotated[list[str] | None, _option("Types of kept fields: score=float64.")] = None,
    type: Annotated[str | None, _option("Read every file as this, as for build.")] = None,
    text_rows: Annotated[str | None, _option("What is a row of a text file.")] = None,
    storage_options: Annotated[
        list[str] | None, _option("Options of the URL's file system: anon=true.")
    ] = None,
    retries: Annotated[int | None, _option("Tries again of a failed remote read.")] = None,
    retry_delay: Annotated[float | None, _option("Seconds before the first of these.")] = None,
    compression: Annotated[str | None, _option("As for build.")] = None,
    format: Annotated[str | None, _option("ipc or parquet.")] = None,
    dtype: Annotated[str | None, _option("Type of the token ids.")] = None,
    shard_size: Annotated[str | None, _option("Bytes in a shard, at most.")] = None,
    part_size: Annotated[str | None, _option("Bytes of input in a part.")] = None,
    add_bos: Annotated[
        bool | None, _option("BOS before each row.", "--add-bos/--no-add-bos")
    ] = None,
    add_eos: Annotated[
        bool | None, _option("EOS after each row.", "--add-eos/--no-add-eos")
    ] = None,
    bos_token: Annotated[str | None, _option("Which token or id.")] = None,
    eos_token: Annotated[str | None, _option("Which token or id.")] = None,
    parse_special: Annotated[
        bool | None,
        _option("Text may spell special tokens.", "--parse-special/--no-parse-special"),
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        _option("Run a tokenizer's code.", "--trust-remote-code/--no-trust-remote-code"),
    ] = None,
    min_tokens: Annotated[int | None, _option("Least tokens of a row.")] = None,
    max_length: Annotated[int | None, _option("Most tokens of a row.")] = None,
    padding: Annotated[str | None, _option("longest or max_length.")] = None,
    pad_token: Annotated[str | None, _option("Which token or id.")] = None,
    attention_mask: Annotated[
        bool | None,
        _option("A column of what is no padding.", "--attention-mask/--no-attention-mask"),
    ] = None,
    batch_size: Annotated[int | None, _option("Texts in one call, at most.")] = None,
    seq_len: Annotated[int | None, _option("Tokens in a sample.")] = None,
    pack: Annotated[str | None, _option("How documents become samples.")] = None,
    shuffle: Annotated[
        bool | None, _option("Samples in a random order.", "--shuffle/--no-shuffle")
    ] = None,
    seed: Annotated[int | None, _option("Chooses that order.")] = None,
    segment_ids: Annotated[
        bool | None,
        _option("Columns that tell documents apart.", "--segment-ids/--no-segment-ids"),
    ] = None,
    limit: Annotated[int | None, _option("Records to read, at most.")] = None,
    on_error: Annotated[str | None, _option("raise or skip.")] = None,
    hash_fn: Annotated[
        str | None, _option("How changed files are told: combined, content or path.")
    ] = None,
    splits: Annotated[list[str] | None, _option("Shares by name: train=0.99,…")] = None,
) -> None:
    """Why a dataset would not do for a build; exit code 1 if it would not.

    \b
    easydata explain cache/corpus --tokenizer new/tokenizer.json
    easydata explain cache/corpus corpus/*.jsonl --max-length 2048

    Only what is given is compared; nothing is written.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if value is not None}
    del given["path"]
    for name, parse in _PARSED.items():
        if name in given:
            given[name] = parse(given[name])
    if not given:
        typer.echo("Nothing to compare with: pass sources, --tokenizer or an option of build.")
        return
    reasons = explain(path, given.pop("sources", None), **given)
    for reason in reasons:
        typer.echo(reason)
    if reasons:
        raise typer.Exit(1)
    typer.echo(f"{path} is what that would build.")
