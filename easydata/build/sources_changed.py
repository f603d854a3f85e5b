"""Which sources are others than those that a dataset was made from."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from easydata._lazy import cached_property
from easydata.fingerprint import FileStamp, HashMode
from easydata.sources import Source, type_and_codec

__all__ = ["source_differences", "stamp_text"]

_SHOWN = 3
_SETTLED = "settled"

_HOW = {
    "content": "changed",
    "stamp": "changed (place, size or time)",
    "form": "are read in another way",
}

_Change = Literal["added", "removed", "content", "stamp", "form"]


def stamp_text(stamp: FileStamp | None) -> str | None:
    """What the ledger keeps of a stamp that is taken now, before the file is read."""
    if stamp is None:
        return None
    settled = stamp.is_settled(time.time_ns())
    return json.dumps({**stamp.to_json(), _SETTLED: settled}, sort_keys=True)


def source_differences(
    recorded: Sequence[Mapping[str, Any]],
    sources: Sequence[Source],
    hash_fn: HashMode,
    *,
    type: str | None = None,
) -> list[str]:
    """One line for each kind of difference; empty where nothing is known to differ.

    Args:
        recorded: the sources in the ledger.
        sources: those of now.
        hash_fn: how a file is compared. "content" reads it. "path" compares its place, size and
            time of change. "combined" does that first, and reads it if they differ. Where a
            store tells no time, all of them read it.
        type: what every file was read as; None where its extension said it.
    """
    now = [_Now(source, hash_fn) for source in sources]
    if len(recorded) == len(now):
        changes = [new.change(old) for old, new in zip(recorded, now, strict=True)]
        if not any(changes):
            return _other_forms(recorded, now, type)
    return _by_name(recorded, now)


class _Now:
    """A source of now; what it takes to compare it is found at most once."""

    def __init__(self, source: Source, hash_fn: HashMode) -> None:
        self.name = source.name
        self._source = source
        self._hash_fn = hash_fn

    @cached_property
    def _stamp(self) -> FileStamp | None:
        return self._source.stamp()

    @cached_property
    def _hash(self) -> str | None:
        return self._source.read_content_hash()

    def change(self, old: Mapping[str, Any]) -> _Change | None:
        """How it differs from a recorded source; None where nothing is known to."""
        if old["hash"] is None:
            return None
        if self._hash_fn != "content" and old["stamp"] is not None and self._stamp is not None:
            fields = json.loads(old["stamp"])
            is_settled = fields.pop(_SETTLED)
            known = FileStamp.from_json(fields)
            before, now = known.path_fingerprint, self._stamp.path_fingerprint
            if self._hash_fn == "path" and before is not None and now is not None:
                return None if before == now else "stamp"
            if self._hash_fn == "combined" and is_settled and self._stamp.matches(known):
                return None
        return None if self._hash == old["hash"] else "content"


def _by_name(recorded: Sequence[Mapping[str, Any]], sources: Sequence[_Now]) -> list[str]:
    before: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in recorded:
        before[entry["name"]].append(entry)
    names: dict[_Change, list[str]] = defaultdict(list)
    # Objects may share a name: first those that are the same, then the others in their order.
    others = []
    for source in sources:
        same = [entry for entry in before[source.name] if source.change(entry) is None]
        if same:
            _remove(before[source.name], same[0])
        else:
            others.append(source)
    for source in others:
        old = before[source.name]
        change: _Change = "added"
        if old:
            change = source.change(old.pop(0)) or change
        names[change].append(source.name)
    names["removed"] = [name for name, entries in before.items() for _ in entries]
    order: tuple[_Change, ...] = ("added", "removed", "content", "stamp")
    found = [_line(change, names[change], len(sources)) for change in order if names[change]]
    return found or ["the order of the sources changed"]


def _remove(entries: list[Mapping[str, Any]], entry: Mapping[str, Any]) -> None:
    del entries[next(index for index, item in enumerate(entries) if item is entry)]


def _other_forms(
    recorded: Sequence[Mapping[str, Any]], sources: Sequence[_Now], type: str | None
) -> list[str]:
    """Extensions say how the same bytes are read."""
    found = []
    for old, new in zip(recorded, sources, strict=True):
        (kind_before, codec_before), (kind, codec) = map(type_and_codec, (old["name"], new.name))
        if codec_before != codec or (type is None and kind_before != kind):
            found.append((new.name, _extension(old["name"]), _extension(new.name)))
    if len(found) == 1:
        name, before, now = found[0]
        return [f"{name} is read in another way: {before} → {now}"]
    return [_line("form", [name for name, _, _ in found], len(sources))] if found else []


def _extension(name: str) -> str:
    return "".join(PurePath(name).suffixes[-2:]) or "no extension"


def _line(change: _Change, names: Sequence[str], total: int) -> str:
    one = len(names) == 1
    if change in ("added", "removed"):
        what, how = f"{len(names)} sources", f"{'was' if one else 'were'} {change}"
    else:
        what, how = f"{len(names)} of {total} sources", _HOW[change]
    before = "the content of " if change == "content" else ""
    if one:
        return f"{before}{names[0]} {how}"
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{before}{what} {how}: {shown}"
