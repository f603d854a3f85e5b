"""identify_function refuses what has no identity; versions; differences in words."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import itertools
import json
import random
import re
import secrets
import sys
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.errors import UsageError
from easydata.fingerprint import FunctionIdentity, differences, identify_function


def handle_of(tmp_path: Path) -> Any:
    with (tmp_path / "file").open("w") as file:
        return file


class Locked:
    def __init__(self) -> None:
        self.lock = threading.Lock()


VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "a lock": (threading.Lock, "`value`, a lock (_thread.lock)"),
    "a re-entrant lock": (threading.RLock, "`value`, a lock"),
    "a generator": (lambda: (x for x in "a"), "`value`, an object of type generator"),
    "an iterator": (lambda: iter([1]), "which gives its items only once"),
    "a counter": (itertools.count, "`value`, an object of type itertools.count"),
    "a random generator": (random.Random, "`value`, a random generator"),
    "the system's": (secrets.SystemRandom, "`value`, a random generator"),
    "the shared one": (lambda: random.random, "`value`, a random generator"),
    "one of numpy": (np.random.default_rng, "`value`, a random generator"),
    "an old one of numpy": (np.random.RandomState, "`value`, a random generator"),
    "a lock in a table": (lambda: {"a": [0, threading.Lock()]}, "`value`['a'][1], a lock"),
    "a lock in an instance": (Locked, "`value`.lock, a lock"),
    "a lock in a partial": (lambda: functools.partial(print, threading.Lock()), ", a lock"),
    "a weak reference": (lambda: weakref.ref(Locked), "`value`, an object of type weakref"),
    "a context variable": (lambda: contextvars.ContextVar("x"), "an object of type _contextvars"),
    "objects in an array": (lambda: np.array([None]), "holds items of dtype object"),
    "memory": (lambda: memoryview(b"a"), "an object of type memoryview"),
    "a local's own state": (threading.local, "an object of type _thread._local"),
}


def deep() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value


class TestRefusals:
    @pytest.mark.parametrize(("make", "message"), VALUES.values(), ids=VALUES)
    def test_as_a_global_a_closure_and_a_default(
        self, make: Callable[[], Any], message: str
    ) -> None:
        value = make()
        module: dict[str, Any] = {"__name__": "prep", "value": value}
        exec("def clean(row):\n    return value", module)

        def closed() -> Any:
            return value

        def default(value: Any = value) -> Any:
            return value

        for function, what in [(module["clean"], "global"), (closed, "closure")]:
            with pytest.raises(UsageError) as caught:
                identify_function(function)
            start = f"The transform {function.__qualname__} refers to the {what} `value`"
            assert str(caught.value).startswith(start)
            assert message in str(caught.value)
            assert "pass transform_version='1' and change it whenever" in str(caught.value)
        with pytest.raises(UsageError, match="refers to the default `value`"):
            identify_function(default)

    def test_an_open_file(self, tmp_path: Path) -> None:
        module: dict[str, Any] = {"__name__": "prep", "handle": handle_of(tmp_path)}
        exec("def helper():\n    return handle\ndef clean(row):\n    return helper()", module)
        message = r"the global `handle` of prep\.helper, a file \(_io\.TextIOWrapper\)"
        with pytest.raises(UsageError, match=message):
            identify_function(module["clean"])

    def test_what_is_too_deep(self) -> None:
        value = deep()
        with pytest.raises(UsageError, match=r"`value`(\[0\])+, which is nested more than 40 deep"):
            identify_function(lambda: value)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("def clean(row):\n    return nothing(row)", "`nothing`, a name that is not defined"),
            ("def clean(row):\n    global n\n    n = 1", "`n`, which it assigns"),
            ("n = 1\ndef clean(row):\n    def f():\n        global n\n        n = 1", "`n`, which"),
            ("n = 1\ndef clean(row):\n    global n\n    del n", "`n`, which it assigns"),
            ("def clean(row):\n    return eval(row)", "`eval`, which reaches what the code"),
            ("def clean(row):\n    return globals()[row]", "`globals`, which reaches"),
            ("def clean(row):\n    return clean.__doc__", "`__doc__`, which is not part"),
            ("def clean(row):\n    from .. import m", "module `..`, which cannot be imported"),
            ("def clean(row):\n    return clean.__globals__['n']", "`__globals__`, which"),
            ("def clean(row):\n    return getattr(row, 'f_globals')", "`f_globals`, which"),
            ("def clean(row):\n    return row.__subclasses__()", "`__sub"),
            ("RUN = eval\ndef clean(row):\n    return RUN(row)", "`RUN`, which reaches"),
            ("def clean(row, run=exec):\n    pass", "`run`, which reaches"),
            ("import builtins\ndef clean(row):\n    return builtins.eval(row)", "`eval` of"),
            ("import importlib as i\ndef clean(row):\n    return i.import_module(row).X",
             "`import_module` of the global `i`, which reaches"),
            ("from importlib import import_module\ndef clean(row):\n    import_module(row)",
             "`import_module`, which reaches"),
            ("def clean(row):\n    import importlib as i\n    i.__import__(row)",
             "`__import__` of the module `importlib`, which reaches"),
            ("def clean(row):\n    from importlib import import_module as i\n    i(row)",
             "`import_module` of the module `importlib`, which reaches"),
            ("import sys\ndef clean(row):\n    return sys.modules[__name__].X", "`modules` of"),
            ("import sys\nget = sys.modules.get\ndef clean(r):\n    get(r)", "`get`"),
            ("import sys\ndef clean(row):\n    return sys._getframe().f_back", "`_getframe` of"),
            ("def make():\n    import sys\n    return lambda: sys.modules['x'].X\nclean = make()",
             "`modules` of the closure `sys`, which reaches"),
            ("def clean(row):\n    return __builtins__['eval'](row)", "'], which reaches"),
            ("def clean(row):\n    from json import no_such", "`json`"),
            ("import types\nm = types.ModuleType('m')\ndef clean(row):\n    return m.f", "not def"),
            ("def make():\n    def f():\n        return g\n    return f\n    g = 1\nclean = make()",
             "closure `g`, which has no value yet"),
        ],
    )  # fmt: skip
    def test_code(self, source: str, message: str) -> None:
        module: dict[str, Any] = {"__name__": "prep", "__package__": ""}
        exec(source, module)
        if "no_such" in source and "json" in source:
            # A library's version says what it has.
            assert identify_function(module["clean"]).fingerprint
            return
        with pytest.raises(UsageError, match=re.escape(message)):
            identify_function(module["clean"])

    def test_a_compiled_module_of_no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.ModuleType("compiled")
        module.__file__ = "/nowhere/compiled.so"
        monkeypatch.setitem(sys.modules, "compiled", module)
        with pytest.raises(UsageError, match="a compiled module of no installed library"):
            identify_function(lambda: module)

        class Compiled:
            pass

        Compiled.__module__ = "compiled"
        with pytest.raises(UsageError, match="a class of a compiled module"):
            identify_function(lambda: Compiled)

    def test_a_tokenizer_with_dropout(self) -> None:
        import tokenizers

        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [], dropout=0.5))
        with pytest.raises(UsageError, match="`tokenizer`, a tokenizer with dropout"):
            identify_function(lambda: tokenizer)

    @pytest.mark.parametrize("value", [None, 3, "clean", [len]])
    def test_what_cannot_be_called(self, value: Any) -> None:
        with pytest.raises(UsageError, match=re.escape(f"{value!r}, which cannot be called")):
            identify_function(value, version="1")

    @pytest.mark.parametrize("version", ["", 1, True])
    def test_what_is_no_version(self, version: Any) -> None:
        with pytest.raises(UsageError, match="pass a text such as '1'"):
            identify_function(len, version=version)


def versioned(row: str) -> Any:
    return eval(row)


class TestVersions:
    def test_nothing_else_is_looked_at(self) -> None:
        identity = identify_function(versioned, version="1")
        name = f"{__name__}:versioned"
        assert identity == FunctionIdentity(name, "1", {})
        assert identify_function(versioned, version="2").fingerprint != identity.fingerprint
        assert identify_function(len, version="1").fingerprint != identity.fingerprint

    def test_golden(self) -> None:
        identity = FunctionIdentity("prep:clean", "1")
        assert identity.fingerprint == "3dadfd8b95e383d602c905d6d2a2928d"
        parts = FunctionIdentity("prep:clean", None, {"code of clean": "0" * 32})
        assert parts.fingerprint == "e2f7eff5083558fa69c2951705b33533"

    def test_json(self) -> None:
        for identity in (identify_function(len), identify_function(len, version="1")):
            assert (
                FunctionIdentity.from_json(json.loads(json.dumps(identity.to_json()))) == identity
            )
        with pytest.raises(KeyError):
            FunctionIdentity.from_json({"name": "a:b"})


OLD = FunctionIdentity(
    "prep:clean",
    None,
    {
        "code of clean": "0",
        "closure of clean: table": "0",
        "global prep.MAX": "0",
        "python 3.11": "0",
        "library regex 2024.1": "1",
        "library gone 1": "1",
    },
)


class TestDifferences:
    def test_none(self) -> None:
        assert differences(OLD, dataclasses.replace(OLD, parts=dict(OLD.parts))) == []

    def test_parts(self) -> None:
        parts = {
            "code of clean": "1",
            "default of clean: lower": "0",
            "global prep.MAX": "1",
            "python 3.12": "2",
            "library regex 2025.2": "3",
            "library new 2": "1",
        }
        assert differences(OLD, dataclasses.replace(OLD, parts=parts)) == [
            "library gone 1 is no longer used",
            "library new 2 is new",
            "library regex was 2024.1 and is 2025.2",
            "python was 3.11 and is 3.12",
            "the closure of clean: table is no longer used",
            "the code of clean changed",
            "the default of clean: lower is new",
            "global prep.MAX changed",
        ]

    def test_versions_and_names(self) -> None:
        one, two = FunctionIdentity("prep:clean", "1"), FunctionIdentity("prep:clean", "2")
        assert differences(one, two) == ["version was '1' and is '2'"]
        assert differences(OLD, one) == ["version was none and is '1'"]
        assert differences(one, FunctionIdentity("prep:wash", "1")) == [
            "it is another function: prep:wash, was prep:clean"
        ]
