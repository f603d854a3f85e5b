"""Finds all that a function's results depend on, and gives each thing an identity.

Every function, class and module of the user has a label and is looked at once, so that cycles
end; where something refers to it, only the label stands. A plain value is described by the
value itself, anything else by a tuple that starts with its kind.
"""

from __future__ import annotations

import importlib
import importlib.util
import types
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, cast

from easydata.fingerprint import _origin
from easydata.fingerprint._code import (
    Import,
    References,
    loaded_constants,
    references,
    signature,
)
from easydata.fingerprint._describe import REACHES, REACHES_ALL, Describer, is_dispatcher
from easydata.fingerprint._members import members, order, registered
from easydata.fingerprint._values import Unknown

__all__ = ["Walk"]

_UNSEEN = {
    "__doc__": "which is not part of a function's identity",
    **dict.fromkeys(("__globals__", "__subclasses__", "f_globals"), REACHES),
}
_BUILT_IN = {"builtins", "_sitebuiltins", "_io"}
_ALL: set[tuple[str, ...]] = {()}
_NOT_OF_A_MODULE = {
    *("__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__"),
    *("__package__", "__path__", "__spec__", "__annotations__", "__warningregistry__"),
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
        if isinstance(function, types.FunctionType) and not is_dispatcher(function):
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
        libraries = _origin.owners(function.__globals__)
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
        used = references(code)
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for kind, values in (
            ("default", by_name | (function.__kwdefaults__ or {})),
            ("closure", cells),
            ("attribute", vars(function)),
        ):
            for name, value in sorted(values.items()):
                where = f"the {kind} `{name}`{mine}"
                held = self._cell(value, where) if kind == "closure" else value
                if isinstance(held, types.ModuleType):
                    described = self._module(held, where, used.locals.get(name, _ALL))
                else:
                    described = self._value(held, where)
                self._put(f"{kind} of {label}: {name}", described, where)
        if not library:  # whose version says what its globals are
            self._globals(function, used, mine)

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
        for name in sorted(used.attributes & _UNSEEN.keys()):
            self._refuse(f"`{name}`{mine}", _UNSEEN[name])
        own = function.__globals__
        outer: dict[str, Any] = attrgetter("__builtins__")(function)  # mypy may not know it
        label = self._namespace(own)
        for name, chains in sorted(used.loads.items()):
            where = f"the global `{name}`{mine}"
            if name in own:
                self._global(label, name, own[name], chains, where)
            elif name in outer:
                self._builtin(name, outer[name], where)
            elif name not in used.bound:
                self._refuse(where, "a name that is not defined")
        for found in sorted(used.imports):
            # One variable may be bound to one module or another.
            several = sum(other.variable == found.variable for other in used.imports) > 1
            chains = used.locals[found.variable] if found.variable else _ALL
            self._import(found, chains, several, own.get("__package__"), mine)

    def _builtin(self, name: str, value: object, where: str) -> None:
        theirs = getattr(value, "__module__", None) in _BUILT_IN and not _origin.is_users(value)
        if not theirs or id(value) in REACHES_ALL:
            self._global("builtins", name, value, _ALL, where)

    def _import(
        self,
        found: Import,
        chains: set[tuple[str, ...]],
        several: bool,
        package: str | None,
        mine: str,
    ) -> None:
        where = f"the module `{found.module}`{mine}"
        try:
            full = importlib.util.resolve_name(found.module, package)
            module = importlib.import_module(full)
            library = bool(_origin.owners(vars(module)))
            if found.item and not library and not hasattr(module, found.item):
                importlib.import_module(f"{full}.{found.item}")
        except ModuleNotFoundError as error:  # it may be optional
            missing = " ".join(filter(None, (found.module, found.item)))
            self._put(f"module {missing}", ("missing", error.name), where)
            return
        except ImportError as error:
            self._refuse(where, f"which cannot be imported ({error})", error)
        if found.item:
            chains = {(found.item, *chain) for chain in chains or _ALL}
        elif not found.whole:
            module = importlib.import_module(full.partition(".")[0])
        if several:
            chains = {chain for chain in chains if not chain or hasattr(module, chain[0])}
        self._module(module, where, chains)

    # Modules

    def _namespace(self, namespace: dict[str, Any]) -> str:
        found = self._labels.get(id(namespace))
        return found or self._label(namespace, _module_name(namespace.get("__name__")))

    def _global(
        self, label: str, name: str, value: Any, chains: set[tuple[str, ...]], where: str
    ) -> None:
        path = f"{label}.{name}"
        if isinstance(value, types.ModuleType):
            self._put(f"global {path}", self._module(value, where, chains), where)
        elif path not in self._bindings:
            self._bindings.add(path)
            description = self._value(value, where)
            is_definition = isinstance(value, types.FunctionType | type)
            if not is_definition or description not in (("function", path), ("class", path)):
                self._put(f"global {path}", description, where)

    def _module(
        self, module: types.ModuleType, where: str, chains: set[tuple[str, ...]] = _ALL
    ) -> object:
        """`rules.clean` depends on what that is, not on all that the module holds."""
        libraries = _origin.owners(vars(module))
        if libraries:
            self._library(libraries)
            for chain in sorted(chains):
                self._reach(module, chain, where)
            return "library", module.__name__
        if _origin.is_extension(vars(module)):
            self._refuse(where, "a compiled module of no installed library")
        label = self._namespace(vars(module))
        if () in chains:
            if f"module {label}" not in self._bindings:
                self._bindings.add(f"module {label}")
                self._pending.append(lambda: self._inside_module(module, label))
            return "module", label
        for name in sorted({chain[0] for chain in chains}):
            inside = f"`{name}` of {where}"
            if not hasattr(module, name):
                self._refuse(inside, "which is not defined")
            rest = {chain[1:] for chain in chains if chain[0] == name}
            self._global(label, name, getattr(module, name), rest, inside)
        return "module", label

    def _reach(self, module: types.ModuleType, chain: tuple[str, ...], where: str) -> None:
        """Looks for what is not a library's, although one of its modules holds it."""
        path, found = module.__name__, cast("object", module)
        for name in chain:
            if not isinstance(found, types.ModuleType):
                return
            found, path, where = vars(found).get(name), f"{path}.{name}", f"`{name}` of {where}"
            if id(found) in REACHES_ALL or _origin.is_users(found):
                self._put(f"global {path}", self._value(found, where), where)
                return

    def _inside_module(self, module: types.ModuleType, label: str) -> None:
        for name in sorted(vars(module).keys() - _NOT_OF_A_MODULE):
            where = f"the global `{name}` of {label}"
            self._global(label, name, vars(module)[name], _ALL, where)

    # Classes

    def _class(self, kind: type, where: str) -> object:
        if id(kind) in self._labels:
            return "class", self._labels[id(kind)]
        if not isinstance(kind.__module__, str):
            self._refuse(where, f"an object of the type {kind.__name__}, which names no module")
        libraries = _origin.libraries(kind.__module__)
        heap = bool(kind.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE: made while running
        if libraries and not heap:
            self._library(libraries)
            return "library", kind.__module__, kind.__qualname__
        if _origin.is_extension(_origin.globals_of(kind.__module__)):
            self._refuse(where, "a class of a compiled module of no installed library")
        label = self._label(kind, f"{_module_name(kind.__module__)}.{kind.__qualname__}")
        self._pending.append(lambda: self._inside_class(kind, label))
        return "class", label

    def _inside_class(self, kind: type, label: str) -> None:
        bases = tuple(self._value(base, f"a base of {label}") for base in kind.__bases__)
        made_by = self._value(type(kind), f"the metaclass of {label}")
        try:
            held = members(kind)
        except Unknown as error:
            self._refuse(f"the class {label}", str(error), error)
        description = ("class", bases, made_by, order(kind), (*sorted(held),))
        self._put(f"class {label}", description, label)
        for name, value in sorted(held.items()):
            where = f"the attribute `{name}` of {label}"
            self._put(f"attribute of {label}: {name}", self._value(value, where), where)
        for position, other in enumerate(registered(kind)):
            where = f"a class registered with {label}"
            self._put(f"{where}: {position}", self._value(other, where), where)


def _module_name(name: object) -> str:
    # In a worker process that was spawned, the script's module has another name.
    return "__main__" if name == "__mp_main__" else str(name)
