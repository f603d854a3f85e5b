"""`easydata info`, `head` and `verify`: look at a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from easydata._paths import local_folder
from easydata._units import format_bytes, format_count
from easydata.dataset import TokenDataset, open_dataset, open_splits
from easydata.dataset.info import dataset_info
from easydata.errors import DatasetError, UsageError
from easydata.format.directory import STATE_FILE, read_splits

__all__ = ["head_command", "info_command", "verify_command"]

_IDS_SHOWN = 24
_CHARACTERS_SHOWN = 1000
DatasetPath = Annotated[
    str, typer.Argument(help="A dataset directory.", show_default=False, metavar="DIR")
]


def _open_all(path: str) -> list[TokenDataset]:
    """The dataset at `path`, or all its splits."""
    folder = local_folder(path, name="path")
    if read_splits(folder) is not None and not (folder / STATE_FILE).exists():
        return list(open_splits(folder).values())
    return [open_dataset(folder)]


def info_command(
    path: DatasetPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rows, tokens, bytes and identities of a dataset.

    \b
    easydata info cache/corpus
    easydata info cache/corpus --json | jq .tokens
    """
    found = [dataset_info(dataset) for dataset in _open_all(path)]
    if as_json:
        values = [asdict(item) for item in found]
        typer.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))
        return
    for item in found:
        for name, value in _lines(asdict(item)):
            typer.echo(f"{name:<16}{value}")
        if item is not found[-1]:
            typer.echo()


def _lines(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = name.replace("_", " ")
        if value is None or (name in ("skipped", "short", "truncated") and not value):
            continue
        if name == "bytes":
            yield label, f"{format_bytes(value)} ({value:,})"
        elif name == "created_at":
            yield label, datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
        elif name == "columns":
            yield label, ", ".join(f"{column}: {kind}" for column, kind in value.items())
        elif name == "bits_per_token":
            yield label, f"{value:.2f}"
        elif isinstance(value, int) and name not in ("bos_id", "eos_id"):
            yield label, f"{value:,}"
        else:
            yield label, str(value)


def head_command(
    path: DatasetPath,
    rows: Annotated[int, typer.Option("-n", "--rows", help="How many rows.")] = 3,
    decode: Annotated[bool, typer.Option(help="Show text instead of token ids.")] = False,
    full: Annotated[bool, typer.Option(help="Show whole rows, however long.")] = False,
) -> None:
    """The first rows of a dataset, as token ids or as text.

    \b
    easydata head cache/corpus -n 3 --decode
    """
    if rows < 1:
        raise UsageError(f"--rows is {rows}; it must be at least 1.")
    for dataset in _open_all(path):
        for index in range(min(rows, len(dataset))):
            row = dataset[index]
            ids = row.pop("input_ids")
            typer.echo(f"row {index}: {len(ids):,} tokens{_origin(dataset, index)}")
            for name, value in row.items():
                typer.echo(f"{name}: {value!r}")
            if decode:
                text = dataset.decode(index)
                typer.echo(text if full else _shortened(text))
            else:
                shown = ids if full else ids[:_IDS_SHOWN]
                more = " …" if len(shown) < len(ids) else ""
                typer.echo(" ".join(map(str, shown.tolist())) + more)
            typer.echo()


def _shortened(text: str) -> str:
    rest = len(text) - _CHARACTERS_SHOWN
    if rest <= 0:
        return text
    return f"{text[:_CHARACTERS_SHOWN]} … ({rest:,} more characters: --full shows them)"


def _origin(dataset: TokenDataset, index: int) -> str:
    try:
        source, record = dataset.lineage(index)
    except DatasetError:
        return ""
    return f", {source}, record {record}"


def verify_command(path: DatasetPath) -> None:
    """Check every byte of a dataset; exit code 1 if anything is damaged.

    \b
    easydata verify cache/corpus
    """
    damaged = 0
    for dataset in _open_all(path):
        found = list(dataset.find_damage())
        for error in found:
            Console(stderr=True, soft_wrap=True).print(
                f"Damaged: {error}", style="red", markup=False, highlight=False
            )
        if not found:
            info = dataset_info(dataset)
            checked = "checked" if len(dataset.ledger.checksums) else "read (no checksums)"
            typer.echo(
                f"{dataset.path}: {format_bytes(info.bytes)} in {info.shards} shards {checked}, "
                f"{format_count(info.rows)} rows, {format_count(info.tokens)} tokens. Undamaged."
            )
        damaged += len(found)
    if damaged:
        raise typer.Exit(1)
