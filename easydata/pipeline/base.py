"""The base of all configurations: checked when made, and turned into plain data and back."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from easydata.errors import UsageError
from easydata.pipeline.checks import (
    Check,
    ConfigError,
    each_item,
    each_value,
    flag,
    inside,
    lines_of,
    nearest,
    one_of,
)
from easydata.pipeline.frozen import FrozenDict

__all__ = ["Config", "config_of", "configs_of"]

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Config:
    """Values that are checked when they are set, and cannot be changed.

    A field's type says what it may hold: a choice, a flag, another configuration, or a type of
    `easydata.pipeline.checks`. Lists become tuples, mappings read-only copies, and a mapping in
    place of another configuration becomes that configuration.
    """

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: something is wrong; it has a line for everything that is.
        """
        lines: list[str] = []
        wrong: set[str] = set()
        for name, check in _checks(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            try:
                if value is MISSING:
                    raise UsageError(f"{name}: missing; every {type(self).__name__} needs it.")
                object.__setattr__(self, name, check(name, value))
            except UsageError as error:
                lines += lines_of(error)
                wrong.add(name)
        lines += self._contradictions(lambda *names: wrong.isdisjoint(names))
        if lines:
            raise ConfigError(f"{type(self).__name__}.", lines)

    def _contradictions(self, right: Callable[..., bool]) -> Iterable[str]:
        """What is wrong between fields, a line each, beginning with a field.

        Args:
            right: tells whether all fields of these names hold what they may.
        """
        del right
        return ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration with these fields; the others have their defaults.

        Raises:
            UsageError: a field is unknown, missing or wrong; it has a line for everything.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"{cls.__name__} is {values!r}; give a mapping of its fields.")
        parameters = inspect.signature(cls).parameters
        known: dict[str, Any] = {
            name: values.get(name, MISSING)
            for name, parameter in parameters.items()
            if name in values or parameter.default is parameter.empty
        }
        unknown = [
            f"{name}: unknown; {nearest(name, parameters)}"
            for name in values
            if name not in parameters
        ]
        try:
            made = cls(**known)
        except ConfigError as error:
            raise ConfigError(error.prefix, [*unknown, *error.lines]) from None
        if unknown:
            raise ConfigError(f"{cls.__name__}.", unknown)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes an equal configuration.

        Fields that have their defaults are left out.

        Raises:
            UsageError: a field holds what no file can, such as a function; there is a line for
                each such field.
        """
        values: dict[str, Any] = {}
        lines: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if _is_default(field, value):
                continue
            if field.metadata.get("secret"):
                lines.append(f"{field.name} is a secret; keep it out of files: {_IN_PYTHON}")
                continue
            try:
                values[field.name] = _plain(field.name, value)
            except UsageError as error:
                lines += lines_of(error)
        if lines:
            raise ConfigError(f"{type(self).__name__}.", lines)
        return values


_IN_PYTHON = "set it in Python, with dataclasses.replace."


def config_of(cls: type[Config]) -> Check:
    """The check of a field that holds such a configuration, or a mapping of its fields."""

    def check(name: str, value: object) -> Config:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise UsageError(
                f"{name} is {value!r}; it must be {cls.__name__}(…), or a mapping of its fields."
            )
        with inside(name):
            return cls.from_dict(value)

    return check


def configs_of(cls: type[Config]) -> Check:
    """The check of a field that holds a list of such configurations, at least one."""
    check_one = config_of(cls)

    def check(name: str, value: object) -> tuple[Config, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise UsageError(f"{name} is {value!r}; it must be a list of at least one.")
        return each_item(check_one, name, value)

    return check


@functools.cache
def _checks(cls: type[Config]) -> Mapping[str, Check]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: _check_for(hints[field.name]) for field in dataclasses.fields(cls)}


def _check_for(hint: Any) -> Check:
    if get_origin(hint) is Annotated:
        check: Check = hint.__metadata__[0]
        return check
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        (other,) = (kind for kind in get_args(hint) if kind is not type(None))
        return _optional(_check_for(other))
    return flag if hint is bool else config_of(hint)


def _optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    # Types first: an array compared with None is an array.
    return value is default or (type(value) is type(default) and value == default)


def _plain(name: str, value: object) -> Any:
    """The value as plain data; errors call it `name`."""
    if isinstance(value, Config):
        with inside(name):
            return value.to_dict()
    if isinstance(value, FrozenDict):
        return each_value(_plain, name, value)
    if isinstance(value, tuple):
        return list(each_item(_plain, name, value))
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if type(value) in _PLAIN and is_finite:
        return value
    shown = repr(value) if not is_finite else f"of type {type(value).__name__}"
    raise UsageError(f"{name} is {shown}, which no file can hold; {_IN_PYTHON}")
