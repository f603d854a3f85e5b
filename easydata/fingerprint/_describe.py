"""Describes values so that equal descriptions mean equal values.

A plain value is described by itself, anything else by a tuple that starts with its kind; of a
function, class or module of the user there is only the label, see `_walk`.
"""

from __future__ import annotations

import abc
import enum
import functools
import logging
import types
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from easydata.errors import UsageError
from easydata.fingerprint import _origin
from easydata.fingerprint._values import PLAIN, Unknown, contents, is_array, rebuilt, state
from easydata.fingerprint.canonical import canonical_hash

__all__ = ["Describer"]

_PART = b"easydata part 1\n"
_MAX_DEPTH = 40
_LITERALS = (type(Ellipsis), type(NotImplemented))
_CACHE = type(functools.cache(len))
_DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
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
        refers = "is" if where == f"the transform {self._name}" else f"refers to {where},"
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
        if not libraries or _origin.find(module, name) is not value:
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
        if isinstance(value, staticmethod | classmethod):
            return kind, self._value(value.__func__, where)
        if isinstance(value, property):
            functions = (value.fget, value.fset, value.fdel)
            return kind, *(self._value(function, where) for function in functions)
        if isinstance(value, functools.cached_property):
            return kind, value.attrname, self._value(value.func, where)
        if isinstance(value, _CACHE):
            # What it has kept says nothing about what it computes.
            return kind, self._value(value.__wrapped__, where)
        return None

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
            named = value.value if isinstance(value, enum.Flag) else value.name
            return "member", self._value(kind, where), self._value(named, where)
        if isinstance(value, logging.Logger):
            return "logger", value.name
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
        held = self._state(getattr(value, "__dict__", {}), where)
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
