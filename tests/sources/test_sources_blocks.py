"""What blocks promise whatever their boundaries: records, digests, marks, places."""

from __future__ import annotations

import io
import itertools
import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easydata.sources import ByteBlock, Fields, TableBlock
from easydata.sources.delimited import DelimitedLines, DelimitedParser
from easydata.sources.framing import record_pieces
from easydata.sources.jsonl import JsonLines, JsonParser
from easydata.sources.marks import record_marks
from easydata.sources.tableblock import table_block
from easydata.sources.text import Lines, Paragraphs, TextParser

FORMS = {
    "jsonl": (JsonLines, JsonParser()),
    "csv": (lambda: DelimitedLines(","), DelimitedParser(("text", "n"), ",")),
    "line": (Lines, TextParser("line")),
    "paragraph": (Paragraphs, TextParser("paragraph")),
}

fast = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
pieces = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b" ", b"a", b'"', b'""', b",", b'"x\ny"', b"{}", b"\xff", b"\t"]
    ),
    max_size=40,
)


def blocks_of(data, form, block_bytes):
    framer, parser = FORMS[form]
    found, record, line = [], 0, 1
    for content, ends in record_pieces(io.BytesIO(data).read, framer(), block_bytes, "data"):
        assert ends[-1] == len(content)
        found.append(ByteBlock(content, ends, parser, record, line))
        record += len(ends)
        line += content.count(b"\n")
    return found


def records_of(block):
    ends = block.ends.tolist()
    return [block.content[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("form", FORMS)
@fast
@given(data=pieces.map(b"".join), block_bytes=st.integers(1, 60))
def test_boundaries_change_nothing(form, data, block_bytes):
    blocks = blocks_of(data, form, block_bytes)
    assert b"".join(block.content for block in blocks) == data
    assert all(block.num_records and (np.diff(block.ends) > 0).all() for block in blocks)
    whole = blocks_of(data, form, 1000)
    assert sum(map(records_of, blocks), []) == sum(map(records_of, whole), [])
    if not data:
        assert blocks == []
        return
    one, other = ByteBlock.join(blocks), ByteBlock.join(whole)
    assert one.digest() == other.digest()
    assert one.marks().tolist() == other.marks().tolist()
    assert np.concatenate([block.marks() for block in blocks]).tolist() == one.marks().tolist()
    assert [one.locate(i) for i in range(one.num_records)] == [
        block.locate(i) for block in blocks for i in range(block.num_records)
    ]
    fields = Fields("text", {"n": pa.string()})
    rows = one.rows(fields)
    split = [block.rows(fields) for block in blocks]
    assert list(rows.texts) == [text for part in split for text in part.texts]
    assert [bad.reason for bad in rows.bad] == [bad.reason for part in split for bad in part.bad]


@pytest.mark.parametrize("form", FORMS)
def test_long_record_is_a_block_of_its_own(form):
    long = b'"' + b"x" * 500 + b'",2\n\n'
    data = b"a,1\n\n" * 20 + long + b"b,3\n\n" * 20
    blocks = blocks_of(data, form, 50)
    assert max(block.nbytes for block in blocks if block.nbytes < 500) <= 51
    [longest] = [block for block in blocks if block.nbytes > 400]
    assert longest.num_records <= 2 + (form != "paragraph") * 8
    assert longest.nbytes <= 560


def csv_oracle(data: str) -> list[bytes]:
    """Where the records of CSV text end, one character after the other."""
    records, start, quoted, field_start, closed = [], 0, False, True, False
    for at, char in enumerate(data):
        if quoted:
            if char == '"':
                quoted, closed = False, True
            continue
        if char == '"' and (field_start or closed):
            quoted = True
        closed = False
        field_start = char in ",\r\n"
        if char == "\n":
            records.append(data[start : at + 1].encode())
            start = at + 1
    return [*records, data[start:].encode()] if start < len(data) else records


@fast
@given(data=st.text(alphabet='",\n\rab', max_size=40), block_bytes=st.integers(1, 45))
def test_csv_quotes_against_a_plain_scan(data, block_bytes):
    found = blocks_of(data.encode(), "csv", block_bytes)
    assert sum(map(records_of, found), []) == csv_oracle(data)


def test_slices_locate_and_pickle():
    data = b'{"text": "a"}\n\n\n{"text": "b"}\n{"text": "c"}\n'
    [block] = blocks_of(data, "jsonl", 1000)
    part = block.slice(1, 3)
    assert part.data is block.data
    assert (part.first_record, part.num_records, part.nbytes) == (1, 2, len(data) - 14)
    assert [part.locate(i) for i in range(2)] == ["row 1 (line 4)", "row 2 (line 5)"]
    assert part.rows(Fields()).texts == ["b", "c"]
    assert part.marks().tolist() == block.marks()[1:].tolist()
    copy = pickle.loads(pickle.dumps(part.slice(1, 2)))
    assert copy.content == copy.data == b'{"text": "c"}\n'
    assert copy.locate(0) == "row 2 (line 5)"
    joined = ByteBlock.join([part.slice(0, 1), part.slice(1, 2)])
    assert joined.digest() == ByteBlock.join([part]).digest()
    assert joined.locate(1) == "row 2 (line 5)"
    assert block.slice(0, 0).marks().tolist() == []


def test_digest_tells_content_and_parsing_apart():
    ends = np.array([2, 4])
    one = ByteBlock(b"a\nb\n", ends, TextParser("line"))
    digests = {
        one.digest(),
        ByteBlock(b"a\nc\n", ends, TextParser("line")).digest(),
        ByteBlock(b"a\nb\n", ends, TextParser("paragraph")).digest(),
        ByteBlock(b"a\nb\n", ends, DelimitedParser(("text",), ",")).digest(),
        ByteBlock(b"a\nb\n", ends, DelimitedParser(("body",), ",")).digest(),
        ByteBlock(b"a\nb\n", ends, DelimitedParser(("text",), "\t")).digest(),
        ByteBlock(b"a\nb\n", np.array([4]), TextParser("line")).digest(),
    }
    assert len(digests) == 7
    moved = ByteBlock(b"a\nb\n", ends, TextParser("line"), first_record=9, first_line=9)
    assert moved.digest() == one.digest()
    assert len(one.digest()) == 16


@fast
@given(records=st.lists(st.binary(max_size=40), min_size=1), before=st.binary(max_size=9))
def test_marks_depend_on_the_record_alone(records, before):
    data = before + b"".join(records)
    ends = len(before) + np.cumsum([len(record) for record in records])
    starts = np.concatenate(([len(before)], ends[:-1]))
    marks = record_marks(data, starts, ends)
    for record, mark in zip(records, marks, strict=True):
        assert record_marks(record, np.array([0]), np.array([len(record)]))[0] == mark
    # The words cover every byte of a record of up to 64 bytes or so that starts like this one.
    assert len(set(marks.tolist())) == len(set(records))


def test_marks_are_the_same_on_every_machine():
    # Computed with Python integers, one record at a time.
    data = b"aThe quick brown fox jumps over the lazy dog"
    marks = record_marks(data, np.array([0, 0, 1]), np.array([0, 1, len(data)]))
    assert [f"{mark:016x}" for mark in marks.tolist()] == [
        "0000000000000000",
        "a51ba911c142492b",
        "672f133ea9766b14",
    ]


values = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=8),
            "n": st.none() | st.integers(-5, 5),
            "flag": st.none() | st.booleans(),
            "tags": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
            "meta": st.none()
            | st.fixed_dictionaries({"a": st.none() | st.floats(allow_nan=False)}),
        }
    ),
    min_size=1,
    max_size=12,
)
TABLE_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("n", pa.int64()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("meta", pa.struct([("a", pa.float64())])),
    ]
)


@fast
@given(rows=values, cuts=st.lists(st.integers(0, 12)), dictionary=st.booleans())
def test_table_boundaries_change_nothing(rows, cuts, dictionary):
    table = pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)
    if dictionary:
        encoded = table.column("text").dictionary_encode()
        table = table.set_column(0, "text", encoded).replace_schema_metadata({"a": "b"})
    names = TABLE_SCHEMA.names
    [batch] = table.combine_chunks().to_batches()
    whole = table_block(batch, names, 0)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [
        table_block(batch.slice(start, stop - start), names, start)
        for start, stop in itertools.pairwise(bounds)
    ]
    one, other = TableBlock.join([whole]), TableBlock.join(parts)
    assert one.digest() == other.digest()
    assert one.marks().tolist() == other.marks().tolist() == whole.marks().tolist()
    assert np.concatenate([part.marks() for part in parts]).tolist() == one.marks().tolist()
    assert one.ends.tolist() == whole.ends.tolist()
    assert one.batch.to_pylist() == rows
    changed = TableBlock(whole.batch.set_column(1, "n", pa.array([9] * len(rows))))
    assert changed.digest() != one.digest()
    assert one.batch.get_total_buffer_size() <= one.batch.serialize().size
    last = pickle.loads(pickle.dumps(whole.slice(len(rows) - 1, len(rows))))
    assert last.batch.to_pylist() == rows[-1:]
    assert last.locate(0) == f"row {len(rows) - 1}"


def test_bytes_behind_nulls_play_no_part():
    hidden = pa.Array.from_buffers(
        pa.string(),
        2,
        [
            pa.py_buffer(b"\x02"),
            pa.py_buffer(np.array([0, 3, 4], np.int32)),
            pa.py_buffer(b"xyza"),
        ],
    )
    block = table_block(pa.record_batch({"text": hidden}), ["text"], 0)
    plain = table_block(pa.record_batch({"text": pa.array([None, "a"])}), ["text"], 0)
    assert block.ends.tolist() == plain.ends.tolist() == [1, 3]
    assert block.marks().tolist() == plain.marks().tolist()


def test_joined_slice_is_small():
    block = table_block(pa.record_batch({"text": ["x" * 1000] * 1000}), ["text"], 0)
    joined = TableBlock.join([block.slice(5, 6)])
    assert joined.batch.get_total_buffer_size() < 3000
    assert (joined.first_record, joined.batch) == (5, block.batch.slice(5, 1))


def test_pickled_slice_is_small():
    block = table_block(pa.record_batch({"text": ["x" * 1000] * 1000}), ["text"], 0)
    assert len(pickle.dumps(block.slice(5, 6))) < 3000
    data = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    [lines] = blocks_of(data * 1000, "jsonl", 1 << 22)
    assert len(pickle.dumps(lines.slice(5, 6))) < 3000
