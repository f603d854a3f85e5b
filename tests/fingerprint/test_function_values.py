"""identify_function: callables of every kind, and the values that they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from easydata.fingerprint import differences, identify_function

from .test_functions import FILES, imported


def refer(value: object) -> Callable[[], object]:
    return lambda: value


def outcome(value: object) -> str:
    return identify_function(refer(value)).fingerprint


class TestCallables:
    def test_names(self, tmp_path: Path) -> None:
        import functools

        import numpy as np

        with imported(tmp_path / "files", FILES) as m:
            expected = {
                "prep:clean": m.clean,
                "prep:Base.base": m.CLEANER.base,
                "prep:Cleaner": m.CLEANER,
                "prep:cached": m.cached,
                "prep:helper": functools.partial(m.helper, "x"),
                "prep:decorated": m.decorated,
                "builtins:str.lower": str.lower,
                "numpy:log": np.log,
            }
            for name, function in expected.items():
                assert identify_function(function).name.endswith(name.rpartition(":")[2])
                assert len(identify_function(function).fingerprint) == 32
            found = {identify_function(function).fingerprint for function in expected.values()}
        assert len(found) == len(expected)

    def test_state_of_an_instance_and_arguments_of_a_partial_count(self, tmp_path: Path) -> None:
        import functools

        with imported(tmp_path / "files", FILES) as m:
            pairs = [
                (m.Cleaner(True), m.Cleaner(False)),
                (m.Cleaner(True).base, m.Cleaner(False).base),
                (functools.partial(m.helper, "x"), functools.partial(m.helper, "y")),
                (m.make(1), m.make(2)),
            ]
            for one, other in pairs:
                assert differences(identify_function(one), identify_function(other))

    def test_values_that_differ(self) -> None:
        import collections
        import decimal
        import functools
        import operator
        import types
        import typing

        import numpy as np

        point = collections.namedtuple("point", "x")  # noqa: PYI024
        values = [
            *(1, 1.0, True, "1", b"1", 1j, None, ..., NotImplemented, [1], (1,), {1}, [], ()),
            *(frozenset({1}), {1: 2}, {2: 1}, types.MappingProxyType({1: 2}), bytearray(b"1")),
            *(collections.OrderedDict({1: 2}), collections.defaultdict(bool, {1: 2})),
            *(collections.defaultdict(int, {1: 2}), collections.Counter({1: 2}), point(1)),
            *(collections.deque([1]), collections.deque([1], 5), range(3), range(4), slice(3)),
            *(operator.itemgetter("a"), operator.itemgetter("b"), operator.attrgetter("a")),
            *(decimal.Decimal("1.0"), decimal.Decimal("1.00"), len, sorted, str, str.lower),
            *("a".join, "b".join, functools.partial(len), functools.cache(len), np.log, np.exp),
            *(np.dtype("f4"), np.dtype("f8"), np.float32, np.float32(1), np.zeros(1), np.zeros(2)),
            *(int | None, str | None, list[int], list[str], typing.Any, typing.TypeVar("T")),
            *(typing.List[int], typing.Optional[str], typing.Callable[[int], str]),  # noqa: UP006, UP045
            *(staticmethod(len), classmethod(print), property(len), os.path, json, object()),
        ]
        found = [outcome(value) for value in values]
        twice = [values[i] for i, each in enumerate(found) if each in found[:i]]
        assert twice == []
        assert found == [outcome(value) for value in values]

    def test_a_list_that_holds_itself(self) -> None:
        one: list[object] = [1]
        one.append(one)
        other: list[object] = [1]
        other.append([1, other])
        assert outcome(one) == outcome(one) != outcome(other)

    def test_the_settings_of_a_tokenizer(self) -> None:
        import tokenizers

        def make() -> tokenizers.Tokenizer:
            return tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))

        cut, special = make(), make()
        cut.enable_truncation(3)
        special.encode_special_tokens = True
        assert outcome(make()) == outcome(make())
        assert len({outcome(make()), outcome(cut), outcome(special)}) == 3

    def test_a_fast_tokenizer_that_was_called(self) -> None:
        import tokenizers
        import transformers

        model = tokenizers.models.WordLevel({"a": 0, "u": 1}, unk_token="u")
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer(model), pad_token="u", model_max_length=4
        )
        before = outcome(tokenizer)
        tokenizer.deprecation_warnings["asked"] = True
        tokenizer(["a a", "a"], truncation=True, max_length=1, padding=True)
        assert outcome(tokenizer) == before
        tokenizer.truncation_side = "left"
        assert outcome(tokenizer) != before


def test_no_two_functions_share_a_label() -> None:
    functions = [lambda: 1, lambda: 2]
    swapped = [functions[1], functions[0]]
    assert outcome(functions) == outcome([lambda: 1, lambda: 2])
    assert outcome(functions) != outcome(swapped)
    assert outcome([functions[0]] * 2) != outcome(functions)
    assert outcome([lambda: 3, functions[1]]) != outcome(functions)
