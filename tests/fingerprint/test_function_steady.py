"""identify_function: what was called, warned or imported before makes no difference."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from easydata.errors import UsageError
from easydata.fingerprint import FunctionIdentity, differences, identify_function

from .test_functions import imported

MODEL = '''\
import attrs
import pydantic
import pydantic.dataclasses


@attrs.frozen
class Span:
    start: int = attrs.field(default=107)


class Part(pydantic.BaseModel):
    size: int = 1


class Row(pydantic.BaseModel):
    """A row."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_assignment=True)
    text: str = pydantic.Field("", max_length=101)
    parts: list[Part] = pydantic.Field(default_factory=list)
    _hidden: int = pydantic.PrivateAttr(102)

    @pydantic.field_validator("text", mode="after")
    @classmethod
    def check(cls, text):
        return text + "103"

    @pydantic.computed_field
    @property
    def width(self) -> int:
        return 104


@pydantic.dataclasses.dataclass
class Pair:
    left: int = 105


ROW = Row(text="106")


def clean(row):
    return Row(**row).text, ROW, Pair(), Span()
'''


def parts_of(folder: Path, text: str) -> FunctionIdentity:
    with imported(folder, {"model.py": text}, "model") as module:
        return identify_function(module.clean)


class TestModels:
    def test_the_same_in_every_process_and_after_a_call(self, tmp_path: Path) -> None:
        (tmp_path / "model.py").write_text(MODEL)
        program = (
            "import json, model, easydata.fingerprint as f\n"
            "before = f.identify_function(model.clean)\n"
            "model.clean({'parts': [{}]}), setattr(model.Row(), 'text', 'b')\n"
            "assert f.identify_function(model.clean) == before\n"
            "kept = [0] * int({seed}) * 1000\n"
            "print(before.fingerprint)"
        )
        found = set()
        for seed in "12":
            path = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
            env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
            command = [sys.executable, "-c", program.replace("{seed}", seed)]
            found.add(subprocess.check_output(command, env=env, text=True))
        assert len(found) == 1

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            *((str(number), str(number + 100)) for number in range(101, 108)),
            ('extra="forbid"', 'extra="ignore"'),
            ('mode="after"', 'mode="before"'),
            ("left: int", "left: float"),
            ("size: int", "size: float"),
        ],
    )
    def test_changes(self, tmp_path: Path, old: str, new: str) -> None:
        assert old in MODEL
        changed = parts_of(tmp_path / "b", MODEL.replace(old, new))
        assert differences(parts_of(tmp_path / "a", MODEL), changed)

    def test_what_is_not_complete(self) -> None:
        import pydantic

        class Open(pydantic.BaseModel):
            later: Later  # type: ignore[name-defined]  # noqa: F821 - not yet there

        with pytest.raises(UsageError, match=r"Open, a pydantic model that is not complete"):
            identify_function(lambda: Open)
        Open.model_rebuild(_types_namespace={"Later": int})
        assert identify_function(lambda: Open).fingerprint


def remains(function: Callable[..., Any], happens: Callable[[], object]) -> FunctionIdentity:
    before = identify_function(function)
    happens()
    assert differences(before, identify_function(function)) == []
    return before


PACKAGE = {
    "pk/__init__.py": "OTHER = open\n",
    "pk/sub.py": "X = 101\nUNUSED = open\n",
    "pk/more.py": "Y = 102\n",
    "use.py": """\
import pk.sub
import pk


def clean(row):
    return pk.sub.X


def inside(row):
    import pk.sub

    def nested():
        return pk.sub.X

    return nested


def renamed(row):
    import pk.sub as m
    from pk import sub as n, more

    return m.X, n.X, more.Y


def whole(row):
    return pk


def optional(row):
    try:
        import no_such_module as fast
    except ImportError:
        import pk.sub as fast
    try:
        from pk import no_such_item
    except ImportError:
        pass
    return fast.X


def make():
    import pk.sub

    return lambda row: pk.sub.X


closed = make()


def either(row):
    if row:
        import pk.more as m

        return m.Y
    import pk.sub as m

    return m.X
""",
}


@pytest.fixture
def package(tmp_path: Path) -> typing.Iterator[ModuleType]:
    (tmp_path / "files" / "pk").mkdir(parents=True)
    for file, text in PACKAGE.items():
        (tmp_path / "files" / file).write_text(text)
    sys.path.insert(0, str(tmp_path / "files"))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module("use")
    finally:
        sys.path.remove(str(tmp_path / "files"))
        for name in ("use", "pk", "pk.sub", "pk.more", "no_such_module"):
            sys.modules.pop(name, None)


class TestImports:
    @pytest.mark.parametrize("name", ["clean", "inside", "closed"])
    def test_another_part_of_the_package(self, package: ModuleType, name: str) -> None:
        remains(getattr(package, name), lambda: importlib.import_module("pk.more"))

    @pytest.mark.parametrize(
        "name", ["clean", "inside", "renamed", "whole", "optional", "either", "closed"]
    )
    def test_what_is_used_counts(self, package: ModuleType, name: str) -> None:
        function = getattr(package, name)
        before = identify_function(function)
        package.pk.sub.X = 103
        assert differences(before, identify_function(function))

    def test_an_optional_module_counts_once_it_is_there(
        self, package: ModuleType, tmp_path: Path
    ) -> None:
        before = identify_function(package.optional)
        (tmp_path / "files" / "no_such_module.py").write_text("X = 101\n")
        importlib.invalidate_caches()
        assert differences(before, identify_function(package.optional))


def noisy() -> ModuleType:
    module = ModuleType("noisy")
    exec("import warnings\ndef run():\n    warnings.warn('x')\n", vars(module))
    return module


@np.vectorize
def plain(value: int) -> int:
    return value


class Node(typing.NamedTuple):
    following: typing.Optional["Node"]  # noqa: UP037, UP045 - what is kept in it is the point


Node.__annotations__["following"] = typing.Optional[typing.ForwardRef("Node")]  # noqa: UP045


class TestCalls:
    def test_a_warning(self) -> None:
        module = noisy()

        def happens() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                with pytest.warns(UserWarning, match="x"):
                    module.run()

        remains(lambda: module, happens)
        assert "__warningregistry__" in vars(module)

    def test_a_vectorized_function(self) -> None:
        double = np.vectorize(lambda n: 2 * n, otypes=[int])
        triple = np.vectorize(lambda n: 3 * n, otypes=[int])
        one = remains(lambda: double, lambda: double([1, 2]))
        assert vars(double)["_ufunc"]
        assert differences(one, identify_function(lambda: triple))

    def test_annotations_that_are_resolved(self) -> None:
        remains(lambda: Node, lambda: typing.get_type_hints(Node))
        hints = Node.__annotations__
        assert typing.get_args(hints["following"])[0].__forward_evaluated__

    def test_a_function_that_dispatches(self, tmp_path: Path) -> None:
        source = (
            "import functools, collections.abc\n"
            "@functools.singledispatch\ndef clean(value):\n    return 101\n"
            "@clean.register(collections.abc.Sized)\ndef sized(value):\n    return 102\n"
        )
        with imported(tmp_path / "a", {"prep.py": source}) as module:
            before = remains(module.clean, lambda: [module.clean(1), module.clean("a")])
            remains(lambda: module.clean, lambda: module.clean(b""))
        for number in ("101", "102"):
            changed = source.replace(number, "103")
            with imported(tmp_path / number, {"prep.py": changed}) as module:
                assert differences(before, identify_function(module.clean))
