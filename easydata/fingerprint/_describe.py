"""Describes values so that equal descriptions mean equal values.

A plain value is described by itself, anything else by a tuple that starts with its kind; of a
function, class or module of the user there is only the label, see `_walk`.
"""

from __future__ import annotations

import abc
import enum
import functools
import importlib
import logging
import pkgutil
import runpy
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from easydata.errors import UsageError
from easydata.fingerprint import _origin
from easydata.fingerprint._values import (
    PLAIN,
    Unknown,
    attributes,
    contents,
    is_array,
    rebuilt,
    state,
)
from easydata.fingerprint.canonical import canonical_hash

__all__ = ["REACHES", "REACHES_ALL", "Describer", "is_dispatcher"]

_PART = b"easydata part 1\n"
_MAX_DEPTH = 40
_LITERALS = (type(Ellipsis), type(NotImplemented))
REACHES = "which reaches what the code does not name"
# Each reaches what the code does not name.
REACHES_ALL = {
    *map(id, (eval, exec, globals, __import__, importlib.import_module, importlib.__import__)),
    *map(id, (sys.modules, pkgutil.resolve_name, runpy.run_module, runpy.run_path)),
    id(sys._getframe),  # noqa: SLF001 - looked at, not called
}
# What Python wraps functions in -> what makes each.
_WRAPPERS: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    types.DynamicClassAttribute: ("fget", "fset", "fdel"),
    functools.cached_property: ("attrname", "func"),
    # What it has kept says nothing about what it computes.
    type(functools.cache(len)): ("__wrapped__",),
}
_NOT_OF_A_WRAPPER = {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__isabstractmethod__"}
_NOT_OF_A_LOGGER = {*vars(logging.root), "manager", "root"}
_DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_OF_A_DISPATCHER = {"register", "dispatch", "registry", "_clear_cache"}


def is_dispatcher(value: object) -> bool:
    """Whether `value` is what `functools.singledispatch` makes of a function."""
    return (
        isinstance(value, types.FunctionType)
        and value.__globals__ is vars(functools)
        and value.__code__.co_qualname == "singledispatch.<locals>.wrapper"
    )


class Describer(abc.ABC):
    """Describes values and keeps the identities of parts.

    Args:
        name: what messages call the callable that all of it belongs to.

    Attributes:
        parts: path -> 32 hexadecimal digits.
    """

    def __init__(self, name: str) -> None:
        self.parts: dict[str, str] = {}
        self._name = name
        self._open: list[int] = []

    @abc.abstractmethod
    def _function(self, function: types.FunctionType) -> object:
        """The description of a function that no library names."""

    @abc.abstractmethod
    def _class(self, kind: type, where: str) -> object:
        """The description of a class that no library names."""

    @abc.abstractmethod
    def _module(self, module: types.ModuleType, where: str) -> object:
        """The description of a module."""

    @abc.abstractmethod
    def _code(self, code: types.CodeType) -> object:
        """The description of a code object."""

    def _put(self, path: str, description: object, where: str) -> None:
        self.parts[path] = self._hash(description, where)

    def _hash(self, description: object, where: str) -> str:
        try:
            return canonical_hash(_PART, "it", description)
        except UsageError as error:
            self._refuse(where, f"which has no identity ({error})", error)

    def _refuse(self, where: str, what: str, cause: Exception | None = None) -> NoReturn:
        refers = f"refers to {where},"
        if where == f"the transform {self._name}":
            refers = "is something" if what.startswith("which ") else "is"
        raise UsageError(
            f"The transform {self._name} {refers} {what}; pass transform_version='1' and change "
            "it whenever what the function does changes."
        ) from cause

    def _library(self, labels: Iterable[str]) -> None:
        for label in labels:
            self._put(label, label, label)

    def _value(self, value: Any, where: str) -> object:
        if type(value) in PLAIN or is_array(value):
            return value
        if id(value) in REACHES_ALL:
            self._refuse(where, REACHES)
        if id(value) in self._open:
            return "above", len(self._open) - self._open.index(id(value))
        if len(self._open) >= _MAX_DEPTH:
            self._refuse(where, f"which is nested more than {_MAX_DEPTH} deep")
        self._open.append(id(value))
        description = self._code_or_value(value, where)
        self._open.pop()
        return description

    def _code_or_value(self, value: Any, where: str) -> object:
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.ModuleType):
            return self._module(value, where)
        named = self._by_name(value)
        if named is not None:
            return named
        if is_dispatcher(value):
            return self._dispatcher(value, where)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value, where)
        return self._callable(value, where) or self._composite(value, where)

    def _by_name(self, value: Any) -> object:
        """A function, class or other object that a library defines under its own name."""
        module = getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        if not isinstance(module, str) or not isinstance(name, str):
            return None
        libraries = _origin.libraries(module)
        if not libraries or _origin.find(module, name) is not value or _origin.is_users(value):
            return None
        self._library(libraries)
        return "library", module, name

    def _callable(self, value: Any, where: str) -> object:
        """Descriptions of the callables and descriptors that Python itself makes."""
        kind = type(value).__name__
        if isinstance(value, types.MethodType):
            return kind, self._value(value.__func__, where), self._value(value.__self__, where)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            owner = value.__self__
            if owner is not None and not isinstance(owner, types.ModuleType):
                return kind, value.__name__, self._value(owner, where)
            module = getattr(value, "__module__", None) or ""
            libraries = _origin.libraries(module)
            if not libraries:
                self._refuse(where, "a compiled function of no installed library")
            self._library(libraries)
            return "library", module, value.__qualname__
        if isinstance(value, _DESCRIPTORS):
            return kind, value.__name__, self._value(value.__objclass__, where)
        for wrapper, names in _WRAPPERS.items():
            if isinstance(value, wrapper):
                made = (self._value(getattr(value, name), where) for name in names)
                return wrapper.__name__, *made, *self._added(value, wrapper, names, where)
        return None

    def _added(self, value: Any, base: type, known: Iterable[str], where: str) -> Iterable[object]:
        """The class of `value`, if it is another than Python's `base`, and what it adds."""
        kind = type(value)
        if kind is base or kind is enum.property:
            return
        held = attributes(value)
        for name in (*known, *_NOT_OF_A_WRAPPER):
            held.pop(name, None)
        if base is functools.cached_property:
            held.pop("lock", None)
        yield self._value(kind, where)
        yield self._state(held, where)

    def _dispatcher(self, value: Any, where: str) -> object:
        # Its closure and the rest of its attributes hold what it has kept.
        held = {name: item for name, item in vars(value).items() if name not in _OF_A_DISPATCHER}
        found = sorted(
            value.registry.items(), key=lambda pair: (pair[0].__module__, pair[0].__qualname__)
        )
        pairs = ((self._value(kind, where), self._value(run, where)) for kind, run in found)
        return "singledispatch", self._state(held, where), *pairs

    def _composite(self, value: Any, where: str) -> object:
        kind = type(value)
        if kind in {list, tuple}:
            items = (self._value(item, f"{where}[{index}]") for index, item in enumerate(value))
            return kind.__name__, *items
        if kind is dict or kind is types.MappingProxyType:
            return kind.__name__, *self._pairs(value, where)
        if isinstance(value, set | frozenset):
            return self._set(value, where)
        if isinstance(value, enum.Enum):
            named = value._value_ if isinstance(value, enum.Flag) else value._name_
            return "member", self._value(kind, where), self._value(named, where)
        if isinstance(value, logging.Logger):
            held = attributes(value)
            more = {name: item for name, item in held.items() if name not in _NOT_OF_A_LOGGER}
            return "logger", value.name, self._value(kind, where), self._state(more, where)
        if isinstance(value, _LITERALS):
            return "literal", kind.__name__
        return self._object(value, where)

    def _object(self, value: Any, where: str) -> object:
        kind = type(value)
        try:
            known = contents(value)
            if known is not None:
                return "contents", self._value(kind, where), self._value(known, where)
            held = state(value)
            if held is not None:
                return "instance", self._value(kind, where), self._state(held, where)
            made = rebuilt(value)
        except Unknown as error:
            self._refuse(where, str(error), error)
        if isinstance(made, str):
            return "named", self._value(kind, where), made
        return "made", *(self._value(piece, f"{where} ({kind.__name__})") for piece in made)

    def _set(self, value: Any, where: str) -> object:
        kind = type(value)
        inside = f"an item of {where}"
        items = sorted(self._hash(self._value(item, inside), inside) for item in value)
        if kind is set or kind is frozenset:
            return kind.__name__, *items
        held = self._state(attributes(value), where)
        return "set", self._value(kind, where), held, *items

    def _pairs(self, value: Mapping[Any, Any], where: str) -> Iterable[object]:
        # In order: a function may run through them.
        for key, item in value.items():
            shown = repr(key) if type(key) in {str, int} else "…"
            yield self._value(key, f"a key of {where}")
            yield self._value(item, f"{where}[{shown:.80}]")

    def _state(self, values: Mapping[str, Any], where: str) -> object:
        names = sorted(values)
        return tuple((name, self._value(values[name], f"{where}.{name}")) for name in names)
