"""`easydata explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from easydata.build.explain import explain
from easydata.cli.values import parse_names, parse_pairs, parse_token

__all__ = ["explain_command"]


def _option(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, show_default=False)


def explain_command(
    path: Annotated[
        Path, typer.Argument(help="A dataset directory.", show_default=False, metavar="DIR")
    ],
    sources: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, quoted globs, or URLs.")
    ] = None,
    tokenizer: Annotated[str | None, _option("A tokenizer, as for build.")] = None,
    text_field: Annotated[str | None, _option("Field that holds the text.")] = None,
    keep_fields: Annotated[list[str] | None, _option("Other fields to keep: a,b.")] = None,
    rename_fields: Annotated[list[str] | None, _option("New names of fields: old=new.")] = None,
    compression: Annotated[str | None, _option("As for build.")] = None,
    dtype: Annotated[str | None, _option("Type of the token ids.")] = None,
    add_bos: Annotated[
        bool | None, _option("BOS before each row.", "--add-bos/--no-add-bos")
    ] = None,
    add_eos: Annotated[
        bool | None, _option("EOS after each row.", "--add-eos/--no-add-eos")
    ] = None,
    bos_token: Annotated[str | None, _option("Which token or id.")] = None,
    eos_token: Annotated[str | None, _option("Which token or id.")] = None,
    min_tokens: Annotated[int | None, _option("Least tokens of a row.")] = None,
    max_length: Annotated[int | None, _option("Most tokens of a row.")] = None,
    limit: Annotated[int | None, _option("Records to read, at most.")] = None,
    hash_fn: Annotated[
        str | None, _option("How changed files are told: combined, content or path.")
    ] = None,
) -> None:
    """Why a dataset would not do for a build; exit code 1 if it would not.

    \b
    easydata explain cache/corpus --tokenizer new/tokenizer.json
    easydata explain cache/corpus corpus/*.jsonl --max-length 2048

    Only what is given is compared; nothing is written.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if value is not None}
    del given["path"]
    for name, parse in (("bos_token", parse_token), ("eos_token", parse_token)):
        if name in given:
            given[name] = parse(given[name])
    if "keep_fields" in given:
        given["keep_fields"] = parse_names(given["keep_fields"])
    if "rename_fields" in given:
        given["rename_fields"] = parse_pairs(given["rename_fields"], "--rename-fields")
    if not given:
        typer.echo("Nothing to compare with: pass sources, --tokenizer or an option of build.")
        return
    reasons = explain(path, given.pop("sources", None), **given)
    for reason in reasons:
        typer.echo(reason)
    if reasons:
        raise typer.Exit(1)
    typer.echo(f"{path} is what that would build.")
