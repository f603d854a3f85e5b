"""Any supported value for hypothesis, and a comparison that shares nothing with the code."""

from __future__ import annotations

import datetime
import math
import struct
import zoneinfo
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

DTYPES = [
    *("?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "g"),
    *(">i2", ">u4", ">f8", ">c16", "c8", "c16", "G", "S1", "S7", "U3", ">U2", "V5"),
    *("M8", "M8[ns]", "<M8[25s]", ">M8[D]", "m8", "m8[us]", "m8[7h]"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4),
    [("a", "<i4"), ("b.c", ">f8"), ("", "S3")],
    [("nested", [("x", "u1"), ("y", "<M8[s]")]), ("grid", "<f4", (2, 3))],
    [(("a title", "name"), "<i2")],
    {"names": ["late", "early"], "formats": ["u1", "<u4"], "offsets": [9, 2], "itemsize": 16},
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
    [],
]
KEYS = st.text(max_size=4) | st.sampled_from(
    [
        "input_ids",
        "a.b",
        "a",
        "b",
        "",
        "[0]",
        "\\",
        "\\buffers",
        "value",
        "\0",
        "\ud800",
        "\ud800\udc00",
    ]
)
ZONES = st.sampled_from(
    [
        None,
        datetime.UTC,
        datetime.timezone(datetime.timedelta(hours=-3, microseconds=1)),
        datetime.timezone(datetime.timedelta(hours=2), "named"),
        zoneinfo.ZoneInfo("Europe/Berlin"),
        zoneinfo.ZoneInfo("UTC"),
    ]
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype == "?":
        raw = bytes(byte & 1 for byte in raw)
    if dtype.kind == "U":
        raw = np.frombuffer(raw, dtype.str.replace("U", "u")[0] + "u4")
        raw = (raw % 0xD800).astype(dtype.byteorder.replace("=", "<") + "u4").tobytes()
    array = np.ndarray(shape, dtype, bytearray(raw))
    change = draw(st.sampled_from(["no", "fortran", "stride", "reverse", "broadcast"]))
    if change == "fortran":
        return np.asfortranarray(array)
    if change == "stride" and array.ndim:
        return array[::2]
    if change == "reverse" and array.ndim:
        return array[..., ::-1]
    if change == "broadcast":
        return np.broadcast_to(array, (2, *shape))
    return array


@st.composite
def numpy_scalars(draw: st.DrawFn) -> np.generic:
    codes = [*"?bBhHiIlLqQefdgFDG", "M8[s]", "m8[25D]", "V3", [("a", "u1"), ("b", "<f8")]]
    dtype = np.dtype(draw(st.sampled_from([*codes, ml_dtypes.bfloat16])))
    raw = draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    if dtype == "?":
        raw = bytes(byte & 1 for byte in raw)
    return np.ndarray((), dtype, bytearray(raw))[()]


FLOATS = st.floats() | st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack("<d", b)[0])
TEXTS = st.text(max_size=80) | st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010))
INTS = st.integers() | st.integers(-(1 << 70), 1 << 70) | st.integers(-3, 3)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    INTS,
    FLOATS,
    TEXTS,
    st.binary(max_size=150),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=40),
    st.lists(FLOATS, max_size=40),
    st.lists(st.booleans(), max_size=40),
    st.lists(INTS, min_size=1, max_size=40).map(tuple),
    arrays(),
    arrays(),
    numpy_scalars(),
    st.text(max_size=4).map(lambda text: np.str_(text + "\0")),
    st.binary(max_size=4).map(lambda data: np.bytes_(data + b"\0")),
    st.dates(),
    st.timedeltas(),
    st.builds(lambda t, z, f: t.replace(tzinfo=z, fold=f), st.times(), ZONES, st.integers(0, 1)),
    st.builds(
        lambda t, z, f: t.replace(tzinfo=z, fold=f), st.datetimes(), ZONES, st.integers(0, 1)
    ),
    st.lists(st.integers(0, 9)).map(lambda items: pa.array(items, pa.int32())),
    st.lists(st.lists(st.text(max_size=3))).map(
        lambda items: pa.array(items, pa.list_(pa.string()))
    ),
    st.lists(st.integers(0, 9)).map(
        lambda items: pa.record_batch({"a": pa.array(items, pa.int8())})
    ),
    st.lists(st.integers(0, 9)).map(lambda items: pa.table({"a": pa.array(items, pa.int8())})),
    st.lists(st.lists(st.integers(0, 9))).map(lambda chunks: pa.chunked_array(chunks, pa.int16())),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
    ),
    max_leaves=12,
)
FLAT_DICTS = st.dictionaries(KEYS, LEAVES, max_size=6)
WIDE_DICTS = st.integers(30, 40).flatmap(
    lambda size: st.lists(LEAVES, min_size=size, max_size=size).map(
        lambda items: {f"k{at}": item for at, item in enumerate(items)}
    )
)


def bits(array: np.ndarray) -> list[bytes]:
    """The bytes of the items, without padding (of structs, long doubles), which is arbitrary."""
    if array.dtype.names is not None:
        return [piece for name in array.dtype.names for piece in bits(array[name])]
    raw = array.tobytes()
    if array.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        return [np.frombuffer(raw, np.uint8).reshape(-1, 16)[:, :10].tobytes()]
    return [raw]


def assert_same(left: Any, right: Any) -> None:
    """The same types, order, dtypes, shapes and bits."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        assert all(type(key) is str for key in right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert bits(left) == bits(right)
        assert right.flags.c_contiguous
    elif isinstance(left, (np.str_, np.bytes_)):
        assert left[:] == right[:]  # plain str and bytes, with trailing NULs
    elif isinstance(left, np.generic):
        assert left.dtype == right.dtype
        assert bits(np.asarray(left)) == bits(np.asarray(right))
    elif isinstance(left, float):
        assert struct.pack("d", left) == struct.pack("d", right)
    elif isinstance(left, (datetime.datetime, datetime.time)):
        assert left.replace(tzinfo=None) == right.replace(tzinfo=None)
        assert left.fold == right.fold
        assert type(left.tzinfo) is type(right.tzinfo)
        assert repr(left.tzinfo) == repr(right.tzinfo)
    elif isinstance(left, (pa.Array, pa.ChunkedArray)):
        assert left.type == right.type
        assert left.to_pylist() == right.to_pylist()
    elif isinstance(left, (pa.Table, pa.RecordBatch)):
        assert left.schema.equals(right.schema, check_metadata=True)
        assert left.to_pylist() == right.to_pylist()
    else:
        assert left == right
