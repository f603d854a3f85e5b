"""The bytes of recipes: they do not change silently, and damage is reported."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import zoneinfo
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from easydata.cache.values import arrow_type, decode, encode
from easydata.cache.values.columns import LIST_KINDS
from easydata.cache.values.dtypes import parse_dtype
from easydata.errors import DatasetError, MissingDependencyError
from tests.cache.test_cache_values import SLOW
from tests.cache.values_strategy import VALUES

STRUCT = np.dtype([("a", "<i4"), ("b", ">f8", (2,))], align=True)
GOLDEN: list[tuple[Any, str, list[tuple[str, str]]]] = [
    (
        {"input_ids": np.arange(3, dtype="<u2"), "attention_mask": np.ones(3, "u1")},
        '{"dict":["input_ids",{"column":{"array":"<u2"}},"attention_mask",{"column":{"array":"|u1"}}]}',
        [("input_ids", "<u2"), ("attention_mask", "|u1")],
    ),
    (
        {"ids": [1, 2], "none": [], "scores": [0.5], "flags": [True], "pair": (1, 2)},
        '{"dict":["ids",{"column":"list[int]"},"none",{"column":"list[int]"},"scores",'
        '{"column":"list[float]"},"flags",{"column":"list[bool]"},"pair",'
        '{"tuple":{"column":"list[int]"}}]}',
        [("ids", "<i8"), ("none", "<i8"), ("scores", "<f8"), ("flags", "|u1"), ("pair", "<i8")],
    ),
    (
        {"n": 1, "x": 0.5, "ok": True, "s": "é", "b": b"x", "no": None, "id": np.int32(3)},
        '{"dict":["n",{"column":"int"},"x",{"column":"float"},"ok",{"column":"bool"},"s",'
        '{"column":"str"},"b",{"column":"bytes"},"no",null,"id",{"column":{"numpy":"<i4"}}]}',
        [
            ("n", "int64"),
            ("x", "float64"),
            ("ok", "bool"),
            ("s", "utf8"),
            ("b", "binary"),
            ("id", "int64"),
        ],
    ),
    (
        [1, 2.5, None, {"x": 1}, {}, (True, ()), "é\0", -0.0],
        '[1,2.5,null,{"dict":["x",1]},{"dict":[]},{"tuple":[true,{"tuple":[]}]},"\\u00e9\\u0000",-0.0]',
        [],
    ),
    (
        [1 << 64, -(1 << 64), float("inf"), float("nan"), "\ud800\udc00", b"xyz", {"\udc80": 1}],
        '[{"int":"0x10000000000000000"},{"int":"-0x10000000000000000"},{"float":"7ff0000000000000"},'
        '{"float":"7ff8000000000000"},{"str":"7aCA7bCA"},{"bytes":"eHl6"},'
        '{"dict":[{"str":"7bKA"},1]}]',
        [],
    ),
    (
        [
            datetime.date(2024, 2, 29),
            datetime.time(1, 2, 3, 4, fold=1),
            datetime.timedelta(-1, 2, 3),
        ],
        '[{"date":[2024,2,29]},{"time":[1,2,3,4,1,null]},{"timedelta":[-1,2,3]}]',
        [],
    ),
    (
        [
            datetime.datetime(2024, 2, 29, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
            datetime.datetime(2024, 2, 29, 1, tzinfo=datetime.UTC),
            datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=-1), "X")),
        ],
        '[{"datetime":[2024,2,29,1,0,0,0,0,"Europe/Berlin"]},'
        '{"datetime":[2024,2,29,1,0,0,0,0,[0,0,0]]},{"time":[1,0,0,0,0,[-1,82800,0,"X"]]}]',
        [],
    ),
    (
        [np.float16(1), np.bool_(1), np.datetime64(1, "25s"), np.str_("a\0"), np.bytes_(b"a\0")],
        '[{"numpy":["<f2","ADw="]},{"numpy":["|b1","AQ=="]},{"numpy":["<M8[25s]","AQAAAAAAAAA="]},'
        '{"numpy.str":"a\\u0000"},{"numpy.bytes":"YQA="}]',
        [],
    ),
    (
        {"a": np.zeros((2, 3, 1), "<f4"), "b": np.array(5, ">i2"), "c": np.zeros((0, 0), "?")},
        '{"dict":["a",{"column":{"array":"<f4","shape":[-1,3,1]}},"b",{"column":{"array":">i2",'
        '"shape":[]}},"c",{"column":{"array":"|b1","shape":[0,0]}}]}',
        [("a", "<f4"), ("b", "|u1"), ("c", "|u1")],
    ),
    (
        {"t": np.zeros(1, "<M8[D]"), "z": np.zeros(1, "<c8"), "h": np.zeros(1, ml_dtypes.bfloat16)},
        '{"dict":["t",{"column":{"array":"<M8[D]"}},"z",{"column":{"array":"<c8"}},"h",'
        '{"column":{"array":"ml_dtypes.bfloat16"}}]}',
        [("t", "<i8"), ("z", "|u1"), ("h", "<u2")],
    ),
    (
        np.zeros(2, STRUCT),
        '{"column":{"array":{"names":["a","b"],"formats":["<i4",{"base":">f8","shape":[2]}],'
        '"offsets":[0,8],"itemsize":24,"aligned":true}}}',
        [("value", "|u1")],
    ),
    (
        [np.arange(2, dtype="<u2"), "x" * 65, [7] * 17, [True] * 17, {"a": [0.5] * 17}],
        '[{"buffer":[{"array":"<u2"},0,4]},{"buffer":["str",64,65]},{"buffer":["list[int]",192,136]},'
        '{"buffer":["list[bool]",384,17]},{"dict":["a",{"buffer":["list[float]",448,136]}]}]',
        [("\\buffers", "binary")],
    ),
]


@pytest.mark.parametrize(("value", "recipe", "columns"), GOLDEN, ids=[g[1][:40] for g in GOLDEN])
def test_golden(value: Any, recipe: str, columns: list[tuple[str, str]]) -> None:
    for _ in range(3):
        encoded = encode(value)
        assert encoded.recipe.decode("ascii") == recipe
        assert [column[:2] for column in encoded.columns] == columns


def test_golden_leaves_of_arrow() -> None:
    batch = pa.record_batch([pa.nulls(1)], names=["a"])
    table = pa.Table.from_batches([batch])
    value = {"a": batch.column(0), "b": batch, "c": table, "d": table.column(0)}
    assert encode(value).recipe == (
        b'{"dict":["a",{"column":"arrow.array"},"b",{"column":"arrow.batch"},'
        b'"c",{"column":"arrow.table"},"d",{"column":"arrow.chunked"}]}'
    )
    assert {column.kind for column in encode(value).columns} == {"binary"}


def test_golden_buffers() -> None:
    (column,) = encode([np.array([1, 2], "<u2"), b"x" * 65]).columns
    assert column.data == b"\1\0\2\0" + bytes(60) + b"x" * 65 + bytes(63)


def test_arrow_types() -> None:
    for kind, item in LIST_KINDS.items():
        assert arrow_type(kind) == pa.list_(item)
        assert pa.from_numpy_dtype(np.dtype(kind)) == item
    others = {
        "utf8": "string",
        "binary": "binary",
        "int64": "int64",
        "float64": "double",
        "bool": "bool",
    }
    assert {kind: str(arrow_type(kind)) for kind in others} == others
    with pytest.raises(KeyError):
        arrow_type("object")


BROKEN = [
    "",
    "{",
    "nul",
    "NaN",
    "é",
    "{}",
    '{"dict":["a"]}',
    '{"dict":[1,2]}',
    '{"dict":{"a":1}}',
    '{"dict":[{"str":5},1]}',
    '{"dict":["a",{"column":"int"}],"x":1}',
    '{"dict":1}',
    '{"eval":"1"}',
    '{"tuple":1}',
    '{"tuple":{"column":"str"}}',
    '{"int":5}',
    '{"int":"x"}',
    '{"float":"00"}',
    '{"float":5}',
    '{"str":"a"}',
    '{"bytes":"é"}',
    '{"bytes":null}',
    '{"date":[2024,13,1]}',
    '{"date":5}',
    '{"time":[25,0,0,0,0,null]}',
    '{"time":[1,0,0,0,0,"No/Such"]}',
    '{"time":[1,0,0,0,0,"../../etc/passwd"]}',
    '{"time":[1,0,0,0,0,"Europe"]}',
    '{"time":[1,0,0,0,0,[100,0,0]]}',
    '{"datetime":[1]}',
    '{"timedelta":[99999999999,0,0]}',
    '{"numpy":["O",""]}',
    '{"numpy":["<i4","AA=="]}',
    '{"numpy":["|i1","AAA="]}',
    '{"float":"7ff80000000000007ff8000000000000"}',
    '{"numpy":["ml_dtypes.finfo",""]}',
    '{"numpy":["ml_dtypes.__name__",""]}',
    '{"numpy":["i4,i4",""]}',
    '{"numpy":["<M8[3x]",""]}',
    '{"numpy":["|O",""]}',
    '{"numpy.str":5}',
    '{"column":"code"}',
    '{"column":5}',
    '{"column":{"array":"<u2","shape":[3,-1]}}',
    '{"column":{"array":"<u2","shape":[-2]}}',
    '{"column":{"array":"<u2","shape":[true]}}',
    '{"column":{"array":"<u2","shape":[99999999999999999999]}}',
    '{"column":{"array":"<u2","shape":[7]}}',
    '{"column":{"array":"<u2","shape":[-1,0]}}',
    '{"column":{"array":"<u2","shape":[-1,4]}}',
    '{"column":{"array":"<u2","code":1}}',
    '{"column":{"array":{"names":["a"],"formats":["O"],"offsets":[0],"itemsize":8}}}',
    '{"column":{"array":{"names":[1],"formats":["<u2"],"offsets":[0],"itemsize":2}}}',
    '{"column":{"array":{"names":["a"],"formats":["<u2"],"offsets":[-1],"itemsize":2}}}',
    '{"column":{"array":{"names":["a"]}}}',
    '{"column":{"array":5}}',
    '{"column":{"array":{"base":"<u2","shape":[-1]}}}',
    '{"column":{"numpy":"<M8[s]"}}',
    '{"column":"arrow.table"}',
    '{"column":"pandas.frame"}',
    '{"buffer":["bytes",0,7]}',
    '{"buffer":["bytes",-1,2]}',
    '{"buffer":["bytes",0.5,2]}',
    '{"buffer":["bytes"]}',
    '{"buffer":5}',
    "5",
    '[{"column":"bytes"},{"column":"bytes"}]',
    '{"dict":["a",{"column":"bytes"},"b",{"column":"bytes"}]}',
    "[" * 100_000,
    '{"tuple":' * 400 + "[]" + "}" * 400,
    '{"column":{"array":' + '{"base":' * 500,
]


@pytest.mark.parametrize("recipe", BROKEN, ids=lambda recipe: recipe[:60] or "empty")
def test_broken_recipes(recipe: str) -> None:
    column = np.arange(3, dtype="<u2")
    column.flags.writeable = False
    with pytest.raises(
        DatasetError, match=r"^The recipe of a cached value cannot be read: .*again"
    ):
        decode(recipe.encode(), [column])


def test_columns_that_do_not_fit() -> None:
    encoded = encode({"a": np.arange(3), "b": [1]})
    for columns in ([], [np.arange(3)], [np.arange(3), np.arange(1), np.arange(1)], [1, "x"]):
        with pytest.raises(DatasetError):
            decode(encoded.recipe, columns)
    with pytest.raises(DatasetError):
        decode(encode(["x" * 99]).recipe, [])


@st.composite
def damaged(draw: st.DrawFn, recipe: bytes) -> bytes:
    """A recipe with a piece of its JSON replaced, removed or doubled, or a byte changed."""
    text = bytearray(recipe)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        size = draw(st.integers(0, 8))
        word = draw(
            st.binary(max_size=3)
            | st.sampled_from([b'"', b"[", b"]", b"{", b"}", b",", b"null", b"-1", b"99999999999"])
            | st.sampled_from(
                [b"column", b"buffer", b"arrow.table", b"str", b"<f8", b"|O", b"1e999"]
            )
        )
        text[at : at + size] = word
    return bytes(text)


@st.composite
def swapped(draw: st.DrawFn, recipe: bytes) -> bytes:
    """A recipe that is JSON, one of whose scalars, keys or containers is another one."""
    places: list[tuple[Any, Any]] = []
    root = [json.loads(recipe)]
    todo: list[Any] = [root]
    while todo:
        here = todo.pop()
        for key in here if isinstance(here, dict) else range(len(here)):
            places.append((here, key))
            if isinstance(here[key], (dict, list)):
                todo.append(here[key])
    here, key = draw(st.sampled_from(places))
    other, other_key = draw(st.sampled_from(places))
    constants = [None, -1, 3, 1.5, "x", "<f2", "|S3", "arrow.array", "list[int]", [], {}, 1 << 40]
    new = draw(st.sampled_from([other[other_key], *constants]))
    here[key] = json.loads(json.dumps(new))
    return json.dumps(root[0]).encode()


@SLOW
@given(st.data(), VALUES)
def test_random_damage(data: st.DataObject, value: Any) -> None:
    encoded = encode(value)
    recipe = data.draw(damaged(encoded.recipe) | swapped(encoded.recipe))
    columns = [column.data for column in encoded.columns]
    with contextlib.suppress(DatasetError):
        decode(recipe, columns)


@SLOW
@given(st.binary(max_size=40))
@example(b'"' + b"\\" * 9)
def test_random_bytes(recipe: bytes) -> None:
    with contextlib.suppress(DatasetError):
        decode(recipe, [])


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    assert decode(encode(["[" * 60, '\\"[']).recipe, []) == ["[" * 60, '\\"[']


def test_a_full_stack_is_not_called_damage() -> None:
    value: object = []
    for _ in range(90):
        value = [value, '[[[["\\']  # brackets that are no nesting
    recipe = encode(value).recipe
    seen: list[BaseException] = []

    def deeper() -> None:
        try:
            deeper()
        except RecursionError:
            try:
                decode(recipe, [])
            except BaseException as error:
                seen.append(error)
            raise

    with pytest.raises(RecursionError):
        deeper()
    assert type(seen[0]) is RecursionError


def test_many_recipes_and_plans_are_not_kept_for_ever() -> None:
    from easydata.cache.values import decoding, flat

    for at in range(3000):
        encoded = encode({f"k{at}": np.arange(2)})
        encode({f"k{at}": np.arange(2)})
        value = decode(encoded.recipe, [column.data for column in encoded.columns])
        assert list(value) == [f"k{at}"]
        decode(json.dumps([at]).encode(), [])
    assert len(decoding._decoders) <= 512
    assert len(flat._plans) <= 1024
    assert len(flat._last) <= 1024


def test_equal_long_doubles_have_equal_recipes() -> None:
    dirty = np.frombuffer(b"\xff" * 32, np.uint8).copy().view("g")
    dirty[:] = 1.5
    first, second = json.loads(encode([dirty[1], np.longdouble(1.5)]).recipe)
    assert first == second


def test_padding_of_structs_is_not_what_was_in_memory() -> None:
    dtype = np.dtype([("a", "u1"), ("b", "<u8")], align=True)
    array = np.frombuffer(b"\xff" * 64, dtype)[::2]
    raw = encode(array).columns[0].data.tobytes()
    assert raw == (b"\xff" + bytes(7) + b"\xff" * 8) * 2 or raw == b"\xff" * 32


@pytest.mark.parametrize("name", ["ml_dtypes.finfo", "ml_dtypes.iinfo", "ml_dtypes.__doc__", "O"])
def test_only_listed_names_are_looked_up(name: str) -> None:
    with pytest.raises(ValueError, match="names no dtype"):
        parse_dtype(name)


def test_many_dtypes_are_not_kept_for_ever() -> None:
    from easydata.cache.values import dtypes

    for width in range(1, 2500):
        encode([np.zeros(0, f"V{width}")])
    assert len(dtypes._nodes) <= 1024


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode([np.zeros(1, ml_dtypes.float8_e5m2)])
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingDependencyError, match="float8_e5m2 needs the package 'ml_dtypes'"):
        decode(encoded.recipe, [encoded.columns[0].data])
