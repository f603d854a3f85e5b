"""Tables read with all their columns: the bytes of a row, marks, identities, values."""

from __future__ import annotations

import datetime as dt
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import SourceError
from easydata.sources import TableBlock, find_sources
from easydata.sources.row_bytes import byte_runs, runs_marks

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.large_string())])
COLUMNS = [
    ("s", pa.string(), ["one", "", None, "zwölf"]),
    ("b", pa.large_binary(), [b"\0", None, b"", b"xyz"]),
    ("i", pa.int16(), [1, None, 3, 4]),
    ("f", pa.float64(), [0.5, 1.5, None, -1.0]),
    ("d", pa.date32(), [dt.date(2020, 1, 2), None, None, dt.date(1970, 1, 1)]),
    ("l", pa.list_(pa.int32()), [[1, 2], [], None, [3]]),
    ("ll", pa.large_list(pa.list_(pa.string())), [[["a"], []], None, [["b", "cc"]], []]),
    ("p", pa.list_(pa.int8(), 2), [[1, 2], [3, 4], [5, 6], [7, 8]]),
    (
        "chat",
        pa.list_(MESSAGE),
        [[{"role": "u", "content": "hi"}], [], [{"role": "a", "content": None}] * 2, None],
    ),
    ("m", pa.map_(pa.string(), pa.int64()), [[("k", 1)], [], None, [("a", 2), ("b", 3)]]),
    ("t", pa.bool_(), [True, False, None, True]),
    ("n", pa.null(), [None] * 4),
    ("x", pa.binary(3), [b"abc", None, b"def", b"ghi"]),
    ("c", pa.decimal128(5, 2), [None, 1, 2, 3]),
]
TABLE = pa.table({name: pa.array(values, kind) for name, kind, values in COLUMNS})


def blocks_of(table, block_bytes=1000):
    with find_sources(table)[0].open(None, block_bytes) as reader:
        return list(reader)


def content(value, kind):
    """The bytes of a value that count, by the book rather than by its buffers."""
    types = pa.types
    if types.is_struct(kind):
        return [
            part for member in kind for part in content((value or {}).get(member.name), member.type)
        ]
    if types.is_map(kind):
        items = [] if value is None else value
        keys = b"".join(key.encode() for key, _ in items)
        return [keys, b"".join(item.to_bytes(8, "little") for _, item in items)]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        parts = [content(item, kind.value_type) for item in value or []]
        empty = content(None, kind.value_type)
        return [b"".join(part[index] for part in parts) for index in range(len(empty))]
    if types.is_boolean(kind) or types.is_null(kind):
        return []
    if value is None:
        return [b""]
    if types.is_integer(kind):
        return [value.to_bytes(kind.bit_width // 8, "little", signed=True)]
    return [value.encode() if isinstance(value, str) else value]


@pytest.mark.parametrize("name", ["s", "b", "i", "l", "ll", "p", "chat", "m", "t", "n", "x"])
@pytest.mark.parametrize("cut", [slice(0, 4), slice(1, 3), slice(2, 2)])
def test_bytes_of_a_column(name, cut):
    column = TABLE.column(name).chunk(0)[cut.start : cut.stop]
    runs = list(byte_runs(column))
    for row, value in enumerate(column.to_pylist()):
        found = [bytes(run.data)[run.starts[row] : run.stops[row]] for run in runs]
        assert found == content(value, column.type)


@pytest.mark.parametrize("block_bytes", [1, 60, 1000])
def test_blocks_of_whole_rows(block_bytes):
    blocks = blocks_of(TABLE, block_bytes)
    assert len(blocks) == {1: 4, 60: 3, 1000: 1}[block_bytes] or block_bytes == 60
    assert [row for block in blocks for row in block.dicts("").rows] == TABLE.to_pylist()
    assert blocks[0].batch.schema.names == TABLE.schema.names
    joined = TableBlock.join(blocks)
    [whole] = blocks_of(TABLE)
    assert joined.digest() == TableBlock.join([whole]).digest()
    assert joined.marks().tolist() == [int(mark) for block in blocks for mark in block.marks()]
    assert joined.ends.tolist() == whole.ends.tolist()
    again = pickle.loads(pickle.dumps(whole.slice(1, 3)))
    assert again.dicts("").rows == TABLE.to_pylist()[1:3]
    assert again.marks().tolist() == whole.marks().tolist()[1:3]
    assert (again.first_record, again.whole) == (1, True)
    assert TableBlock.join([again]).whole


def test_size_of_a_row_is_that_of_all_its_columns():
    table = pa.table({"n": pa.array([1, 2], pa.int32()), "s": ["abc", ""], "l": [["x"], ["yz"]]})
    [block] = blocks_of(table)
    assert block.ends.tolist() == [4 + 3 + 1 + 1, 9 + 4 + 0 + 2 + 1]
    assert block.nbytes == 16


@pytest.mark.parametrize("name", ["s", "b", "i", "f", "d", "l", "ll", "p", "chat", "m", "x", "c"])
def test_marks_see_every_column(name):
    [block] = blocks_of(TABLE)
    other = TABLE.column(name).take(pa.array([3, 0, 0, 0]))
    changed = TABLE.set_column(TABLE.schema.get_field_index(name), name, other)
    [after] = blocks_of(changed)
    assert after.marks()[0] != block.marks()[0]
    assert TableBlock.join([after]).digest() != TableBlock.join([block]).digest()


def test_marks_of_nothing_and_of_bits():
    assert runs_marks([], 3).tolist() == [0, 0, 0]
    [block] = blocks_of(pa.table({"t": [True, False]}))
    assert block.marks().tolist() == [0, 0]
    assert block.ends.tolist() == [1, 2]


@settings(max_examples=60)
@given(
    values=st.lists(st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3), max_size=9),
    cut=st.integers(0, 9),
)
def test_runs_do_not_depend_on_slices(values, cut):
    column = pa.array(values, pa.list_(pa.string()))
    [run] = byte_runs(column[cut:])
    expected = ["".join(item or "" for item in value or []) for value in values[cut:]]
    assert [
        bytes(run.data)[start:stop].decode()
        for start, stop in zip(run.starts, run.stops, strict=True)
    ] == expected
    assert run.starts.dtype == np.int64


def test_marks_of_the_text_alone_are_as_they_were():
    # Golden: cached datasets are cut into parts by these.
    with find_sources(pa.table({"text": ["one", None, "zwölf"]}))[0].open(["text"], 100) as reader:
        [block] = reader
    assert block.marks().tolist() == [15037504761173685690, 0, 5882135668534940002]
    assert block.ends.tolist() == [4, 5, 12]


def test_all_columns_need_names_of_their_own(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["t", "t"])
    with pytest.raises(SourceError, match="has 2 columns named 't'"):
        find_sources(table)[0].open(None, 10)
    assert find_sources(pa.table({"n": [1]}))[0].peek(None, 5)[0].dicts("").rows == [{"n": 1}]


def test_peek_of_all_fields(tmp_path):
    pq.write_table(TABLE.drop_columns(["m"]), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "t.jsonl").write_text('{"a": "1", "b": "2"}\n{"c": 1}\n')
    parquet, csv, jsonl = find_sources(
        [tmp_path / f"t.{kind}" for kind in ("parquet", "csv", "jsonl")]
    )
    assert parquet.peek(None, 2)[0].dicts("").rows == TABLE.drop_columns(["m"]).to_pylist()[:2]
    for source in (csv, jsonl, find_sources([{"a": "1", "b": "2"}])[0]):
        assert source.peek(None, 1)[0].dicts("").rows == [{"a": "1", "b": "2"}]


def test_values_that_python_cannot_hold():
    far = pa.array([0, 2**62, 1], pa.timestamp("s"))
    bad = pa.array([b"a", b"b", b"\xff"], pa.binary()).cast(pa.string(), safe=False)
    [block] = blocks_of(pa.table({"when": far, "s": bad.view(pa.string())}))
    found = block.dicts("")
    assert found.rows == [{"when": dt.datetime(1970, 1, 1), "s": "a"}]
    assert found.records == [0]
    assert [one.record for one in found.bad] == [1, 2]
    assert found.bad[0].reason.startswith("field 'when' has no value in Python: ")
    assert found.bad[1].reason == "field 's' is not UTF-8: 0xff at byte 1 (invalid start byte)"
