"""Which installed library a module belongs to, if it is not the user's own."""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["find", "globals_of", "is_extension", "is_users", "libraries", "owners", "python"]

_WRAPPERS = {
    functools.partial: "func",
    types.MethodType: "__func__",
    type(functools.cache(len)): "__wrapped__",
}


def python() -> str:
    """`python 3.11`."""
    return f"python {sys.version_info.major}.{sys.version_info.minor}"


def libraries(module: str) -> list[str]:
    """`["library numpy 2.1.0"]`, `["python 3.11"]` for the standard library, or [] for user code.

    A namespace package that several distributions fill has all of them. A module that lies
    outside the folders of installed packages (an editable install too) is the user's.
    """
    return _libraries(module, _file(globals_of(module)))


def owners(namespace: Mapping[str, Any]) -> list[str]:
    """`libraries` of the module that these are the globals of, whatever it calls itself."""
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return []
    file = _file(namespace)
    if file is None and globals_of(name) is not namespace:
        return []
    return _libraries(name, file)


def is_users(value: Any) -> bool:
    """Whether `value` runs code of the user, although a library may hold it."""
    for kind, inside in _WRAPPERS.items():
        if isinstance(value, kind):
            return is_users(getattr(value, inside))
    if isinstance(value, types.FunctionType):
        # What a library has made with `exec` may have no name.
        namespace = value.__globals__
        return isinstance(namespace.get("__name__"), str) and not owners(namespace)
    module = (value if isinstance(value, type) else type(value)).__module__
    # Cython and others give their types modules that are in no file.
    known = isinstance(module, str) and (module == "__main__" or _file(globals_of(module)))
    return bool(known) and not libraries(module)


def is_extension(namespace: Mapping[str, Any]) -> bool:
    """Whether the module with these globals is compiled: there is no Python code to look at."""
    file = _file(namespace)
    return file is not None and file.suffix in {".so", ".pyd", ".dylib"}


def _libraries(module: str, file: Path | None) -> list[str]:
    top = module.partition(".")[0]
    file = file or _file(globals_of(top))
    if top in sys.stdlib_module_names and (file is None or _is_below(file, _standard())):
        return [python()]
    if file is None or not _is_below(file, _installed()):
        return []
    return [f"library {name} {version}" for name, version in _distributions().get(top, ())]


def find(module: str, name: str) -> object:
    """The object of a loaded module that is called `name` (dots allowed); None if there is none."""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def globals_of(module: str) -> Mapping[str, Any]:
    """The globals of a loaded module; nothing for another."""
    return getattr(sys.modules.get(module), "__dict__", {})


def _file(namespace: Mapping[str, Any]) -> Path | None:
    file = namespace.get("__file__")
    if isinstance(file, str):
        return Path(file).absolute()
    for folder in namespace.get("__path__", ()):  # a namespace package
        return Path(folder).absolute() / "__init__.py"
    return None


def _is_below(file: Path, folders: frozenset[Path]) -> bool:
    # Either may be a link: a virtual environment, or a file in one that lies in a shared store.
    return not folders.isdisjoint([*file.parents, *file.resolve().parents])


@functools.cache
def _installed() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    named = {Path(path) for path in sys.path if path.endswith("-packages")}
    return _both(named | {Path(paths[name]) for name in ("purelib", "platlib")})


@functools.cache
def _standard() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    return _both({Path(paths[name]) for name in ("stdlib", "platstdlib")})


def _both(folders: set[Path]) -> frozenset[Path]:
    return frozenset(folders | {folder.resolve() for folder in folders})


@functools.cache
def _distributions() -> dict[str, list[tuple[str, str]]]:
    from importlib import metadata

    return {
        top: sorted({(name, metadata.version(name)) for name in names})
        for top, names in metadata.packages_distributions().items()
    }
