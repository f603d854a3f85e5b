"""Messages made from a template: what Arrow reads is what was put in, however many rows."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.log.framing import is_intact, message_bytes
from easydata.cache.log.layout import NEVER, EntryLayout
from easydata.cache.log.message import Entry, EntryCodec
from easydata.cache.log.rows import SingleRows

KINDS = [
    *(pa.list_(kind) for kind in (pa.uint8(), pa.int16(), pa.uint32(), pa.float16(), pa.float64())),
    pa.string(),
    pa.binary(),
    pa.int64(),
    pa.float64(),
    pa.uint8(),
]
OWN = ["hash", "stamp", "expires", "key", "metadata", "recipe"]

int64s = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, NEVER)


def data_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """What a codec gives for a column of this kind."""
    if pa.types.is_list(kind):
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        return st.binary(max_size=300).map(
            lambda b: np.frombuffer(b[: len(b) // dtype.itemsize * dtype.itemsize], dtype)
        )
    if pa.types.is_string(kind):
        return st.text(max_size=80).map(str.encode)
    if pa.types.is_binary(kind):
        return st.binary(max_size=80)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False)
    return int64s if kind == pa.int64() else st.integers(0, 255)


@st.composite
def cases(draw: st.DrawFn) -> tuple[EntryCodec, list[Entry]]:
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=5))
    columns = [(f"{'easydata:' * (i % 2)}c{i}", kind) for i, kind in enumerate(kinds)]
    text = st.text(max_size=60).map(str.encode)
    entry = st.builds(
        Entry,
        text,
        st.integers(0, 2**64 - 1),
        times,
        times,
        text,
        text,
        st.tuples(*map(data_of, kinds)),
    )
    return EntryCodec(EntryLayout(columns)), draw(st.lists(entry, min_size=1, max_size=6))


def plain(value: Any) -> Any:
    """The value as Arrow's to_pylist would give it, byte runs and item bits compared as bytes."""
    return value.tobytes() if isinstance(value, np.ndarray) else value


def rows_of(batch: pa.RecordBatch, codec: EntryCodec) -> list[Entry]:
    """What pyarrow reads, as entries."""
    own = [batch.column(index) for index in range(6)]
    found = []
    for row in range(batch.num_rows):
        data = []
        for column, array in zip(codec.layout.columns, batch.columns[6:], strict=True):
            scalar = array[row]
            if pa.types.is_list(column.kind):
                values = scalar.values
                bits = np.frombuffer(values.buffers()[1] or b"", np.uint8)
                start = values.offset * column.item_bytes
                data.append(bits[start : start + len(values) * column.item_bytes].tobytes())
            elif pa.types.is_string(column.kind):
                data.append(scalar.as_py().encode())
            else:
                data.append(scalar.as_py())
        found.append(
            Entry(
                own[3][row].as_py().encode(),
                own[0][row].as_py(),
                own[1][row].value,
                own[2][row].value,
                own[4][row].as_py().encode(),
                own[5][row].as_py().encode(),
                tuple(data),
            )
        )
    return found


def expected(entries: list[Entry]) -> list[Entry]:
    return [entry._replace(data=tuple(map(plain, entry.data))) for entry in entries]


@settings(max_examples=150)
@given(cases())
def test_arrow_reads_what_was_written(case: tuple[EntryCodec, list[Entry]]) -> None:
    codec, entries = case
    singles = [codec.encode_row(entry) for entry in entries]
    together = codec.encode_rows(entries)
    stream = b"".join([codec.schema_message, *singles, together])
    batches = pa.ipc.open_stream(stream).read_all().to_batches()
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.names[:6] == [f"easydata:{name}" for name in OWN]
    assert [rows_of(batch, codec) for batch in batches] == [
        *([entry] for entry in expected(entries)),
        expected(entries),
    ]


@settings(max_examples=150)
@given(cases(), st.integers(0, 3))
def test_entries_are_found_again_without_arrow(
    case: tuple[EntryCodec, list[Entry]], before: int
) -> None:
    codec, entries = case
    lead = codec.schema_message + bytes(64 * before)
    singles = [codec.encode_row(entry) for entry in entries]
    together = codec.encode_rows(entries)
    assert codec.encode_rows(entries[:1]) == singles[0]
    view = memoryview(lead + b"".join(singles) + together + bytes(100))

    def read(row: Any) -> Entry:
        data = []
        for column, value in zip(codec.layout.columns, row.data, strict=True):
            data.append(bytes(view[slice(*value)]) if column.is_run else value)
        parts = [bytes(view[slice(*place)]) for place in (row.key, row.metadata, row.recipe)]
        return Entry(parts[0], row.key_hash, row.stamp, row.expires, *parts[1:], tuple(data))

    found = []
    start = len(lead)
    while (size := message_bytes(view, start)) is not None:
        assert size % 64 == 0
        assert is_intact(view, start, size)
        rows = codec.locate_rows(view, start)
        assert len(rows) == codec.count_rows(view, start)
        many = [read(rows.row(index)) for index in range(len(rows))]
        if len(rows) == 1:
            assert read(codec.locate_row(view, start)) == many[0]
        assert rows.hashes.tolist() == [entry.key_hash for entry in many]
        assert rows.stamps.tolist() == [entry.stamp for entry in many]
        assert rows.expires.tolist() == [entry.expires for entry in many]
        found.append(many)
        start += size
    assert start == len(view) - 100
    assert found == [*([entry] for entry in expected(entries)), expected(entries)]


@settings(max_examples=60)
@given(cases())
def test_data_lies_at_multiples_of_64(case: tuple[EntryCodec, list[Entry]]) -> None:
    codec, entries = case
    message = codec.encode_rows(entries)
    row = codec.locate_rows(message, 0).row(0)
    for column, place in zip(codec.layout.columns, row.data, strict=True):
        if column.is_run:
            assert place[0] % 64 == 0
    assert len(codec.schema_message) % 64 == 0
    assert len(message) % 64 == 0


CODEC = EntryCodec(EntryLayout([("ids", pa.list_(pa.uint16())), ("mask", pa.list_(pa.uint8()))]))
ENTRY = Entry(
    b"key", 7, 1_700_000_000_000_000_000, NEVER, b"{}", b"[]",
    (np.arange(40, dtype=np.uint16), np.ones(40, np.uint8)),
)  # fmt: skip


def test_the_bytes_do_not_change_silently() -> None:
    one, two = CODEC.encode_row(ENTRY), CODEC.encode_rows([ENTRY, ENTRY])
    body = len(one) - 320
    assert struct.unpack_from("<Qqq6i4i", one, body) == (
        7, 1_700_000_000_000_000_000, NEVER, 0, 3, 0, 2, 0, 2, 0, 40, 0, 40,
    )  # fmt: skip
    for message in (one, two):
        assert message[-8:] == xxhash.xxh3_64_intdigest(bytes(message[:-8])).to_bytes(8, "little")


def test_every_flipped_bit_is_noticed() -> None:
    message = bytearray(CODEC.encode_row(ENTRY))
    for position in range(len(message)):
        for bit in (1, 128):
            message[position] ^= bit
            size = message_bytes(message, 0)
            assert size is None or not is_intact(message, 0, size)
            message[position] ^= bit
    assert is_intact(message, 0, len(message))


def test_a_message_that_was_cut_off_is_none() -> None:
    message = bytes(CODEC.encode_row(ENTRY))
    for size in range(len(message)):
        assert message_bytes(message[:size], 0) is None
        # Space that the writer did not fill any more may hold zeros.
        found = message_bytes(message[:size] + bytes(len(message) - size), 0)
        assert (
            found is None
            or size >= len(message) - 8
            or not is_intact(message[:size] + bytes(len(message) - size), 0, found)
        )
    assert message_bytes(bytes(4096), 0) is None


@settings(max_examples=200)
@given(st.binary(max_size=600))
def test_other_bytes_are_no_message_or_not_intact(data: bytes) -> None:
    for lead in (b"", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x38\x00\x00\x00"):
        size = message_bytes(lead + data, 0)
        assert size is None or not is_intact(lead + data, 0, size)


def test_other_libraries_read_a_segment() -> None:
    stream = CODEC.schema_message + CODEC.encode_row(ENTRY) + CODEC.encode_rows([ENTRY] * 3)
    frame = polars.read_ipc_stream(io.BytesIO(stream))
    assert frame["ids"].to_list() == [list(range(40))] * 4
    assert frame["easydata:key"].to_list() == ["key"] * 4
    table = pa.ipc.open_stream(stream).read_pandas()
    assert table["mask"].tolist()[3].tolist() == [1] * 40


@pytest.mark.parametrize(
    "kind",
    [pa.bool_(), pa.list_(pa.string()), pa.list_(pa.bool_()), pa.large_string(), pa.struct([])],
    ids=str,
)
def test_types_without_a_layout_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(ValueError, match="no layout"):
        EntryLayout([("x", kind)])


def test_too_many_items_for_a_batch_are_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**30

    codec = EntryCodec(EntryLayout([("x", pa.binary())]))
    entry = Entry(b"k", 1, 1, NEVER, b"", b"", (Huge(),))
    with pytest.raises(OverflowError, match="items in one column"):
        codec.encode_rows([entry] * 3)


@settings(max_examples=200)
@given(cases(), st.randoms(use_true_random=False))
def test_many_messages_of_one_row_are_found_and_joined(
    case: tuple[EntryCodec, list[Entry]], random: Any
) -> None:
    codec, entries = case
    messages = [codec.encode_row(entry) for entry in entries]
    starts = np.cumsum([64, *map(len, messages)])[:-1]
    view = memoryview(bytes(64) + b"".join(messages))
    order = random.sample(range(len(entries)), random.randint(0, len(entries)))
    rows = SingleRows(codec.layout, codec.header_bytes, view, starts[order])
    chosen = [entries[at] for at in order]
    assert len(rows) == len(chosen)
    assert rows.hashes.tolist() == [entry.key_hash for entry in chosen]
    assert rows.stamps.tolist() == [entry.stamp for entry in chosen]
    assert rows.expires.tolist() == [entry.expires for entry in chosen]
    assert rows.are_tombstones.tolist() == [not entry.recipe for entry in chosen]
    assert rows.sizes.tolist() == [codec.locate_row(view, int(starts[at])).size for at in order]
    if chosen:
        assert codec.encode_singles(rows) == codec.encode_rows(chosen)
