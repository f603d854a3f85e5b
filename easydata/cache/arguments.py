"""Keys, items and limits as callers pass them: checked once, on the way in."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from easydata._paths import local_folder
from easydata.errors import UsageError

__all__ = [
    "Items",
    "check_callable",
    "check_count",
    "check_folder",
    "check_items",
    "check_key",
    "check_key_or_prefix",
    "check_keys",
    "check_prefix",
]

Items = Mapping[str, Any] | Iterable[tuple[str, Any]]


def check_folder(path: str | os.PathLike[str]) -> Path:
    """The folder as an absolute path, so that it stays the same wherever the process goes; a `~`
    at its start is the user's home.

    Raises:
        UsageError: it cannot be a folder of this machine.
    """
    return local_folder(path, name="cache_dir").expanduser().absolute()


def check_callable(value: object, *, name: str) -> None:
    """
    Raises:
        UsageError: it is no function; the message calls it `name`.
    """
    if not callable(value):
        raise UsageError(
            f"{name} is a {type(value).__name__}; give a function, without calling it."
        )


def check_key(key: object) -> str:
    """The key as a plain str.

    Raises:
        UsageError: it is no str, or holds a lone surrogate, which cannot be stored as UTF-8.
    """
    if type(key) is str and key.isascii():
        return key
    if not isinstance(key, str):
        raise UsageError(
            f"The key {key!r} is a {type(key).__name__}; keys are strings. Pass str(key), "
            "or compute_key(...) for a key made of several things."
        )
    try:
        return key.encode().decode()
    except UnicodeEncodeError:
        raise UsageError(
            f"The key {key!r} holds a lone surrogate, which is no character. Pass "
            "compute_key(key), or decode it with errors='backslashreplace'."
        ) from None


def check_keys(keys: Iterable[str]) -> list[str]:
    """The keys, each once, in the order of their first places.

    Raises:
        UsageError: one is no key, or `keys` is a single string.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise UsageError(f"keys is {keys!r}; give a list of strings.")
    return list(dict.fromkeys(map(check_key, keys)))


def check_items(items: object) -> list[tuple[str, Any]]:
    """Pairs of key and value, each key once, with the last value that was given for it.

    Raises:
        UsageError: it is neither a mapping nor made of pairs, or one of the keys is no key.
    """
    if isinstance(items, Mapping):
        return [(check_key(key), value) for key, value in items.items()]
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise UsageError(f"items is {items!r}; give a dict, or pairs of key and value.")
    values: dict[str, Any] = {}
    for at, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UsageError(f"items[{at}] is {item!r}; it must be a pair of key and value.")
        key, value = item
        values[check_key(key)] = value
    return list(values.items())


def check_prefix(prefix: object) -> str:
    """The prefix.

    Raises:
        UsageError: it is no str.
    """
    if not isinstance(prefix, str):
        raise UsageError(f"prefix is {prefix!r}; it must be a string.")
    return prefix


def check_key_or_prefix(key: object, prefix: object) -> tuple[str | None, str]:
    """What to invalidate: a key, or None and a prefix ("" for everything).

    Raises:
        UsageError: both are given, or one is no str.
    """
    if key is None:
        return None, "" if prefix is None else check_prefix(prefix)
    if prefix is not None:
        raise UsageError("key and prefix are both given; pass one of them.")
    return check_key(key), ""


def check_count(value: object, *, name: str, least: int) -> int:
    """A number of entries.

    Raises:
        UsageError: it is no int, or below `least`; the message calls it `name`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise UsageError(f"{name} is {value!r}; give a number of entries, at least {least}.")
    return int(value)
