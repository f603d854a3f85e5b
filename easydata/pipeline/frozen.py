"""Mappings and lists that nobody can change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["FrozenDict", "thaw"]


class FrozenDict(Mapping[str, Any]):
    """A read-only copy of a mapping; it equals a dict of the same items.

    Unlike `types.MappingProxyType` it can be pickled, and hashed where its values can.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def thaw(value: object) -> Any:
    """The value with dicts and lists of its own, for a library that knows nothing else.

    >>> thaw(FrozenDict({"client_kwargs": FrozenDict({"hosts": ("a", "b")})}))
    {'client_kwargs': {'hosts': ['a', 'b']}}
    """
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value
