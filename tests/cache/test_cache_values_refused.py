"""Values that are not stored: the place and the remedy."""

from __future__ import annotations

import collections
import datetime
import enum
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from easydata.cache.values import encode, freeze
from easydata.errors import EasyDataError, UnsupportedValueError


class Point(NamedTuple):
    x: int


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Float64(np.float64):
    pass


class Zone(datetime.tzinfo):
    def utcoffset(self, moment: Any) -> datetime.timedelta:
        return datetime.timedelta(0)


class FileLike:
    shape = (1,)

    def __array__(self) -> Any:
        raise AssertionError("a value that is refused is not converted")


class Unknown(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.int8(), "easydata.unknown")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Unknown:
        return cls()


REFUSED: list[tuple[Any, str]] = [
    ({1, 2}, "a set, .*Supported are"),
    (object(), "a object"),
    (len, "a builtin_function_or_method"),
    (1j, "a complex"),
    (bytearray(b"x"), r"a bytearray, .*Pass bytes\(value\)"),
    (memoryview(b"x"), r"Pass bytes\(value\)"),
    (collections.OrderedDict(a=1), r"subclass of dict: pass dict\(value\)"),
    (collections.defaultdict(list), r"pass dict\(value\)"),
    (collections.UserDict(a=1), r"Pass dict\(value\)"),
    (Point(1), r"Point, .*pass tuple\(value\)"),
    (Colour.RED, r"Colour, .*pass int\(value\)"),
    (Text("x"), r"pass str\(value\)"),
    (Float64(1), "Float64"),
    (np.array([object()]), "dtype object"),
    (np.array(["x"], dtype=np.dtypes.StringDType()), "dtype StringDType"),
    (np.zeros(2, [("a", "O")]), "dtype .*'O'"),
    (np.zeros(2, [("a", "i4")]).view(np.recarray), r"np.asarray\(value\)"),
    (np.zeros(2, np.dtype((np.record, [("a", "i4")]))), "dtype"),
    (np.zeros(2, [("a", "i4")]).view(np.recarray)[0], "record"),
    (np.ma.masked_array([1, 2], [True, False]), r"MaskedArray, .*np.asarray\(value\)"),
    (np.zeros((1, 1)).view(np.matrix), "matrix"),
    (FileLike(), r"Pass a NumPy array: np.asarray\(value\)"),
    (pa.scalar(1), "Int64Scalar"),
    (pa.schema([]), "Schema"),
    (datetime.datetime(2024, 1, 1, tzinfo=Zone()), "the time zone .*Zone"),
    (datetime.time(1, tzinfo=Zone()), "the time zone"),
    (datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(0), "\ud800")), "the time zone"),
    ({1: 2}, "the key 1 of type int"),
    ({"a": 1, Text("b"): 2}, "the key 'b' of type Text"),
    ({"a": 1, None: 2}, "the key None of type NoneType"),
    ({"a": 1, np.str_("b"): 2}, "of type str_"),
]


@pytest.mark.parametrize("store", [encode, freeze])
@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_the_place_is_named(store: Callable[[Any], Any], value: Any, reason: str) -> None:
    for wrapped, place in [
        (value, "value"),
        ({"meta": [0, "x", None, value]}, r"value\['meta'\]\[3\]"),
        ([{"a'b": (value,)}], r"""value\[0\]\["a'b"\]\[0\]"""),
        ({"ids": np.arange(3), "bad": value}, r"value\['bad'\]"),
    ]:
        with pytest.raises(UnsupportedValueError, match=f"(?s)^{place} (is|has) .*{reason}"):
            store(wrapped)


def test_the_error_is_one_of_ours_and_a_type_error() -> None:
    assert issubclass(UnsupportedValueError, EasyDataError)
    assert issubclass(UnsupportedValueError, TypeError)


@pytest.mark.parametrize("store", [encode, freeze])
def test_cycles(store: Callable[[Any], Any]) -> None:
    loop: list[Any] = [1]
    loop.append({"again": loop})
    with pytest.raises(UnsupportedValueError, match=r"^value\[1\]\['again'\] .*cycle"):
        store(loop)
    table: dict[str, Any] = {}
    table["self"] = (table,)
    with pytest.raises(UnsupportedValueError, match=r"^value\['x'\]\['self'\]\[0\] .*cycle"):
        store({"x": table})
    shared = [1]
    store([shared, shared, {"a": shared}])


@pytest.mark.parametrize("store", [encode, freeze])
@pytest.mark.parametrize("depth", [101, 10_000])
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}])
def test_deep_nesting(store: Callable[[Any], Any], depth: int, wrap: Callable[[Any], Any]) -> None:
    value: Any = "x"
    for _ in range(depth):
        value = wrap(value)
    with pytest.raises(UnsupportedValueError, match=r"^value\[.*….*deeper than 100"):
        store(value)


@pytest.mark.parametrize("store", [encode, freeze])
def test_a_full_stack(store: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(90):
        value = [value]

    def deeper() -> None:
        try:
            deeper()
        except RecursionError:
            store(value)

    with pytest.raises(UnsupportedValueError, match="stack"):
        deeper()


def test_zones_without_a_key() -> None:
    path = next(
        f"{folder}/UTC" for folder in zoneinfo.TZPATH if "UTC" in zoneinfo.available_timezones()
    )
    with open(path, "rb") as file:
        nameless = zoneinfo.ZoneInfo.from_file(file)
    with open(path, "rb") as file:
        unknown = zoneinfo.ZoneInfo.from_file(file, key="No/Such")
    for zone in (nameless, unknown):
        with pytest.raises(UnsupportedValueError, match="time zone"):
            encode(datetime.datetime(2024, 1, 1, tzinfo=zone))


def test_extension_types_that_do_not_come_back() -> None:
    value = pa.ExtensionArray.from_storage(Unknown(), pa.array([1], pa.int8()))
    for wrapped in (value, pa.chunked_array([value]), pa.table({"a": value})):
        with pytest.raises(UnsupportedValueError, match=r"^value\[0\] .*extension type"):
            encode([wrapped])


def test_arrow_arrays_that_are_not_valid() -> None:
    offsets, data = pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xff")
    broken = pa.StringArray.from_buffers(1, offsets, data)
    with pytest.raises(
        UnsupportedValueError, match=r"^value\['a'\] cannot be written as Arrow IPC"
    ):
        encode({"a": broken})


def test_more_than_arrow_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easydata.cache.values.encoding.MAX_ITEMS", 1000)
    monkeypatch.setattr("easydata.cache.values.flat.MAX_ITEMS", 1000)
    array = np.zeros(1000, np.uint8)
    for value in (array, {"a": array}, {"a": array}, {"a": array}, {"a": b"x" * 1000}):
        encode(value)
    larger = np.zeros(1001, np.uint8)
    for value in ({"a": larger}, {"a": "x" * 1001}, {"a": b"x" * 1001}, {"a": [0] * 1001}):
        with pytest.raises(
            UnsupportedValueError, match=r"^value\['a'\] needs 1001 .* limit is 1000"
        ):
            encode(value)
    with pytest.raises(UnsupportedValueError, match=r"^value\[1\] needs 1088"):
        encode([np.zeros(900, np.uint8), np.zeros(100, np.uint8)])
