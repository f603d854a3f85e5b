"""Which sources are others than those that a dataset was made from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from easydata.fingerprint import FileStamp, HashMode
from easydata.sources import Source

__all__ = ["source_differences", "stamp_text"]

_SHOWN = 3
_SETTLED = "settled"


def stamp_text(stamp: FileStamp | None) -> str | None:
    """What the ledger keeps of a stamp that is taken now, before the file is read."""
    if stamp is None:
        return None
    settled = stamp.is_settled(time.time_ns())
    return json.dumps({**stamp.to_json(), _SETTLED: settled}, sort_keys=True)


def source_differences(
    recorded: Sequence[Mapping[str, Any]], sources: Sequence[Source], hash_fn: HashMode
) -> list[str]:
    """One line for each kind of difference; empty where nothing is known to differ.

    Args:
        recorded: the sources in the ledger.
        sources: those of now.
        hash_fn: how a file is compared. "content" reads it. "path" compares its place, size and
            time of change. "combined" does that first, and reads it if they differ.
    """
    if len(recorded) == len(sources):
        pairs = list(zip(recorded, sources, strict=True))
        changed = [new.name for old, new in pairs if _differs(old, new, hash_fn)]
        if not changed:
            return []
        if [old["name"] for old, _ in pairs] == [new.name for _, new in pairs]:
            return [_line("changed", changed, len(sources))]
    return _by_name(recorded, sources, hash_fn)


def _by_name(
    recorded: Sequence[Mapping[str, Any]], sources: Sequence[Source], hash_fn: HashMode
) -> list[str]:
    before = {entry["name"]: entry for entry in recorded}
    now = {source.name: source for source in sources}
    found = []
    for what, names in (
        ("added", [name for name in now if name not in before]),
        ("removed", [name for name in before if name not in now]),
        (
            "changed",
            [name for name in now if name in before and _differs(before[name], now[name], hash_fn)],
        ),
    ):
        if names:
            found.append(_line(what, names, len(now)))
    return found or ["the order of the sources changed"]


def _line(what: str, names: Sequence[str], total: int) -> str:
    if len(names) == 1:
        return (
            f"the content of {names[0]} changed" if what == "changed" else f"{names[0]} was {what}"
        )
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    of = f"the content of {len(names)} of {total}" if what == "changed" else f"{len(names)}"
    return f"{of} sources {'changed' if what == 'changed' else 'were ' + what}: {shown}"


def _differs(old: Mapping[str, Any], new: Source, hash_fn: HashMode) -> bool:
    if old["hash"] is None:
        return False  # nothing is known of it
    if hash_fn != "content" and old["stamp"] is not None:
        stamp = new.stamp()
        fields = json.loads(old["stamp"])
        is_settled = fields.pop(_SETTLED)
        known = FileStamp.from_json(fields)
        if stamp is not None and hash_fn == "path":
            return stamp.path_fingerprint != known.path_fingerprint
        if stamp is not None and is_settled and stamp.matches(known):
            return False
    return new.read_content_hash() != old["hash"]
