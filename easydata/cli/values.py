"""Options whose values are lists or tables: `a,b` and `name=value,name=value`."""

from __future__ import annotations

from collections.abc import Sequence

from easydata.errors import UsageError

__all__ = ["parse_names", "parse_pairs", "parse_shares", "parse_token"]


def parse_names(values: Sequence[str]) -> list[str]:
    """Names from an option that may be repeated and may hold several.

    >>> parse_names(["id,title", "url"])
    ['id', 'title', 'url']
    """
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def parse_token(value: str | None) -> str | int | None:
    """A special token: digits are its id, anything else its name.

    >>> parse_token("</s>"), parse_token("2")
    ('</s>', 2)
    """
    return int(value) if value is not None and value.isdecimal() else value


def parse_pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """A table from `name=value` items.

    Raises:
        UsageError: an item has no `=`.

    >>> parse_pairs(["score=float64,year=int32"], "--schema")
    {'score': 'float64', 'year': 'int32'}
    """
    pairs = {}
    for item in parse_names(values):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} has {item!r}; write NAME=VALUE, with commas between.")
        pairs[name.strip()] = value.strip()
    return pairs


def parse_shares(values: Sequence[str], option: str) -> dict[str, float] | None:
    """Shares by name, or None if there are none.

    Raises:
        UsageError: a share is no number.

    >>> parse_shares(["train=0.99,validation=0.01"], "--splits")
    {'train': 0.99, 'validation': 0.01}
    """
    pairs = parse_pairs(values, option)
    try:
        return {name: float(value) for name, value in pairs.items()} or None
    except ValueError as error:
        raise UsageError(f"{option} has a share that is no number: {error}.") from error
