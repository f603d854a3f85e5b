"""Finds all that a function's results depend on, and gives each thing an identity.

Every function, class and module of the user has a label and is looked at once, so that cycles
end; where something refers to it, only the label stands. A plain value is described by the
value itself, anything else by a tuple that starts with its kind.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from easydata.fingerprint import _origin
from easydata.fingerprint._code import References, loaded_constants, references, signature
from easydata.fingerprint._describe import Describer

__all__ = ["Walk"]

# Each reaches what its code does not name.
_REACHES_ALL = {"eval", "exec", "globals", "__import__"}
_BUILT_IN = {"builtins", "_sitebuiltins", "_io"}
_NOT_OF_A_CLASS = {
    *("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "_abc_impl"),
    *("__slotnames__", "__firstlineno__", "__static_attributes__", "__annotations_cache__"),
}
_NOT_OF_A_MODULE = {
    *("__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__"),
    *("__package__", "__path__", "__spec__", "__annotations__"),
}


class Walk(Describer):
    """One look at everything that can be reached from one callable.

    Args:
        name: what messages call the callable.

    Attributes:
        parts: what was found, path -> 32 hexadecimal digits.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._labels: dict[int, str] = {}
        self._taken: set[str] = set()
        self._kept: list[object] = []  # an id names an object only while that lives
        self._pending: deque[Callable[[], None]] = deque()
        self._bindings: set[str] = set()

    def run(self, function: object) -> None:
        """Fill `parts`.

        Raises:
            UsageError: something has no identity; the message says what and where it is.
        """
        self._library([_origin.python()])
        target = f"the transform {self._name}"
        if isinstance(function, types.FunctionType):
            self._function(function, self._name)
        else:
            self._put(f"value of {self._name}", self._value(function, target), target)
        while self._pending:
            self._pending.popleft()()

    def _label(self, thing: object, wish: str) -> str:
        label, number = wish, 1
        while label in self._taken:
            number += 1
            label = f"{wish} #{number}"
        self._taken.add(label)
        self._labels[id(thing)] = label
        self._kept.append(thing)
        return label

    # Functions

    def _function(self, function: types.FunctionType, wish: str | None = None) -> object:
        if id(function) in self._labels:
            return "function", self._labels[id(function)]
        module = function.__globals__.get("__name__")
        libraries = _origin.libraries(module) if isinstance(module, str) else []
        self._library(libraries)
        if wish is None:
            wish = f"{self._namespace(function.__globals__)}.{function.__code__.co_qualname}"
        label = self._label(function, wish)
        self._pending.append(lambda: self._inside_function(function, label, bool(libraries)))
        return "function", label

    def _inside_function(self, function: types.FunctionType, label: str, library: bool) -> None:
        code = function.__code__
        mine = "" if label == self._name else f" of {label}"
        self._put(f"code of {label}", self._code(code), f"the code{mine}")
        positional = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        by_name = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for kind, values in (
            ("default", by_name | (function.__kwdefaults__ or {})),
            ("closure", cells),
            ("attribute", vars(function)),
        ):
            for name, value in sorted(values.items()):
                where = f"the {kind} `{name}`{mine}"
                held = self._cell(value, where) if kind == "closure" else value
                self._put(f"{kind} of {label}: {name}", self._value(held, where), where)
        if not library:  # whose version says what its globals are
            self._globals(function, references(code), mine)

    def _cell(self, cell: types.CellType, where: str) -> object:
        try:
            return cell.cell_contents
        except ValueError as error:
            self._refuse(where, "which has no value yet", error)

    def _code(self, code: types.CodeType) -> object:
        constants = (self._value(value, "a constant") for value in loaded_constants(code))
        return "code", signature(code), tuple(constants)

    def _globals(self, function: types.FunctionType, used: References, mine: str) -> None:
        if used.assigned:
            self._refuse(f"the global `{min(used.assigned)}`{mine}", "which it assigns")
        if "__doc__" in used.attributes:
            self._refuse(f"`__doc__`{mine}", "which is not part of a function's identity")
        own = function.__globals__
        outer: dict[str, Any] = function.__builtins__  # type: ignore[attr-defined]
        label = self._namespace(own)
        for name, chains in sorted(used.loads.items()):
            where = f"the global `{name}`{mine}"
            if name in own:
                self._global(label, name, own[name], chains, where)
            elif name in outer:
                self._builtin(name, outer[name], where)
            elif name not in used.bound:
                self._refuse(where, "a name that is not defined")
        for level, module, names in sorted(used.imports):
            self._import("." * level + module, names, own.get("__package__"), mine)

    def _builtin(self, name: str, value: object, where: str) -> None:
        if getattr(value, "__module__", None) not in _BUILT_IN:
            self._global("builtins", name, value, {()}, where)
        elif name in _REACHES_ALL:
            self._refuse(where, "which reaches what the code does not name")

    def _import(self, name: str, names: tuple[str, ...], package: str | None, mine: str) -> None:
        where = f"the module `{name}`{mine}"
        try:
            full = importlib.util.resolve_name(name, package)
            module = importlib.import_module(full)
            # `import a.b` binds a.
            if not names or _origin.libraries(full):
                self._value(importlib.import_module(full.partition(".")[0]), where)
                return
            for item in names:
                if not hasattr(module, item):
                    importlib.import_module(f"{full}.{item}")
        except ImportError as error:
            self._refuse(where, f"which cannot be imported ({error})", error)
        label = self._namespace(vars(module))
        for item in names:
            where = f"the global `{item}` of {full}"
            self._global(label, item, getattr(module, item), {()}, where)

    # Modules

    def _namespace(self, namespace: dict[str, Any]) -> str:
        found = self._labels.get(id(namespace))
        return found or self._label(namespace, _module_name(namespace.get("__name__")))

    def _global(
        self, label: str, name: str, value: Any, chains: set[tuple[str, ...]], where: str
    ) -> None:
        path = f"{label}.{name}"
        if () not in chains and isinstance(value, types.ModuleType) and _is_users(value):
            # `rules.clean` depends on what that is, not on all that the module holds.
            inner = self._namespace(vars(value))
            self._put(f"global {path}", ("module", inner), where)
            for attribute in sorted({chain[0] for chain in chains}):
                inside = f"`{attribute}` of {where}"
                if not hasattr(value, attribute):
                    self._refuse(inside, "which is not defined")
                rest = {chain[1:] for chain in chains if chain[0] == attribute}
                self._global(inner, attribute, getattr(value, attribute), rest, inside)
        elif path not in self._bindings:
            self._bindings.add(path)
            description = self._value(value, where)
            is_definition = isinstance(value, types.FunctionType | type)
            if not is_definition or description not in (("function", path), ("class", path)):
                self._put(f"global {path}", description, where)

    def _module(self, module: types.ModuleType, where: str) -> object:
        libraries = _origin.libraries(module.__name__)
        if libraries:
            self._library(libraries)
            return "library", module.__name__
        if _origin.is_extension(module.__name__):
            self._refuse(where, "a compiled module of no installed library")
        label = self._namespace(vars(module))
        if f"module {label}" not in self._bindings:
            self._bindings.add(f"module {label}")
            self._pending.append(lambda: self._inside_module(module, label))
        return "module", label

    def _inside_module(self, module: types.ModuleType, label: str) -> None:
        for name in sorted(vars(module).keys() - _NOT_OF_A_MODULE):
            where = f"the global `{name}` of {label}"
            self._global(label, name, vars(module)[name], {()}, where)

    # Classes

    def _class(self, kind: type, where: str) -> object:
        if id(kind) in self._labels:
            return "class", self._labels[id(kind)]
        libraries = _origin.libraries(kind.__module__)
        heap = bool(kind.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE: made while running
        if libraries and not heap:
            self._library(libraries)
            return "library", kind.__module__, kind.__qualname__
        if _origin.is_extension(kind.__module__):
            self._refuse(where, "a class of a compiled module of no installed library")
        label = self._label(kind, f"{_module_name(kind.__module__)}.{kind.__qualname__}")
        self._pending.append(lambda: self._inside_class(kind, label))
        return "class", label

    def _inside_class(self, kind: type, label: str) -> None:
        bases = tuple(self._value(base, f"a base of {label}") for base in kind.__bases__)
        made_by = self._value(type(kind), f"the metaclass of {label}")
        members = {key: value for key, value in vars(kind).items() if key not in _NOT_OF_A_CLASS}
        order: tuple[str, ...] = ()
        if isinstance(kind, enum.EnumMeta):
            order = tuple(kind.__members__)
            # What Enum keeps beside them follows from the members and the version of Python.
            named: dict[str, Any] = {name: kind.__members__[name]._value_ for name in order}
            methods = {key: v for key, v in members.items() if _is_own_code(v)}
            members = methods | named
        self._put(f"class {label}", ("class", bases, made_by, order, (*sorted(members),)), label)
        for name, value in sorted(members.items()):
            where = f"the attribute `{name}` of {label}"
            self._put(f"attribute of {label}: {name}", self._value(value, where), where)


def _is_users(module: types.ModuleType) -> bool:
    name = module.__name__
    return not _origin.libraries(name) and not _origin.is_extension(name)


def _is_own_code(value: object) -> bool:
    return isinstance(value, types.FunctionType | staticmethod | classmethod | property)


def _module_name(name: object) -> str:
    # In a worker process that was spawned, the script's module has another name.
    return "__main__" if name == "__mp_main__" else str(name)
