"""Record batches to plain messages: the same bytes as were made from the entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.log.entry import Entry
from easydata.cache.log.layout import NEVER, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.plain import plain_message
from easydata.format.stream import decode_batch
from tests.cache.test_cache_log_message import cases

LISTS = EntryCodec(EntryLayout([("ids", pa.list_(pa.uint16())), ("name", pa.string())]))


def batch_of(codec: EntryCodec, entries: list[Entry]) -> pa.RecordBatch:
    return decode_batch(pa.py_buffer(codec.encode_rows(entries)), codec.layout.schema)


def entry(key: str, ids: list[int], name: str) -> Entry:
    array = np.array(ids, np.uint16)
    return Entry(key.encode(), 2**64 - 1, 5, NEVER, b"{}", b"[]", (array, name.encode()))


ENTRIES = [entry("a", [1, 2], "x"), entry("ü", [], ""), entry("c", [3, 4, 5], "äöü")]


@settings(max_examples=150)
@given(cases())
def test_the_bytes_are_those_of_the_entries(case: tuple[EntryCodec, list[Entry]]) -> None:
    codec, entries = case
    assert plain_message(codec, batch_of(codec, entries)) == codec.encode_rows(entries)


@settings(max_examples=150)
@given(cases(), st.data())
def test_slices(case: tuple[EntryCodec, list[Entry]], data: st.DataObject) -> None:
    codec, entries = case
    start = data.draw(st.integers(0, len(entries) - 1))
    stop = data.draw(st.integers(start + 1, len(entries)))
    batch = batch_of(codec, entries)
    expected = codec.encode_rows(entries[start:stop])
    assert plain_message(codec, batch.slice(start, stop - start)) == expected
    again = batch.slice(start).slice(0, stop - start)
    assert plain_message(codec, again) == expected


def test_arrays_of_other_makes() -> None:
    whole = batch_of(LISTS, ENTRIES)
    items = pa.array([9, 9, 9, 1, 2, 3, 4, 5, 9], pa.uint16())
    # Items before the first row and after the last, in a child that is itself a slice.
    ids = pa.ListArray.from_arrays(pa.array([2, 4, 4, 7], pa.int32()), items.slice(1))
    names = pa.array(["no", "x", "", "äöü"]).slice(1)
    batch = pa.RecordBatch.from_arrays([*whole.columns[:6], ids, names], schema=whole.schema)
    batch.validate(full=True)
    assert plain_message(LISTS, batch) == LISTS.encode_rows(ENTRIES)


def test_arrays_without_items() -> None:
    entries = [entry("", [], "") for _ in range(3)]
    whole = batch_of(LISTS, entries)
    text = pa.array(["", "", ""])
    ids = pa.array([[], [], []], pa.list_(pa.uint16()))
    columns = [*whole.columns[:3], text, *whole.columns[4:6], ids, text]
    batch = pa.RecordBatch.from_arrays(columns, schema=whole.schema)
    assert plain_message(LISTS, batch) == LISTS.encode_rows(entries)


@pytest.mark.parametrize(
    ("index", "array"),
    [
        (0, pa.array([1, None, 3], pa.uint64())),
        (3, pa.array(["a", None, "c"])),
        (6, pa.array([[1], None, [2]], pa.list_(pa.uint16()))),
        (6, pa.array([[1], [None], [2]], pa.list_(pa.uint16()))),
        (7, pa.array(["a", None, "c"])),
    ],
    ids=["numbers", "key", "list", "item", "text"],
)
def test_nulls_are_refused(index: int, array: pa.Array) -> None:
    batch = batch_of(LISTS, ENTRIES)
    columns: list[Any] = batch.columns
    columns[index] = array
    with pytest.raises(ValueError, match="nulls"):
        plain_message(LISTS, pa.RecordBatch.from_arrays(columns, schema=batch.schema))


def test_what_no_segment_has_is_refused() -> None:
    batch = batch_of(LISTS, ENTRIES)
    with pytest.raises(ValueError, match="without rows"):
        plain_message(LISTS, batch.slice(0, 0))
    other = EntryCodec(EntryLayout([("ids", pa.list_(pa.int16())), ("name", pa.string())]))
    with pytest.raises(ValueError, match="columns are not those"):
        plain_message(other, batch)
