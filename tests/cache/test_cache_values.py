"""What goes in comes out: types, order, bits."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import zoneinfo
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easydata.cache.values import Column, Encoded, arrow_type, decode, encode
from easydata.cache.values.columns import BUFFERS
from easydata.cache.values.encoding import encode_any
from easydata.errors import UnsupportedValueError
from tests.cache.values_strategy import FLAT_DICTS, VALUES, WIDE_DICTS, assert_same

SLOW = settings(suppress_health_check=list(HealthCheck), max_examples=400)


def stored(column: Column, *, shift: int = 0) -> Any:
    """The data of a column in read-only memory of their own, `shift` bytes from alignment."""
    if not isinstance(column.data, (bytes, np.ndarray)):
        return column.data
    raw = column.data if isinstance(column.data, bytes) else column.data.tobytes()
    memory = memoryview(bytes(64 + shift) + raw)[64 + shift :]
    return np.frombuffer(memory, column.kind) if isinstance(column.data, np.ndarray) else memory


def through(value: Any, *, shift: int = 0) -> Any:
    encoded = encode(value)
    return decode(
        bytes(bytearray(encoded.recipe)), [stored(c, shift=shift) for c in encoded.columns]
    )


def check_columns(encoded: Encoded) -> None:
    assert encoded.recipe.isascii()
    names = [column.name for column in encoded.columns]
    assert len(set(names)) == len(names) <= 33
    assert BUFFERS not in names[:-1]
    for name, kind, data in encoded.columns:
        name.encode()
        assert "\0" not in name
        if isinstance(data, np.ndarray):
            assert data.ndim == 1
            assert data.flags.c_contiguous
            assert data.dtype == np.dtype(kind)
            assert arrow_type(kind) == pa.list_(pa.from_numpy_dtype(data.dtype))
        elif isinstance(data, bytes):
            assert kind in {"utf8", "binary"}
            if kind == "utf8":
                data.decode()
        else:
            assert type(data) is {"int64": int, "float64": float, "bool": bool}[kind]


@SLOW
@given(VALUES, st.integers(0, 3))
def test_any_value(value: Any, shift: int) -> None:
    check_columns(encode(value))
    assert_same(value, through(value, shift=shift))


@SLOW
@given(FLAT_DICTS | WIDE_DICTS)
def test_dicts_with_and_without_the_fast_path(value: dict[str, Any]) -> None:
    slow = encode_any(value)
    for _ in range(3):  # no plan yet, a plan for the signature, a plan for the keys
        fast = encode(value)
        check_columns(fast)
        assert fast.recipe == slow.recipe
        assert [column[:2] for column in fast.columns] == [column[:2] for column in slow.columns]
        for one, other in zip(slow.columns, fast.columns, strict=True):
            assert_same(one.data, other.data)
        assert_same(value, through(value))


@pytest.mark.parametrize(
    "second",
    [
        np.arange(6, dtype="<i4"),
        np.arange(6, dtype="<u2")[::2],
        np.arange(6, dtype="<u2").reshape(2, 3),
        np.arange(6, dtype=">u2"),
        [1, 2],
        [True, False],
        [1.0, 2.0],
        [1, True],
        [1, np.int64(1)],
        [1, 2.0],
        [1 << 63],
        [None],
        ["a"],
        1 << 63,
        "\ud800",
        None,
    ],
    ids=repr,
)
def test_a_plan_serves_no_other_leaf(second: Any) -> None:
    """Keys that were seen with one kind of leaf come back with another."""
    for first in (np.arange(3, dtype="<u2"), [1, 2], 5, "a"):
        for value in (first, first, first, second, second, second, first):
            assert_same({"x": value, "y": value}, through({"x": value, "y": value}))


def test_keys_equal_to_strings_do_not_use_their_plan() -> None:
    array = np.arange(3)
    for _ in range(3):
        encode({"x": array})
    with pytest.raises(UnsupportedValueError, match=r"value has the key .*'x'.* of type str_"):
        encode({np.str_("x"): array})


def test_recipe_and_schema_do_not_depend_on_the_length() -> None:
    def of(n: int) -> tuple[bytes, list[tuple[str, str]]]:
        value = {
            "input_ids": np.arange(n, dtype=np.uint16),
            "labels": list(range(n)),
            "scores": [0.5] * (n + 1),
            "pixels": np.zeros((n, 4, 2), np.float32),
            "text": "x" * n,
            "raw": b"x" * n,
            "n": n,
            "loss": n / 7,
            "good": n % 2 == 0,
            "id": np.int32(n),
            "meta": {"mask": np.zeros(n, np.bool_)},
        }
        assert_same(value, through(value))
        encoded = encode(value)
        return encoded.recipe, [(column.name, column.kind) for column in encoded.columns]

    assert of(0) == of(1) == of(2) == of(3000)
    assert of(0)[1] == [
        ("input_ids", "<u2"),
        ("labels", "<i8"),
        ("scores", "<f8"),
        ("pixels", "<f4"),
        ("text", "utf8"),
        ("raw", "binary"),
        ("n", "int64"),
        ("loss", "float64"),
        ("good", "bool"),
        ("id", "int64"),
        ("meta.mask", "|u1"),
    ]


def test_names_of_columns_do_not_collide() -> None:
    value = {"a.b": 1, "a": {"b": 2, "": 3}, "a.": 4, "": {"": 5}, ".": 6, "\\": {"": 7}, "\\.": 8}
    names = [column.name for column in encode(value).columns]
    assert names[:2] == [r"a\.b", "a.b"]
    assert len(set(names)) == 8
    assert_same(value, through(value))


def test_one_buffers_column_holds_what_lists_hold() -> None:
    arrays = [np.arange(n, dtype="<f8") for n in (1, 9, 0, 20)]
    encoded = encode({"list": arrays, "text": ["y" * 65, "z" * 64], "many": [[1] * 17, [1] * 16]})
    assert [column[:2] for column in encoded.columns] == [(BUFFERS, "binary")]
    memory = memoryview(encoded.columns[0].data)
    value = decode(encoded.recipe, [memory])
    for array in value["list"]:
        assert not array.flags.writeable
        offset = array.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
        assert offset % 64 == 0 or array.size == 0
        assert array.size == 0 or np.shares_memory(array, np.frombuffer(memory, np.uint8))
    assert b"z" * 64 in encoded.recipe
    assert b"y" * 65 not in encoded.recipe


def test_more_than_32_leaves_share_the_buffers() -> None:
    arrays = {f"k{at}": np.arange(at) for at in range(33)}
    assert [column.name for column in encode(arrays).columns] == [BUFFERS]
    assert_same(arrays, through(arrays))
    del arrays["k7"]
    assert len(encode(arrays).columns) == 32


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5, dtype="<u2"),
        np.arange(6, dtype="<i8").reshape(2, 3),
        np.array(7.5),
        np.arange(4) % 2 == 0,
        np.arange(4).astype("M8[s]"),
        np.arange(4).astype(ml_dtypes.bfloat16),
        np.zeros(3, "<c8"),
        np.zeros(3, [("a", "u1"), ("b", "<f8")]),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_are_read_only_views(array: np.ndarray) -> None:
    encoded = encode({"x": array})
    column = np.frombuffer(encoded.columns[0].data.tobytes(), encoded.columns[0].kind)
    back = decode(encoded.recipe, [column])["x"]
    assert np.shares_memory(back, column)
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        back.flags.writeable = True


def test_reshaped_arrays_are_read_only_over_writable_memory() -> None:
    encoded = encode(np.zeros((2, 2)))
    assert not decode(encoded.recipe, [encoded.columns[0].data.copy()]).flags.writeable


def test_unaligned_memory_is_copied() -> None:
    encoded = encode([np.arange(3, dtype="<c16")])
    memory = np.frombuffer(bytes(65) + encoded.columns[0].data, np.uint8)[1:][64:]
    (back,) = decode(encoded.recipe, [memory])
    assert back.flags.aligned
    assert not back.flags.writeable
    assert back.tolist() == [0, 1, 2]


def test_a_struct_with_new_names_changes_no_later_value() -> None:
    value = {"x": np.zeros(2, [("a", "u1")])}
    encoded = encode(value)
    columns = [stored(column) for column in encoded.columns]
    decode(encoded.recipe, columns)["x"].dtype.names = ("changed",)
    assert decode(encoded.recipe, columns)["x"].dtype.names == ("a",)


def test_decoded_containers_are_new() -> None:
    encoded = encode({"a": [1, 2], "b": {"c": []}, "d": [[{"e": 1}]]})
    columns = [stored(column) for column in encoded.columns]
    first = decode(encoded.recipe, columns)
    first["a"].append(3)
    first["b"]["c"].append(3)
    first["d"][0][0]["e"] = 9
    assert decode(encoded.recipe, columns) == {"a": [1, 2], "b": {"c": []}, "d": [[{"e": 1}]]}


def test_columns_may_come_in_other_containers() -> None:
    value = {
        "text": "é",
        "raw": b"12",
        "ids": np.arange(3, dtype="<u2"),
        "n": [1],
        "f": 1.5,
        "i": 3,
    }
    encoded = encode(value)
    for text in ("é", "é".encode(), memoryview("é".encode()), np.frombuffer("é".encode(), "u1")):
        ids = encoded.columns[2].data.tobytes()
        n = memoryview(encoded.columns[3].data.tobytes())
        columns = [text, memoryview(b"12"), ids, n, np.float64(1.5), np.int64(3)]
        assert_same(value, decode(encoded.recipe, columns))


def test_large_and_strange_numbers() -> None:
    for number in (1 << 63, -(1 << 63), -(1 << 63) - 1, 10**5000, -(10**5000)):
        assert_same(number, through(number))
        assert_same([number], through([number]))


def test_zones_by_name_are_the_same_object() -> None:
    zone = zoneinfo.ZoneInfo("America/New_York")
    moment = datetime.datetime(2024, 11, 3, 1, 30, tzinfo=zone, fold=1)
    assert through([moment])[0].tzinfo is zone


@pytest.mark.parametrize("depth", [1, 60, 100])
def test_deep_values(depth: int) -> None:
    value: Any = 1
    for level in range(depth):
        value = [[value], (value,), {"k": value}][level % 3]
    assert_same(value, through(value))


def test_batch_encoding_comes_back_as_a_dict() -> None:
    from transformers import BatchEncoding

    class Special(BatchEncoding):
        pass

    for kind in (BatchEncoding, Special):
        value = kind({"input_ids": [1, 2], "attention_mask": np.ones(2, np.uint8)})
        assert_same(dict(value), through(value))
        assert_same([dict(value)], through([value]))
        assert encode(value).recipe == encode(dict(value)).recipe


def test_a_chunked_array_with_two_dictionaries() -> None:
    chunks = [pa.array(words).dictionary_encode() for words in (["a", "b"], ["c"])]
    value = pa.chunked_array(chunks)
    assert_same(value, through(value))


def test_arrow_objects_view_the_column() -> None:
    encoded = encode(pa.table({"a": np.arange(1000)}))
    memory = np.frombuffer(bytes(64) + encoded.columns[0].data, np.uint8)[64:]
    data = decode(encoded.recipe, [memory])["a"].chunk(0).buffers()[1]
    start = memory.ctypes.data
    assert start <= data.address < start + memory.nbytes


def test_no_heavy_package_is_imported() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from easydata.cache.values import decode, encode, freeze\n"
        "value = {'a': np.arange(3), 'b': [1, 2], 'c': [1, 'x', {}], 'd': np.float32(1)}\n"
        "value['t'] = pa.record_batch([pa.nulls(2)], names=['a'])\n"
        "encoded = encode(value)\n"
        "decode(encoded.recipe, [c.data for c in encoded.columns])\n"
        "freeze(value).thaw()\n"
        "heavy = {'pandas', 'ml_dtypes', 'transformers', 'datasets', 'pyarrow.compute'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == "[]\n"
