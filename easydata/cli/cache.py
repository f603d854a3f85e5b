"""`easydata ls`, `get`, `stats` and `gc`: look at a cache, and tidy it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from easydata._paths import local_folder
from easydata._units import format_bytes, parse_bytes
from easydata.cache import clock
from easydata.cache.disk import DiskCache
from easydata.cache.listing import EntryInfo, Overview
from easydata.cache.log.folder import CacheFolder
from easydata.cli.shown import as_json, printable, summary, text_lines
from easydata.errors import MissingDependencyError, NotADatasetError, UsageError
from easydata.format.directory import STATE_FILE, read_splits

__all__ = ["gc_command", "get_command", "ls_command", "stats_command"]

_EXIT_MISSING = 1
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*")
CachePath = Annotated[
    str, typer.Argument(help="A cache directory.", show_default=False, metavar="CACHE")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def ls_command(
    path: CachePath,
    prefix: Annotated[
        str, typer.Option(help="Only keys that begin with this.", show_default=False)
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="Show this many entries at most.", show_default=False)
    ] = None,
    as_lines: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each entry, on its line.")
    ] = False,
) -> None:
    """The entries of a cache by key: when written, until when, how large, and what.

    \b
    easydata ls cache/keyed --prefix tokenized_ --limit 20
    easydata ls cache/keyed --json | jq .key
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; it must be at least 1.")
    cache = _open_to_read(path)
    found = cache.entries(prefix)
    for entry in found[:limit]:
        what = _summary_of(cache, entry.key)
        if as_lines:
            typer.echo(json.dumps(_described(entry) | {"value": what}))
            continue
        until = "always" if entry.expires is None else _time(entry.expires)
        size = format_bytes(entry.num_bytes)
        note = "" if entry.metadata is None else "  (metadata)"
        typer.echo(
            f"{_time(entry.written)}  {until:<20}  {size:>8}  {printable(entry.key)}  {what}{note}"
        )
    if limit is not None and len(found) > limit and not as_lines:
        typer.echo(f"… and {len(found) - limit:,} more")


def get_command(
    path: CachePath,
    key: Annotated[str, typer.Argument(help="The key.", show_default=False)],
    json_text: Annotated[
        bool, typer.Option("--json", help="Print the whole value as JSON; arrays become lists.")
    ] = False,
    metadata: Annotated[bool, typer.Option("--metadata", help="Print the metadata too.")] = False,
) -> None:
    """The value of a key; exit code 1 if there is none.

    \b
    easydata get cache/keyed tokenized_1
    easydata get cache/keyed tokenized_1 --metadata --json
    """
    found = _open_to_read(path).get(key)
    if found is None:
        typer.echo(f"{path} has no entry {key!r}.", err=True)
        raise typer.Exit(_EXIT_MISSING)
    value, about = found
    recorded = None if about is None else asdict(about)
    if json_text:
        plain = as_json(value, key)
        typer.echo(json.dumps({"value": plain, "metadata": recorded} if metadata else plain))
        return
    for line in text_lines(value):
        typer.echo(line)
    if metadata:
        typer.echo()
        given: dict[str, Any] = {"metadata": "none"} if recorded is None else recorded
        for name, item in given.items():
            if item is not None:
                shown = _time(item) if name == "created_at" else item
                typer.echo(f"{name.replace('_', ' '):<16}{shown}")


def stats_command(path: CachePath, json_text: Json = False) -> None:
    """Entries, bytes, files and damage of a cache, for which everything in it is read.

    \b
    easydata stats cache/keyed
    easydata stats cache/keyed --json | jq .entries
    """
    found = _open_to_read(path).overview()
    if json_text:
        typer.echo(json.dumps({"path": path} | asdict(found), indent=2))
        return
    for name, text in _lines(path, found):
        typer.echo(f"{name:<16}{text}")


def gc_command(
    path: CachePath,
    expired: Annotated[bool, typer.Option("--expired", help="Remove expired entries.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(help="Remove entries written longer ago: 90s, 30m, 12h, 7d, 2w."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(help="Remove the least recently used until all files take less: 10GB."),
    ] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Rewrite all in few files.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
) -> None:
    """Free space in a cache; without options, of what is expired, deleted and replaced.

    \b
    easydata gc cache/keyed
    easydata gc cache/keyed --older-than 7d --max-size 10GB --dry-run

    The compression stays the one of the newest files. Other processes may go on using the cache;
    what they still append to is left to them.
    """
    seconds = None if older_than is None else _parse_age(older_than)
    most = None if max_size is None else parse_bytes(max_size, name="--max-size")
    reader = _open_to_read(path)
    before = reader.overview()
    if dry_run:
        _print_plan(reader, before, seconds, most)
        return
    old = evicted = 0
    with _open_to_write(path, before, most) as cache:
        if seconds is not None:
            old = cache.remove_older(seconds)
        if most is not None and cache.overview().bytes > most:
            evicted = cache.shrink(most)
        if expired:
            cache.expire()
        if compact or not (expired or older_than or max_size):
            cache.compact()
    after = _open_to_read(path).overview()
    parts = [f"{max(before.expired - after.expired, 0):,} expired"]
    if older_than is not None:
        parts.append(f"{old:,} older than {older_than}")
    if max_size is not None:
        parts.append(f"{evicted:,} least recently used")
    typer.echo(f"Removed entries: {', '.join(parts)}.")
    freed = format_bytes(max(before.bytes - after.bytes, 0))
    typer.echo(f"Freed {freed}. Left: {after.entries:,} in {format_bytes(after.bytes)}.")
    if most is not None and after.bytes > most:
        typer.echo(
            f"That is more than {max_size}: the newest entry stays, as does what still grows."
        )


def _open_to_read(path: str) -> DiskCache:
    folder = local_folder(path, name="path")
    if not folder.exists():
        raise NotADatasetError(f"{path} does not exist.")
    if (folder / STATE_FILE).exists() or (folder.is_dir() and read_splits(folder) is not None):
        raise NotADatasetError(f"{path} is a dataset, not a cache. See: easydata info {path}")
    return DiskCache(folder, readonly=True)


def _open_to_write(path: str, found: Overview, max_bytes: int | None) -> DiskCache:
    # Only a cache that has had a limit knows when its entries were used.
    has_uses = CacheFolder(Path(path), readonly=True).uses.exists()
    codec, shard_format = next(iter(found.codecs), "none ipc").split()
    return DiskCache(path, codec, format=shard_format, size_limit=max_bytes if has_uses else None)


def _print_plan(
    cache: DiskCache, found: Overview, seconds: float | None, max_bytes: int | None
) -> None:
    parts = [f"{found.expired:,} expired"]
    if seconds is not None:
        first = clock.now() / 1e9 - seconds
        old = sum(entry.written < first for entry in cache.entries())
        parts.append(f"{old:,} older than that")
    if max_bytes is not None:
        more = format_bytes(max(found.bytes - max_bytes, 0))
        parts.append(f"of the least recently used as many as take {more}")
    typer.echo(f"Entries to remove: {', '.join(parts)}. Nothing was changed.")


def _parse_age(text: str) -> float:
    match = _AGE.fullmatch(text)
    if match is None or not float(match[1]):
        raise UsageError(f"--older-than is {text!r}; give an age such as 90s, 30m, 12h, 7d or 2w.")
    return float(match[1]) * _SECONDS[match[2]]


def _lines(path: str, found: Overview) -> Iterator[tuple[str, str]]:
    yield "path", path
    yield "entries", f"{found.entries:,}"
    if found.expired:
        yield "expired", f"{found.expired:,} more, which gc removes"
    yield "bytes", f"{format_bytes(found.bytes)} ({found.bytes:,})"
    yield "segments", f"{found.segments:,}, of which {found.growing:,} growing"
    for codec, count in found.codecs.items():
        yield "sealed as", f"{codec} ({count:,})"
    if found.oldest is not None and found.newest is not None:
        yield "oldest", _time(found.oldest)
        yield "newest", _time(found.newest)
    yield "damage", "; ".join(found.damage) or "none"


def _summary_of(cache: DiskCache, key: str) -> str:
    try:
        found = cache.get(key)
    except MissingDependencyError as error:
        return f"({error})"
    return "(gone)" if found is None else summary(found[0])


def _described(entry: EntryInfo) -> dict[str, Any]:
    fields = entry._asdict()
    about = fields.pop("metadata")
    fields["bytes"] = fields.pop("num_bytes")
    return fields | {"metadata": None if about is None else asdict(about)}


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):  # metadata may hold any number
        return f"{seconds!r} s"
