"""What a field of a configuration may hold: one check for each kind of value.

A check takes the field's name and a value, and returns the value as it is kept: a copy that
nobody else can change. What it refuses is a `UsageError` whose text begins with the name, so that
whoever holds the field puts the rest of its path in front.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from easydata._units import parse_bytes
from easydata.errors import UsageError
from easydata.format.codecs import Codec
from easydata.pipeline.frozen import FrozenDict

__all__ = [
    "Amounts",
    "AnyPath",
    "ByteSize",
    "Check",
    "Compression",
    "ConfigError",
    "Count",
    "Folder",
    "Names",
    "NonNegative",
    "Options",
    "Positive",
    "Renaming",
    "Seconds",
    "Seed",
    "Text",
    "Weights",
    "check_path",
    "each_item",
    "each_value",
    "flag",
    "inside",
    "lines_of",
    "nearest",
    "one_of",
]

Check = Callable[[str, Any], Any]
_SUM_TOLERANCE = 1e-6  # as for the splits of a build


class ConfigError(UsageError):
    """Everything that is wrong with a configuration, a line each.

    Attributes:
        prefix: what stands before each line: the class, or the file.
        lines: each begins with the path of a field.
    """

    def __init__(self, prefix: str, lines: list[str]) -> None:
        super().__init__(prefix, lines)
        self.prefix = prefix
        self.lines = lines

    def __str__(self) -> str:
        return "\n".join(self.prefix + line for line in self.lines)


def lines_of(error: UsageError) -> list[str]:
    """What an error of a check says, a line each."""
    return error.lines if isinstance(error, ConfigError) else [str(error)]


@contextlib.contextmanager
def inside(path: str) -> Iterator[None]:
    """Put the path of a configuration before the fields that its errors name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError("", [f"{path}.{line}" for line in error.lines]) from None


def each(make: Check, parts: Iterable[tuple[str, Any]]) -> list[Any]:
    """What `make` makes of each part.

    Args:
        make: takes the path of a part, and the part.
        parts: their paths and values.

    Raises:
        ConfigError: it has the lines of all parts that are wrong.
    """
    made: list[Any] = []
    lines: list[str] = []
    for path, part in parts:
        try:
            made.append(make(path, part))
        except UsageError as error:
            lines += lines_of(error)
    if lines:
        raise ConfigError("", lines)
    return made


def each_item(make: Check, name: str, items: Iterable[Any]) -> tuple[Any, ...]:
    """The same for a list called `name`."""
    return tuple(each(make, ((f"{name}[{at}]", item) for at, item in enumerate(items))))


def each_value(make: Check, name: str, items: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a mapping called `name`."""
    made = each(make, ((f"{name}.{key}", item) for key, item in items.items()))
    return dict(zip(items, made, strict=True))


def nearest(wrong: object, names: Iterable[str]) -> str:
    """A remedy: the name that was probably meant, or all there are.

    >>> nearest("INF", ["INFO", "ERROR"]), nearest("x", ["INFO", "ERROR"])
    ('did you mean INFO?', 'choose one of INFO, ERROR.')
    """
    known = list(names)
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(str(wrong).casefold(), folded, n=1, cutoff=0.5)
    if close:
        return f"did you mean {folded[close[0]]}?"
    return f"choose one of {', '.join(known)}."


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that is merely equal to one."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}; it must be true or false.")
    return value


def one_of(choices: Collection[object]) -> Check:
    """One of a few values."""

    def check(name: str, value: object) -> Any:
        # False == 0, so the types count.
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
        hint = nearest(value, map(str, choices))
        every = "" if hint.startswith("choose") else f" Choices: {', '.join(map(str, choices))}."
        raise UsageError(f"{name} is {value!r}; {hint}{every}")

    return check


def _whole(least: int, most: float = math.inf) -> Check:
    allowed = f"from {least} up" if most == math.inf else f"from {least} to {most}"

    def check(name: str, value: object) -> int:
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_whole or not least <= value <= most:  # type: ignore[operator]
            raise UsageError(f"{name} is {value!r}; it must be a whole number {allowed}.")
        return int(value)  # type: ignore[call-overload]

    return check


def _number(allowed: str, fits: Callable[[Any], bool]) -> Check:
    def check(name: str, value: object) -> float:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not fits(value):  # type: ignore[arg-type]
            also = " Text is no number; YAML takes 1.0e-3 as one, but not 1e-3."
            raise UsageError(
                f"{name} is {value!r}; it must be a number {allowed}."
                + (also if isinstance(value, str) else "")
            )
        return int(value) if isinstance(value, numbers.Integral) else float(value)  # type: ignore[arg-type]

    return check


_share = _number("from 0 up", lambda value: value >= 0)
_amount = _number("above 0", lambda value: value > 0)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(
            f"{name} is {value!r}; it must be text."
            + ("" if isinstance(value, str) else " In a file, put quotes around it.")
        )
    return str(value)


def check_path(name: str, value: object) -> str:
    """A path or URL as text."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(f"{name} is {value!r}; it must be a path.")
    return path


def _folder(name: str, value: object) -> str:
    path = check_path(name, value)
    if "://" in path:
        raise UsageError(f"{name} is {value!r}; it must be a folder of a local disk.")
    return path


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{name} is {value!r}; it must be a list of names.")
    names = each_item(_text, name, value)
    for at, item in enumerate(names):
        if item in names[:at]:
            raise UsageError(f"{name} names {item!r} twice; name it once.")
    return names


def _byte_size(name: str, value: object) -> Any:
    parse_bytes(value, name=name)
    return value


def _compression(name: str, value: object) -> str:
    try:
        return str(Codec.parse(value))  # type: ignore[arg-type]
    except UsageError as error:
        # The codec calls it "compression", as do all fields that have one.
        raise UsageError(f"{name}{str(error).removeprefix('compression')}") from None


def _mapping(of: Check, what: str) -> Check:
    def check(name: str, value: object) -> FrozenDict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} is {value!r}; it must be a mapping of {what}.")
        for key in value:
            if not isinstance(key, str) or not key:
                raise UsageError(
                    f"{name} has the key {key!r}; keys must be text. In a file, put quotes "
                    "around it."
                )
        return FrozenDict(each_value(of, name, value))

    return check


def _weights(name: str, value: object) -> FrozenDict:
    weights: FrozenDict = _mapping(_share, "datasets' names to shares")(name, value)
    total = math.fsum(weights.values())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise UsageError(f"{name} adds up to {total:.9g}; the shares must add up to 1.")
    return weights


def _renaming(name: str, value: object) -> FrozenDict:
    new_names: FrozenDict = _mapping(_text, "old names to new names")(name, value)
    old_of: dict[str, str] = {}
    for old, new in new_names.items():
        if new in old_of:
            raise UsageError(
                f"{name} calls both {old_of[new]!r} and {old!r} {new!r}; give each a name of its "
                "own."
            )
        old_of[new] = old
    return new_names


def _option(name: str, value: object) -> Any:
    if isinstance(value, Mapping):
        return _options(name, value)
    if isinstance(value, list | tuple):
        return each_item(_option, name, value)
    return value


_options = _mapping(_option, "names to values")


Count = Annotated[int, _whole(1)]
NonNegative = Annotated[int, _whole(0)]
Seed = Annotated[int, _whole(0, 2**64 - 1)]
Seconds = Annotated[float, _share]
Positive = Annotated[float, _amount]
Text = Annotated[str, _text]
AnyPath = Annotated[str | os.PathLike[str], check_path]
Folder = Annotated[str | os.PathLike[str], _folder]
Names = Annotated[Sequence[str], _names]
ByteSize = Annotated[int | str, _byte_size]
Compression = Annotated[str, _compression]
Weights = Annotated[Mapping[str, float], _weights]
Renaming = Annotated[Mapping[str, str], _renaming]
Amounts = Annotated[Mapping[str, float], _mapping(_amount, "names to amounts")]
Options = Annotated[Mapping[str, Any], _options]
