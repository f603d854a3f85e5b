"""Promises that the package as a whole makes."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import easydata
import easydata.errors

PACKAGE = Path(easydata.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    *("jax", "torch", "ray", "datasets", "pandas", "transformers"),
    *("fsspec", "typer", "rich", "filelock", "tokenizers"),
}


def test_import_loads_nothing_heavy() -> None:
    program = "import easydata, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert {"easydata", "numpy", "pyarrow"} <= loaded
    assert loaded.isdisjoint(HEAVY)


def test_all_is_what_is_exported() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imported = [
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("easydata.")
        for alias in node.names
    ]
    assert easydata.__all__ == sorted([*imported, "__version__"])
    assert set(easydata.__all__) <= set(dir(easydata))
    for name in easydata.__all__:
        assert getattr(easydata, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = easydata.nothing


def test_all_errors_are_exported() -> None:
    defined = [name for name, value in vars(easydata.errors).items() if inspect.isclass(value)]
    assert easydata.errors.__all__ == sorted(defined)


def test_public_names_have_docstrings() -> None:
    for name in set(easydata.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(easydata, name)), name


def test_every_error_is_public() -> None:
    assert set(easydata.errors.__all__) <= set(easydata.__all__)


def test_the_drawn_tree_of_errors() -> None:
    """Each line names a class under its base, as deep as it is indented."""
    drawn: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (easydata.errors.__doc__ or "").splitlines():
        match = re.match(r"([ │├└─]*)(\w+Error)\b", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        while path and path[-1][0] >= depth:
            path.pop()
        drawn[name] = path[-1][1] if path else None
        path.append((depth, name))
        for also in re.findall(r"also an? (\w+)\)", line):
            assert issubclass(getattr(easydata.errors, name), getattr(builtins, also))
    actual = {}
    for name in easydata.errors.__all__:
        base = getattr(easydata.errors, name).__bases__[0].__name__
        actual[name] = None if base == "Exception" else base
    assert drawn == actual


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_small_and_say_what_they_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split it"
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_code_in_data(path: Path) -> None:
    """Only the engine may pickle: between our own processes, never from a file."""
    if path.relative_to(PACKAGE).parts[0] == "engine":
        return
    banned = {"pickle", "cPickle", "_pickle", "marshal", "dill", "cloudpickle", "shelve", "joblib"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert banned.isdisjoint(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in banned
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
