"""identify_function: another identity for what computes something else, and only for that."""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from easydata.fingerprint import FunctionIdentity, differences, identify_function

PREP = '''\
import enum
import functools
import logging
import re
from dataclasses import dataclass, field

import numpy as np
import tokenizers

import rules
from rules import twice

PATTERN = re.compile("a+")
TABLE = {"x": "y", "y": "z", "z": [1, (2.5, None), {"in", "a", "set"}]}
WORDS = np.arange(3)
LIMIT = 10
TOKENIZER = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
log = logging.getLogger("prep")


class Kind(enum.Enum):
    SHORT = 1
    LONG = 20


class Base:
    step = 3

    def base(self, text):
        return len(text) + self.step


@dataclass
class Cleaner(Base):
    lower: bool = True
    words: list = field(default_factory=lambda: ["seven"])

    def __call__(self, text):
        return self.kept + super().base(text)

    @functools.cached_property
    def kept(self):
        return 41


CLEANER = Cleaner()


def counted(function):
    def wrapper(*args):
        return function(*args), 17

    return functools.wraps(function)(wrapper)


@functools.lru_cache
def cached(n):
    return n + 51


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


def helper(text):
    return inner(text)


def inner(text):
    return text.replace("q", "k")


@counted
def decorated(text):
    return text + "d"


def make(offset):
    def shifted(n):
        return n + offset

    return shifted


SHIFTED = make(90)


def clean(text, lower=True, *, width=5):
    """What it does."""
    import json as local

    class Inside:
        label = "in class"

    text = PATTERN.sub("", text)
    if text in {"one", "two", "three"}:
        return twice(LIMIT) + rules.third(width) + rules.DEPTH
    pick = lambda value: [value * 61 for value in (lambda: [71])()]  # noqa: E731
    log.debug("x")
    return [
        helper(text), even(3), CLEANER(text), cached(1), decorated(text), SHIFTED(1), pick(2),
        TABLE, WORDS, Kind.SHORT, TOKENIZER, np.log(2), local.dumps(text), Inside.label, lower,
    ]


def unrelated():
    return 0
'''
RULES = """\
import base64

import more

HANDLE = object()
DEPTH = 6
OTHER = 1


def twice(n):
    return 2 * n + base64.MAXLINESIZE


def third(n):
    return more.fourth(n)
"""
MORE = """\
def fourth(n):
    return n / 4
"""
FILES = {"prep.py": PREP, "rules.py": RULES, "more.py": MORE}

CHANGES = {
    "a constant": ("prep.py", '"one", "two"', '"one", "2"'),
    "an operator": ("prep.py", "n + offset", "n - offset"),
    "a nested lambda": ("prep.py", "[71]", "[72]"),
    "a lambda": ("prep.py", "value * 61", "value * 62"),
    "a class inside": ("prep.py", "in class", "in the class"),
    "a default": ("prep.py", "lower=True", "lower=False"),
    "a keyword's default": ("prep.py", "width=5", "width=6"),
    "the name of a parameter": ("prep.py", "width=5):", "size=5, width=5):"),
    "a closure": ("prep.py", "make(90)", "make(91)"),
    "a number": ("prep.py", "LIMIT = 10", "LIMIT = 11"),
    "its type": ("prep.py", "LIMIT = 10", "LIMIT = 10.0"),
    "a pattern": ("prep.py", '"a+"', '"b+"'),
    "its flags": ("prep.py", '"a+")', '"a+", re.I)'),
    "a table": ("prep.py", "2.5", "2.25"),
    "a set in a table": ("prep.py", '"a", "set"', '"a", "list"'),
    "the order of a table": ("prep.py", '"x": "y", "y": "z"', '"y": "z", "x": "y"'),
    "an array": ("prep.py", "np.arange(3)", "np.arange(3.0)"),
    "a tokenizer": ("prep.py", '{"a": 0, "b": 1}', '{"a": 1, "b": 0}'),
    "a helper two calls away": ("prep.py", '"q", "k"', '"q", "c"'),
    "a mutually recursive helper": ("prep.py", "n != 0 and", "n > 0 and"),
    "a class attribute": ("prep.py", "step = 3", "step = 4"),
    "a method of a base class": ("prep.py", "len(text) + self.step", "len(text) * self.step"),
    "a method": ("prep.py", "self.kept + super", "self.kept - super"),
    "a cached property": ("prep.py", "return 41", "return 42"),
    "a field's default": ("prep.py", "lower: bool = True", "lower: bool = False"),
    "a field's factory": ("prep.py", '"seven"', '"eight"'),
    "an instance's state": ("prep.py", "Cleaner()", 'Cleaner(words=["b"])'),
    "a base": ("prep.py", "class Cleaner(Base)", "class Cleaner(Base, list)"),
    "an enum's value": ("prep.py", "SHORT = 1", "SHORT = 2"),
    "another member": ("prep.py", "    LONG = 20\n", ""),
    "a cached function": ("prep.py", "n + 51", "n + 52"),
    "a decorated function": ("prep.py", 'text + "d"', 'text + "e"'),
    "a decorator": ("prep.py", "17", "18"),
    "another logger": ("prep.py", 'getLogger("prep")', 'getLogger("other")'),
    "another module": ("prep.py", "import json as local", "import csv as local"),
    "a helper of another module": ("rules.py", "2 * n", "3 * n"),
    "a constant of another module": ("rules.py", "DEPTH = 6", "DEPTH = 7"),
    "a helper of a third module": ("more.py", "n / 4", "n / 5"),
    "a global that hides a builtin": ("prep.py", "LIMIT = 10", "LIMIT = 10\nlen = str.__len__"),
}
NO_CHANGES = {
    "a comment": ("prep.py", "def clean(", "# cleans\ndef clean("),
    "lines": ("prep.py", "import enum", "\n\n\nimport enum"),
    "a line inside": ("prep.py", '    log.debug("x")', '\n    # says x\n\n    log.debug("x")'),
    "broken lines": ("prep.py", "return n + offset", "return (n\n        + offset)"),
    "a docstring": ("prep.py", "What it does.", "What it really does."),
    "an unrelated function": ("prep.py", "return 0", "return 1"),
    "an unrelated global": ("prep.py", "LIMIT = 10", "LIMIT = 10\nUNRELATED = open"),
    "the order of definitions": (
        "prep.py",
        PREP[PREP.index("def even") : PREP.index("def odd")],
        "",
    ),
    "an unrelated name of a module": ("rules.py", "OTHER = 1", "OTHER = 2"),
}


@contextlib.contextmanager
def imported(folder: Path, files: dict[str, str], name: str = "prep") -> Iterator[ModuleType]:
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    names = [file.removesuffix(".py") for file in files]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for each in names:
            sys.modules.pop(each, None)


def identity_of(folder: Path, change: tuple[str, str, str] | None = None) -> FunctionIdentity:
    files = dict(FILES)
    if change is not None:
        file, old, new = change
        assert files[file].count(old) == 1, old
        files[file] = files[file].replace(old, new)
        if old.startswith("def even"):  # moved, not removed
            files[file] += "\n\n" + old
    with imported(folder, files) as module:
        return identify_function(module.clean)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> FunctionIdentity:
    return identity_of(tmp_path_factory.mktemp("original") / "files")


class TestChanges:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_one_thing_changes(
        self, tmp_path: Path, original: FunctionIdentity, change: tuple[str, str, str]
    ) -> None:
        changed = identity_of(tmp_path / "files", change)
        assert changed.fingerprint != original.fingerprint
        assert differences(original, changed)

    @pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
    def test_nothing_that_counts_changes(
        self, tmp_path: Path, original: FunctionIdentity, change: tuple[str, str, str]
    ) -> None:
        same = identity_of(tmp_path / "another folder" / "files", change)
        assert differences(original, same) == []
        assert same.fingerprint == original.fingerprint
        assert same == original

    def test_versions_of_libraries(self, original: FunctionIdentity) -> None:
        import numpy as np
        import tokenizers

        found = {part for part in original.parts if part.startswith(("library", "python"))}
        assert found == {
            f"library numpy {np.__version__}",
            f"library tokenizers {tokenizers.__version__}",
            f"python {sys.version_info.major}.{sys.version_info.minor}",
        }

    def test_a_global_that_is_set_while_running(
        self, tmp_path: Path, original: FunctionIdentity
    ) -> None:
        with imported(tmp_path / "files", FILES) as module:
            module.rules.DEPTH = 7
            changed = identify_function(module.clean)
        assert differences(original, changed) == ["global rules.DEPTH changed"]

    def test_it_does_not_matter_whether_it_was_called(
        self, tmp_path: Path, original: FunctionIdentity
    ) -> None:
        with imported(tmp_path / "files", FILES) as module:
            for _ in range(100):  # the interpreter specialises what runs often
                module.clean("text")
            copy.copy(module.CLEANER)  # keeps the names of its slots in its class
            assert module.cached.cache_info().currsize == 1
            assert "kept" in vars(module.CLEANER)
            assert identify_function(module.clean) == original
            old = sys.gettrace()
            sys.settrace(lambda *_: None)
            try:
                module.clean("text")
                assert identify_function(module.clean) == original
            finally:
                sys.settrace(old)

    def test_the_same_in_every_process(self, tmp_path: Path, original: FunctionIdentity) -> None:
        program = (
            "import json, prep, easydata.fingerprint as f\n"
            "print(json.dumps(f.identify_function(prep.clean).to_json()))"
        )
        running = []
        for seed in "012":
            folder = tmp_path / f"place {seed}"
            folder.mkdir()
            for file, text in FILES.items():
                (folder / file).write_text("#\n" * int(seed) + text)
            path = os.pathsep.join([str(folder), *(p for p in sys.path if p)])
            env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
            command = [sys.executable, "-c", program]
            running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        for process in running:
            assert FunctionIdentity.from_json(json.loads(process.communicate()[0])) == original
            assert process.returncode == 0
