"""A large entry cut into rows, and joined again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import is_intact
from easydata.cache.log.layout import EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.pieces import cut, join
from tests.cache.test_cache_log_message import cases

COLUMNS = [("ids", pa.list_(pa.uint16())), ("text", pa.string()), ("n", pa.int64())]
CODEC = EntryCodec(EntryLayout(COLUMNS))
ENTRY = Entry(
    "schlüssel".encode(),
    7,
    8,
    9,
    b"metadata",
    b'{"recipe":1}',
    (np.arange(50, dtype=np.uint16), "größe · 大 · größe · 大".encode(), -3),
)


def messages(rows: list[Entry], codec: EntryCodec = CODEC) -> list[bytes]:
    return [codec.encode_row(row) for row in rows]


def run_bytes(codec: EntryCodec, entry: Entry) -> list[int]:
    """Sizes of the recipe and of the columns with offsets."""
    runs: list[Any] = [entry.recipe]
    for column, item in zip(codec.layout.columns, entry.data, strict=True):
        if column.is_run:
            runs.append(item)
    return [memoryview(run).nbytes for run in runs]


@settings(max_examples=300)
@given(case=cases(), max_bytes=st.integers(16, 200))
def test_what_is_cut_can_be_joined(case: tuple[EntryCodec, list[Entry]], max_bytes: int) -> None:
    codec, (entry, *_) = case
    rows = cut(codec.layout, entry, max_bytes)
    joined = join(codec, messages(rows, codec))
    assert joined == codec.encode_row(entry)
    assert is_intact(joined, 0, len(joined))
    assert all(row[:5] == entry[:5] for row in rows)
    sizes = [sum(run_bytes(codec, row)) for row in rows]
    assert max(sizes) <= max_bytes
    # No more than must be: a row is full but for one item or character.
    assert all(size > max_bytes - 16 for size in sizes[:-1])


@pytest.mark.parametrize("max_bytes", [16, 17, 18, 19, 20])
def test_rows_are_cut_between_characters_and_items(max_bytes: int) -> None:
    rows = cut(CODEC.layout, ENTRY, max_bytes)
    text = [bytes(row.data[1]).decode() for row in rows]
    assert "".join(text) == "größe · 大 · größe · 大"
    assert len([part for part in text if part]) > 1
    assert all(len(row.data[0]) % 2 == 0 for row in rows)
    assert [row.data[2] for row in rows] == [-3] * len(rows)


def test_a_row_is_what_readers_of_arrow_see() -> None:
    rows = cut(CODEC.layout, ENTRY, 40)
    batches = [
        pa.ipc.read_record_batch(pa.py_buffer(message), CODEC.layout.schema)
        for message in messages(rows)
    ]
    for batch in batches:
        batch.validate(full=True)
    table = pa.Table.from_batches(batches)
    assert set(table["easydata:key"].to_pylist()) == {"schlüssel"}
    assert sum(table["ids"].to_pylist(), []) == list(range(50))
    assert "".join(table["text"].to_pylist()) == "größe · 大 · größe · 大"


def test_one_row_is_the_entry() -> None:
    (row,) = cut(CODEC.layout, ENTRY, 1 << 20)
    assert CODEC.encode_row(row) == CODEC.encode_row(ENTRY)


def test_rows_in_another_order_are_refused() -> None:
    rows = messages(cut(CODEC.layout, ENTRY, 40))
    for order in (rows[::-1], [rows[-1], *rows[:-1]]):
        with pytest.raises(ValueError, match="not in order"):
            join(CODEC, order)


def test_rows_are_needed_only_one_at_a_time() -> None:
    taken = []

    def one_by_one() -> Any:
        for message in messages(cut(CODEC.layout, ENTRY, 40)):
            reused = bytearray(message)
            taken.append(reused)
            yield reused
            reused[:] = bytes(len(reused))

    assert join(CODEC, one_by_one()) == CODEC.encode_row(ENTRY)
    assert len(taken) > 2
