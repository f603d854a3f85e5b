"""identify_function sees changes in places that are easily overlooked."""

from __future__ import annotations

import builtins
import functools
import html
import importlib.util
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.errors import UsageError
from easydata.fingerprint import FunctionIdentity, _origin, differences, identify_function

from .test_functions import imported

PREP = '''\
import abc
import builtins
import enum
import functools
import html
import logging

import numpy as np


class Kind(str, enum.Enum):
    SHORT = "short", 1

    def __new__(cls, text, label):
        made = str.__new__(cls, text)
        made._value_ = text[0]
        made.label = label
        return made

    @functools.lru_cache
    def cached(self):
        return 101

    @functools.cached_property
    def kept(self):
        return 102

    @functools.singledispatchmethod
    def chosen(self, other):
        return 103

    @enum.property
    def shown(self):
        return 104

    def __private(self):
        return 105

    table = enum.nonmember({"a": 106}) if hasattr(enum, "nonmember") else None


class classproperty(property):
    factor = 111

    def __get__(self, instance, owner):
        return self.fget(owner) * self.factor


class Static(staticmethod):
    __slots__ = ("held",)
    factor = 112


class Kept(functools.cached_property):
    factor = 113


class Log(logging.Logger):
    factor = 114


class Words(set):
    __slots__ = ("limit",)


class Rule(abc.ABC):
    @classproperty
    def width(cls):
        return 121

    @Static
    def depth():
        return 122

    @Kept
    def length(self):
        return 123


vars(Rule)["depth"].held = 124
log = Log("changes")
log.more = 125
WORDS = Words("a")
WORDS.limit = 126


@Rule.register
class Other:
    size = 131


def escape(text):
    return text + "141"


html.mine = escape
html.partly = functools.partial(functools.lru_cache(escape), "142")
builtins.easy_mine = lambda text: 144
builtins.EASY_LIMIT = 143


@functools.singledispatch
def clean_any(value):
    return 151


@clean_any.register
def clean_text(value: str):
    return 152


def inside(row):
    import html as local
    import rules
    from rules import LIMIT as limit

    return rules.DEPTH, limit, local.partly()


def inside_from(row):
    from html import mine

    return mine()


def clean(row):
    class Inside:
        """What it is."""

    return [
        Kind, Rule, log, WORDS, html.mine(row), clean_any(row), inside, inside_from, Inside,
        EASY_LIMIT, easy_mine(row),
    ]
'''
RULES = """\
import threading

LIMIT = 161
DEPTH = 162
UNUSED = threading.Lock()
"""
FILES = {"prep.py": PREP, "rules.py": RULES}


def identity_of(folder: Path, old: str = "", new: str = "") -> FunctionIdentity:
    files = {file: text.replace(old, new) if old else text for file, text in FILES.items()}
    try:
        with imported(folder, files) as module:
            return identify_function(module.clean)
    finally:
        del html.mine, html.partly  # type: ignore[attr-defined]
        del builtins.easy_mine, builtins.EASY_LIMIT  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> FunctionIdentity:
    return identity_of(tmp_path_factory.mktemp("original") / "files")


CHANGES = [
    *((str(n), str(n + 400)) for n in range(101, 200) if str(n) in PREP + RULES),
    ('"short", 1', '"short", 2'),
    ('"short", 1', '"sport", 1'),
    ("class classproperty(property)", "class classproperty(property, enum.EnumMeta.__base__)"),
    ("@classproperty\n", "@property\n"),
    ("@Kept\n", "@functools.cached_property\n"),
    ('Log("changes")', 'logging.getLogger("changes")'),
    ("@Rule.register\n", ""),
    ("value: str", "value: bytes"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_one_thing_changes(tmp_path: Path, original: FunctionIdentity, old: str, new: str) -> None:
    if "EnumMeta" in new:  # another base
        new = "class Wide:\n    pass\n\n\nclass classproperty(property, Wide)"
    assert differences(original, identity_of(tmp_path / "files", old, new))


def test_a_docstring_inside_does_not_count(tmp_path: Path, original: FunctionIdentity) -> None:
    same = identity_of(tmp_path / "files", "What it is.", "What it was.")
    assert differences(original, same) == []


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[types.ModuleType]:
    """A user's file under the name of a module of the standard library."""
    file = tmp_path / "token.py"
    file.write_text("LIMIT = 1\n\n\ndef clean(row):\n    return LIMIT\n")
    spec = importlib.util.spec_from_file_location("token", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestNamesOfLibraries:
    def test_a_function_of_that_file_in_a_library(
        self, loaded: types.ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(html, "unescape", loaded.clean)
        assert "global html.unescape" in identify_function(lambda: html.unescape("a")).parts

    def test_a_file_of_the_user(self, loaded: types.ModuleType) -> None:
        def use() -> object:
            return loaded

        before = identify_function(loaded.clean), identify_function(use)
        loaded.LIMIT = 2  # type: ignore[attr-defined]
        assert differences(before[0], identify_function(loaded.clean))
        assert differences(before[1], identify_function(use))

    def test_a_module_that_is_made(self) -> None:
        module = types.ModuleType("json")
        module.LIMIT = 1  # type: ignore[attr-defined]
        before = identify_function(lambda: module)
        module.LIMIT = 2  # type: ignore[attr-defined]
        assert differences(before, identify_function(lambda: module))

    def test_a_function_that_takes_the_place_of_a_librarys(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def make(limit: int) -> Any:
            @functools.wraps(html.unescape)
            def unescape(text: str) -> str:
                return text[:limit]

            return unescape

        def named(text: str) -> str:
            return html.unescape(text)

        found = [identify_function(named)]
        for function in (make(1), make(2), functools.partial(make(2))):
            with monkeypatch.context() as patch:
                patch.setattr(html, "unescape", function)
                value = html.unescape
                found += [identify_function(named), identify_function(lambda: value)]  # noqa: B023
        assert len({identity.fingerprint for identity in found}) == len(found)
        assert "global html.unescape" not in found[0].parts

    @pytest.mark.parametrize("name", ["random.rand", "linalg.norm", "log", "vectorize"])
    def test_what_a_library_holds_of_its_own(self, name: str) -> None:
        module: dict[str, Any] = {"__name__": "prep", "np": np}
        exec(f"def clean(row):\n    return np.{name}(row)", module)
        library = f"library numpy {np.__version__}"
        expected = {"code of clean", "global prep.np", library, _origin.python()}
        assert set(identify_function(module["clean"]).parts) == expected


def test_a_universal_function_of_the_users() -> None:
    mine = np.frompyfunc(lambda n: n + 1, 1, 1)
    with pytest.raises(UsageError, match=r"`mine`, an object of type numpy\.ufunc, which no libr"):
        identify_function(lambda: mine)
    assert identify_function(lambda: np.log) != identify_function(lambda: np.exp)


def test_a_compiled_function_of_the_users() -> None:
    """As Cython makes them: `__module__` of the type is a descriptor."""

    class Compiled:
        __module__ = property(lambda self: "fast")
        __qualname__ = "run"

        def __call__(self) -> int:
            return 1

    with pytest.raises(
        UsageError, match=r"an object of the type Compiled, which names no module; pass"
    ):
        identify_function(Compiled())
    assert identify_function(Compiled(), version="1").fingerprint
