"""Which installed library a module belongs to, if it is not the user's own."""

from __future__ import annotations

import functools
import sys
import sysconfig
from pathlib import Path

__all__ = ["find", "is_extension", "libraries", "python"]


def python() -> str:
    """`python 3.11`."""
    return f"python {sys.version_info.major}.{sys.version_info.minor}"


def libraries(module: str) -> list[str]:
    """`["library numpy 2.1.0"]`, `["python 3.11"]` for the standard library, or [] for user code.

    A namespace package that several distributions fill has all of them. A module that lies
    outside the folders of installed packages (an editable install too) is the user's.
    """
    top = module.partition(".")[0]
    file = _file(module) or _file(top)
    if top in sys.stdlib_module_names and (file is None or _is_below(file, _standard())):
        return [python()]
    if file is None or not _is_below(file, _installed()):
        return []
    return [f"library {name} {version}" for name, version in _distributions().get(top, ())]


def is_extension(module: str) -> bool:
    """Whether the module is compiled, so that there is no Python code to look at."""
    file = _file(module)
    return file is not None and file.suffix in {".so", ".pyd", ".dylib"}


def find(module: str, name: str) -> object:
    """The object of a loaded module that is called `name` (dots allowed); None if there is none."""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _file(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if isinstance(file, str):
        return Path(file).absolute()
    for folder in getattr(loaded, "__path__", ()):  # a namespace package
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
