"""Hypothesis strategies for record batches of every type that a dataset may hold."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

_INTS = {
    pa.int8(): 8,
    pa.int16(): 16,
    pa.int32(): 32,
    pa.int64(): 64,
}
_UINTS = {
    pa.uint8(): 8,
    pa.uint16(): 16,
    pa.uint32(): 32,
    pa.uint64(): 64,
}
_FLOATS = {pa.float16(): 16, pa.float32(): 32, pa.float64(): 64}
_TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
_BYTES = [pa.binary(), pa.large_binary()]
_MOMENTS = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1))
_OTHERS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.null(): st.none(),
    pa.timestamp("us"): _MOMENTS,
    pa.timestamp("ms", "UTC"): _MOMENTS.map(
        lambda moment: moment.replace(microsecond=0, tzinfo=dt.UTC)
    ),
    pa.date32(): st.dates(dt.date(1970, 1, 1), dt.date(2100, 1, 1)),
    pa.duration("us"): st.timedeltas(dt.timedelta(0), dt.timedelta(days=1000)),
    pa.decimal128(12, 2): st.integers(-(10**9), 10**9).map(lambda cents: Decimal(cents) / 100),
    pa.binary(3): st.binary(min_size=3, max_size=3),
}

_FLAT = st.sampled_from([*_INTS, *_UINTS, *_FLOATS, *_TEXTS, *_BYTES, *_OTHERS])


def _wider(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        st.tuples(inner, st.integers(1, 3)).map(lambda pair: pa.list_(*pair)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{i}", kind) for i, kind in enumerate(kinds)])
        ),
    )


TYPES = st.recursive(_FLAT, _wider, max_leaves=4)


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Python values of an Arrow type, nulls among them."""
    return st.none() | _present(kind)


def _present(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if kind in _OTHERS:
        return _OTHERS[kind]
    if kind in _INTS:
        return st.integers(-(2 ** (_INTS[kind] - 1)), 2 ** (_INTS[kind] - 1) - 1)
    if kind in _UINTS:
        return st.integers(0, 2 ** _UINTS[kind] - 1)
    if kind in _FLOATS:
        return st.floats(width=_FLOATS[kind], allow_nan=False)
    if kind in _TEXTS:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    if kind in _BYTES:
        return st.binary(max_size=20)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({item.name: values_of(item.type) for item in kind})
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        return st.lists(values_of(kind.value_type), min_size=size, max_size=size)
    return st.lists(values_of(kind.value_type), max_size=5)


@st.composite
def schemas(draw: st.DrawFn) -> pa.Schema:
    kinds = draw(st.lists(TYPES, min_size=1, max_size=4))
    return pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])


@st.composite
def batches(draw: st.DrawFn, schema: pa.Schema | None = None) -> pa.RecordBatch:
    """A record batch, empty or sliced out of a longer one some of the time."""
    schema = draw(schemas()) if schema is None else schema
    rows = draw(st.integers(0, 12))
    columns = [
        pa.array(draw(st.lists(values_of(item.type), min_size=rows, max_size=rows)), item.type)
        for item in schema
    ]
    batch = pa.record_batch(columns, schema=schema)
    start = draw(st.integers(0, rows))
    return batch.slice(start, draw(st.integers(0, rows - start)))


@st.composite
def batch_lists(draw: st.DrawFn) -> list[pa.RecordBatch]:
    """One to three batches of one schema."""
    schema = draw(schemas())
    return draw(st.lists(batches(schema), min_size=1, max_size=3))
