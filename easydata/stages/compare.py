"""What makes one stored tokenizer another than a new one, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from easydata.stages.declared import TEMPLATE_FILE
from easydata.stages.stored import STORED_NAME

__all__ = ["tokenizer_differences"]

_MAX_LINES = 6
_MAX_TOKENS = 2  # added tokens that are told one by one
_SHOWN = 40  # characters of a value
_COMPONENTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_ABSENT = object()


def tokenizer_differences(
    old_files: Mapping[str, bytes], new_files: Mapping[str, bytes]
) -> list[str]:
    """How two tokenizers differ, the weightiest first, at most six lines.

    Args:
        old_files: `Tokenizer.files()` of the one, as stored beside a dataset.
        new_files: `Tokenizer.files()` of the other.

    Returns:
        Lines such as "normalizer NFC → NFKC"; none only if the files are the same.
    """
    if dict(old_files) == dict(new_files):
        return []
    if not old_files or not new_files:
        when = "before" if not old_files else "now"
        return [f"the tokenizer {when} is code, of which no copy is kept"]
    lines = []
    for name in _ordered({*old_files, *new_files}):
        lines += _file(name, old_files.get(name), new_files.get(name))
    # Where the same tokenizer lay says something only if nothing else does.
    named = [line for line in lines if not line.startswith("name ")] or lines
    if len(named) <= _MAX_LINES:
        return named
    more = len(named) - _MAX_LINES + 1
    return [*named[: _MAX_LINES - 1], f"and {more} more differences"]


def _ordered(names: set[str]) -> list[str]:
    first = (STORED_NAME, "tokenizer.json", "tokenizer_config.json", TEMPLATE_FILE)
    return [*(name for name in first if name in names), *sorted(names.difference(first))]


def _file(name: str, old: bytes | None, new: bytes | None) -> list[str]:
    if old == new:
        return []
    what = "chat template" if name == TEMPLATE_FILE else f"file {name}"
    if old is None or new is None:
        return [f"{what} is {'new' if old is None else 'gone'}"]
    compare = _COMPARERS.get(name)
    found: list[str] = []
    if compare is not None:
        try:
            found = list(compare(json.loads(old), json.loads(new)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            found = []  # a stored file may hold anything, and comparing it must not fail
    return found or [f"{what} {'changed' if name == TEMPLATE_FILE else 'differs'}"]


def _stored(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key, before, after in sorted(_changed(old, new), key=lambda change: change[0] != "kind"):
        if key == "class_name":
            yield f"class {before or 'none'} → {after or 'none'}"
        else:
            yield f"{key} {_show(before)} → {_show(after)}"


def _config(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key, before, after in _changed(old, new):
        if key == "chat_template":
            yield "chat template changed"
        elif key in {"additional_special_tokens", "extra_special_tokens"}:
            yield f"special tokens {_show(before)} → {_show(after)}"
        elif key.endswith("_token"):
            yield f"{key.removesuffix('_token')} {_show(_text(before))} → {_show(_text(after))}"
        else:
            yield f"{key} {_change(before, after)}"


def _tokenizer(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    a, b = old["model"], new["model"]
    if a.get("type") != b.get("type"):
        yield f"model {a.get('type')} → {b.get('type')}"
    yield from _vocab(_ids(a["vocab"]), _ids(b["vocab"]), _size(old), _size(new))
    yield from _merges(a.get("merges") or [], b.get("merges") or [])
    yield from _added_tokens(old.get("added_tokens") or [], new.get("added_tokens") or [])
    for key in _COMPONENTS:
        if old.get(key) != new.get(key):
            yield f"{key} {_component(old.get(key), new.get(key))}"
    told = {"type", "vocab", "merges"}
    for key, before, after in _changed(a, b):
        if key not in told:
            yield f"model.{key} {_change(before, after)}"
        elif key == "vocab" and isinstance(before, list) and _ids(before) == _ids(after):
            yield "the scores of vocab entries differ"
    for key, before, after in _changed(old, new):
        if key not in {"model", "added_tokens", *_COMPONENTS}:
            yield f"{key} {_change(before, after)}"


def _ids(vocab: Any) -> dict[str, int]:
    """Token to id; a Unigram model's list of (token, score) has the id as its place."""
    if isinstance(vocab, dict):
        return vocab
    return {token: i for i, (token, _) in enumerate(vocab)}


def _size(fields: dict[str, Any]) -> int:
    added = (token["id"] for token in fields.get("added_tokens") or [])
    return max([*_ids(fields["model"]["vocab"]).values(), *added], default=-1) + 1


def _vocab(old: dict[str, int], new: dict[str, int], old_size: int, size: int) -> Iterator[str]:
    if old_size != size:
        yield f"vocab {old_size} → {size}"
    extra = [token for token in new if token not in old]
    gone = [token for token in old if token not in new]
    moved = [token for token, i in old.items() if new.get(token, i) != i]
    parts = [
        f"{len(tokens):,} {what} (first {_show(tokens[0])})"
        for what, tokens in (("new", extra), ("gone", gone))
        if tokens
    ]
    if moved:
        token = moved[0]
        ids = f"{_show(token)}: {old[token]} → {new[token]}"
        parts.append(f"{len(moved):,} with another id (first {ids})")
    if parts:
        yield f"vocab entries: {', '.join(parts)}"


def _merges(old: list[Any], new: list[Any]) -> Iterator[str]:
    places = [i for i, (a, b) in enumerate(zip_longest(old, new)) if _merge(a) != _merge(b)]
    if not places:
        return
    at = places[0]
    if at >= len(old):
        first = f"{_merge(new[at])!r} is new"
    elif at >= len(new):
        first = f"{_merge(old[at])!r} is gone"
    else:
        first = f"{_merge(old[at])!r} was, {_merge(new[at])!r} is"
    if len(old) != len(new):
        yield f"merges {len(old)} → {len(new)}, the first that differs at {at}: {first}"
    else:
        verb = "differs" if len(places) == 1 else "differ"
        yield f"{len(places):,} of {len(old):,} merges {verb}, first at {at}: {first}"


def _merge(pair: Any) -> str | None:
    return " ".join(pair) if isinstance(pair, list) else pair


def _added_tokens(old: list[Any], new: list[Any]) -> Iterator[str]:
    a, b = ({token["content"]: token for token in tokens} for tokens in (old, new))
    lines = []
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) == b.get(name):
            continue
        label = f"added token {_show(name)} (id {(a.get(name) or b[name])['id']})"
        if name in a and name in b:
            lines.append(f"{label} changed: {_leaf(a[name], b[name])}")
        else:
            lines.append(f"{label} is {'gone' if name in a else 'new'}")
    yield from lines[:_MAX_TOKENS]
    if len(lines) > _MAX_TOKENS:
        yield f"{len(lines) - _MAX_TOKENS:,} more added tokens differ"
    elif not lines and old != new:
        yield "added tokens are in another order"


def _component(old: Any, new: Any) -> str:
    a, b = _type(old), _type(new)
    return f"{a} → {b}" if a != b else f"changed: {_leaf(old, new)}"


def _type(component: Any) -> str:
    """The name of a component, such as "NFC" or "Sequence(NFC, Lowercase)"."""
    if not component:
        return "none"
    inner = next((value for value in component.values() if isinstance(value, list)), [])
    types = [_type(item) for item in inner if isinstance(item, dict) and "type" in item]
    return f"{component['type']}({', '.join(types)})" if types else str(component["type"])


def _change(old: Any, new: Any) -> str:
    nested = isinstance(old, dict | list) and type(old) is type(new)
    return f"changed: {_leaf(old, new)}" if nested else f"{_show(old)} → {_show(new)}"


def _leaf(old: Any, new: Any, path: str = "") -> str:
    """The first place at which two JSON values differ, and the two values there."""
    if isinstance(old, dict) and isinstance(new, dict):
        key, before, after = next(_changed(old, new))
        return _leaf(before, after, f"{path}.{key}" if path else key)
    if isinstance(old, list) and isinstance(new, list):
        pairs = enumerate(zip_longest(old, new, fillvalue=_ABSENT))
        at, before, after = next((i, a, b) for i, (a, b) in pairs if a != b)
        return _leaf(before, after, f"{path}[{at}]")
    return f"{path} {_show(old)} → {_show(new)}".lstrip()


def _changed(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        # False == 0 in Python, but not in JSON.
        if before != after or type(before) is not type(after):
            yield key, before, after


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _show(value: Any) -> str:
    if value is None or value is _ABSENT:
        return "none"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


_COMPARERS: dict[str, Callable[[Any, Any], Iterator[str]]] = {
    STORED_NAME: _stored,
    "tokenizer.json": _tokenizer,
    "tokenizer_config.json": _config,
}
