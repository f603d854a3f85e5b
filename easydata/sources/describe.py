"""Values and names as messages show them."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

__all__ = ["describe_misfit", "describe_names", "describe_value"]

_MAX_NAMES = 10

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60
_brief.maxdict = _brief.maxlist = 4


def describe_names(names: Sequence[str]) -> str:
    """The first few of `names`, quoted: "'content', 'id'"."""
    shown = ", ".join(repr(str(name)) for name in names[:_MAX_NAMES])
    return f"{shown}, …" if len(names) > _MAX_NAMES else shown or "no fields"


def describe_value(value: object) -> str:
    """`value` as Python writes it, shortened."""
    return _brief.repr(value)


def describe_misfit(name: str, value: object, kind: object) -> str:
    """Why `value` is no good: "field 'score' is 'abc', not int64"."""
    return f"field {name!r} is {describe_value(value)}, not {kind}"
