"""`easydata build`."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, cast, get_args

import typer

from easydata._units import format_bytes, format_count
from easydata.build import build
from easydata.build.estimate import BuildEstimate
from easydata.build.progress import ProgressKind
from easydata.build.run import Replace, estimate_build, run
from easydata.cli.values import parse_names, parse_pairs, parse_shares, parse_token
from easydata.errors import UsageError
from easydata.loader.packing_plan import Strategy

__all__ = ["build_command"]

# One default for each option, whether it is given in Python or here.
_DEFAULTS = {name: item.default for name, item in inspect.signature(build).parameters.items()}


def _option(name: str, help_text: str, **settings: Any) -> Any:
    return typer.Option(help=help_text, show_default=_DEFAULTS[name] is not None, **settings)


def build_command(
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders, quoted globs, or URLs.", show_default=False)
    ],
    tokenizer: Annotated[
        str,
        typer.Option(
            help="A tokenizer.json file, a folder, a HuggingFace name, or 'bytes'.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str, typer.Option(help="The dataset directory to make.", show_default=False, metavar="DIR")
    ],
    text_field: Annotated[str, _option("text_field", "Field that holds the text.")] = _DEFAULTS[
        "text_field"
    ],
    keep_fields: Annotated[
        list[str], typer.Option(help="Other fields to keep: a,b.", show_default=False)
    ] = [],  # noqa: B006 - typer copies it
    rename_fields: Annotated[
        list[str], typer.Option(help="New names of fields: old=new.", show_default=False)
    ] = [],  # noqa: B006 - typer copies it
    schema: Annotated[
        list[str],
        typer.Option(help="Types of kept fields: score=float64,year=int32.", show_default=False),
    ] = [],  # noqa: B006 - typer copies it
    type: Annotated[
        str | None,
        _option("type", "Read every file as jsonl, json, text, csv, tsv, parquet or arrow."),
    ] = _DEFAULTS["type"],
    text_rows: Annotated[
        str, _option("text_rows", "What is a row of a text file: file, line or paragraph.")
    ] = _DEFAULTS["text_rows"],
    storage_options: Annotated[
        list[str],
        typer.Option(help="Options of the URL's file system: anon=true.", show_default=False),
    ] = [],  # noqa: B006 - typer copies it
    retries: Annotated[
        int, _option("retries", "How often a failed read of a remote file is tried again.")
    ] = _DEFAULTS["retries"],
    retry_delay: Annotated[
        float, _option("retry_delay", "Seconds before the first of these; then twice as long.")
    ] = _DEFAULTS["retry_delay"],
    compression: Annotated[
        str, _option("compression", "none, lz4, zstd, zstd:LEVEL or gzip (Parquet).")
    ] = _DEFAULTS["compression"],
    format: Annotated[
        str | None, _option("format", "ipc or parquet; parquet with gzip, else ipc.")
    ] = _DEFAULTS["format"],
    workers: Annotated[
        int | None, _option("workers", "Pieces to tokenize at a time; one for each core.")
    ] = _DEFAULTS["workers"],
    dtype: Annotated[
        str, _option("dtype", "Type of the token ids: auto, uint8, uint16, uint32, int32, int64.")
    ] = _DEFAULTS["dtype"],
    shard_size: Annotated[str, _option("shard_size", "Bytes in a shard, at most.")] = _DEFAULTS[
        "shard_size"
    ],
    part_size: Annotated[
        str, _option("part_size", "Bytes of input in a part, the unit of resuming.")
    ] = _DEFAULTS["part_size"],
    add_bos: Annotated[bool, _option("add_bos", "Put BOS before each row.")] = _DEFAULTS["add_bos"],
    add_eos: Annotated[bool, _option("add_eos", "Put EOS after each row.")] = _DEFAULTS["add_eos"],
    bos_token: Annotated[
        str | None, _option("bos_token", "Which token or id; the one the tokenizer declares.")
    ] = _DEFAULTS["bos_token"],
    eos_token: Annotated[
        str | None, _option("eos_token", "Which token or id; the one the tokenizer declares.")
    ] = _DEFAULTS["eos_token"],
    parse_special: Annotated[
        bool, _option("parse_special", "Let text that spells a special token become it.")
    ] = _DEFAULTS["parse_special"],
    trust_remote_code: Annotated[
        bool, _option("trust_remote_code", "Run the code that comes with a tokenizer.")
    ] = _DEFAULTS["trust_remote_code"],
    min_tokens: Annotated[
        int, _option("min_tokens", "Leave out rows with fewer tokens.")
    ] = _DEFAULTS["min_tokens"],
    max_length: Annotated[
        int | None, _option("max_length", "Cut rows to this many tokens.")
    ] = _DEFAULTS["max_length"],
    padding: Annotated[
        str | None, _option("padding", "Fill rows up: longest (of a batch) or max_length.")
    ] = _DEFAULTS["padding"],
    pad_token: Annotated[
        str | None, _option("pad_token", "With which token or id; the one the tokenizer declares.")
    ] = _DEFAULTS["pad_token"],
    attention_mask: Annotated[
        bool, _option("attention_mask", "Keep a column that tells tokens from padding.")
    ] = _DEFAULTS["attention_mask"],
    batch_size: Annotated[
        int | None, _option("batch_size", "Texts in one call of the tokenizer, at most.")
    ] = _DEFAULTS["batch_size"],
    seq_len: Annotated[
        int | None, _option("seq_len", "Make samples of so many tokens out of the documents.")
    ] = _DEFAULTS["seq_len"],
    pack: Annotated[
        str | None,
        _option("pack", f"How: {', '.join(get_args(Strategy))}; concat by default."),
    ] = _DEFAULTS["pack"],
    shuffle: Annotated[
        bool, _option("shuffle", "Write the samples in a random order.")
    ] = _DEFAULTS["shuffle"],
    seed: Annotated[int, _option("seed", "Chooses that order.")] = _DEFAULTS["seed"],
    segment_ids: Annotated[
        bool, _option("segment_ids", "Keep the columns segment_ids and positions of samples.")
    ] = _DEFAULTS["segment_ids"],
    limit: Annotated[int | None, _option("limit", "Read this many records at most.")] = _DEFAULTS[
        "limit"
    ],
    on_error: Annotated[
        str, _option("on_error", "What to do with a broken row: raise or skip.")
    ] = _DEFAULTS["on_error"],
    hash_fn: Annotated[
        str, _option("hash_fn", "How changed files are told: combined, content or path.")
    ] = _DEFAULTS["hash_fn"],
    splits: Annotated[
        list[str],
        typer.Option(help="Shares by name: train=0.99,validation=0.01.", show_default=False),
    ] = [],  # noqa: B006 - typer copies it
    progress: Annotated[
        str, _option("progress", "auto, rich, tqdm, json (lines on standard error) or none.")
    ] = _DEFAULTS["progress"],
    overwrite: Annotated[
        bool, _option("overwrite", "Replace a dataset made from something else.")
    ] = _DEFAULTS["overwrite"],
    dry_run: Annotated[
        bool, _option("dry_run", "Write nothing; estimate what it would make and take.")
    ] = _DEFAULTS["dry_run"],
) -> None:
    """Tokenize text into a dataset directory, once.

    \b
    easydata build corpus/*.jsonl.zst --tokenizer tokenizer.json --out cache/corpus
    easydata build notes/ --tokenizer bytes --out cache/notes --text-rows paragraph
    easydata build data.csv --tokenizer gpt2 --out cache/data --text-field body --keep-fields id
    easydata build notes/ --tokenizer bytes --out cache/samples --seq-len 512 --shuffle

    Run again with the same inputs it does nothing; killed and run again it continues.
    """
    options: dict[str, Any] = {name: v for name, v in locals().items() if name in _DEFAULTS}
    for name in ("sources", "progress", "overwrite", "dry_run"):
        del options[name]
    options |= {
        "keep_fields": parse_names(keep_fields),
        "rename_fields": parse_pairs(rename_fields, "--rename-fields") or None,
        "transform": None,
        "transform_version": None,
        "schema": parse_pairs(schema, "--schema") or None,
        "storage_options": parse_pairs(storage_options, "--storage-options") or None,
        "bos_token": parse_token(bos_token),
        "eos_token": parse_token(eos_token),
        "pad_token": parse_token(pad_token),
        "splits": parse_shares(splits, "--splits"),
    }
    if progress not in get_args(ProgressKind):
        raise UsageError(f"progress is {progress!r}; choose {', '.join(get_args(ProgressKind))}.")
    if dry_run:
        _print_estimate(estimate_build(sources, options))
        return
    replace: Replace = "always" if overwrite else "never"
    report = run(sources, options, progress=cast("ProgressKind", progress), replace=replace)
    typer.echo(report.summary)


def _print_estimate(found: BuildEstimate) -> None:
    typer.echo(f"sources        {found.sources}")
    if found.rows is None or found.input_bytes is None:
        typer.echo("The size of the input is not known, so there is no estimate.")
        return
    typer.echo(f"input          {format_bytes(found.input_bytes)}")
    typer.echo(f"rows           about {format_count(found.rows)}")
    if found.samples is not None:
        typer.echo(f"samples        about {format_count(found.samples)}")
    typer.echo(f"tokens         about {format_count(found.tokens or 0)}")
    typer.echo(f"output         about {format_bytes(found.output_bytes or 0)}")
    typer.echo(f"time           about {found.seconds:.0f} s with {found.workers} workers")
    typer.echo(f"judged by      {format_count(found.sampled_rows)} rows; nothing was written")
