"""Kept fields: values are stored unchanged or reported, and types are agreed before."""

from __future__ import annotations

import datetime as dt
import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import SourceError, UsageError
from easydata.sources import Fields, find_sources, infer_types
from easydata.sources.columns import column_array, text_array, value_array

F32 = pa.float32()
META = pa.struct([("a", pa.int64())])

FITS = [
    (pa.int64(), [1, -(2**63), None]),
    (pa.uint64(), [2**64 - 1]),
    (pa.float64(), [1.5, 2, 2**60, None, float("inf")]),
    (F32, [0.1, 3, float("-inf")]),
    (pa.bool_(), [True, False, None]),
    (pa.string(), ["", "a", None]),
    (pa.large_string(), ["a"]),
    (pa.binary(), [b"a"]),
    (pa.list_(pa.int64()), [[], [1, None], None]),
    (META, [{"a": 1}, {}, None]),
    (pa.date32(), [dt.date(2020, 1, 2)]),
    (pa.timestamp("us"), [dt.datetime(2020, 1, 2, 3)]),
    (pa.decimal128(5, 2), [decimal.Decimal("1.25")]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "a", None]),
]
MISFITS = [
    (pa.int64(), [1.5, 1.0, True, "1", 2**63, [], {}]),
    (pa.uint8(), [-1, 256]),
    (pa.float64(), ["1", True, 2**53 + 1, 10**400]),
    (F32, [1e300, 2**60 + 1, "x"]),
    (pa.bool_(), [1, 0, "true"]),
    (pa.string(), [1, b"a", ["a"], "\ud800"]),
    (pa.list_(pa.int64()), [[1.5], [True], "ab", 1, {"a": 1}]),
    (META, [{"b": 1}, {"a": "x"}, [1], "x"]),
    (pa.date32(), [dt.datetime(2020, 1, 2, 3), "2020-01-02"]),
    (pa.decimal128(5, 2), [decimal.Decimal("1.255"), "x"]),
]


@pytest.mark.parametrize(("kind", "values"), FITS)
def test_values_that_fit(kind, values):
    array, misfits = value_array(values, kind, "f")
    assert misfits == {}
    assert array.type == kind
    expected = [np.float32(one) for one in values] if kind == F32 else values
    if kind == META:
        expected = [None if one is None else {"a": None, **one} for one in values]
    assert array.to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in MISFITS for value in values]
)
def test_values_that_do_not_fit(kind, value):
    good = next(values for fitting, values in FITS if fitting == kind or kind == pa.uint8())[:1]
    array, misfits = value_array([None, value, *good], kind, "score")
    assert list(misfits) == [1]
    assert misfits[1].startswith("field 'score' is ")
    assert misfits[1].endswith(f", not {kind}")
    assert array.is_null().to_pylist()[:2] == [True, True]
    assert array.null_count == 2
    assert len(array) == 3


def test_reasons_are_short():
    _, misfits = value_array(["x" * 10_000], pa.int64(), "score")
    assert len(misfits[0]) < 100
    assert value_array(["abc"], pa.int64(), "score")[1] == {0: "field 'score' is 'abc', not int64"}


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        (pa.int64(), ["1", "-5", ""], [1, -5, None]),
        (pa.float64(), ["1", "1e3", "-.5", ""], [1.0, 1000.0, -0.5, None]),
        (pa.bool_(), ["true", "False", ""], [True, False, None]),
        (pa.string(), ["", "a"], ["", "a"]),
        (pa.date32(), ["2020-01-02", ""], [dt.date(2020, 1, 2), None]),
        (pa.int64(), [], []),
        (META, [], []),
    ],
)
def test_fields_of_csv(kind, texts, values):
    array, misfits = text_array(texts, kind, "f")
    assert (array.to_pylist(), misfits, array.type) == (values, {}, kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (pa.int64(), "007"),
        (pa.int64(), "0x1F"),
        (pa.int64(), "1.0"),
        (pa.int8(), "300"),
        (pa.bool_(), "1"),
        (pa.float64(), "x"),
        (META, "x"),
    ],
)
def test_fields_of_csv_that_do_not_fit(kind, text):
    array, misfits = text_array(["", text, ""], kind, "f")
    assert misfits == {1: f"field 'f' is {text!r}, not {kind}"}
    assert array.null_count == 3


@pytest.mark.parametrize(
    ("given_kind", "kind", "values", "expected"),
    [
        (pa.int32(), pa.int64(), [1, None], [1, None]),
        (pa.int64(), pa.int8(), [1, 300], [1, "misfit"]),
        (pa.int64(), pa.float64(), [1, 2**53 + 1], [1.0, "misfit"]),
        (pa.float32(), pa.float64(), [1.5], [1.5]),
        (pa.float64(), pa.int64(), [1.0], ["misfit"]),
        (pa.int64(), pa.bool_(), [5], ["misfit"]),
        (pa.bool_(), pa.int64(), [True], ["misfit"]),
        (pa.int64(), pa.string(), [5], ["misfit"]),
        (pa.string(), pa.large_string(), ["a"], ["a"]),
        (pa.null(), pa.int64(), [None], [None]),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), [[1]], [[1]]),
    ],
)
def test_columns_of_tables(given_kind, kind, values, expected):
    array, misfits = column_array(pa.array(values, given_kind), kind, "f")
    assert array.type == kind
    assert [
        "misfit" if i in misfits else one for i, one in enumerate(array.to_pylist())
    ] == expected


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@settings(max_examples=200)
@given(
    values=st.lists(plain, max_size=6),
    kind=st.sampled_from([pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.int8()]),
)
def test_a_stored_value_is_the_value(values, kind):
    array, misfits = value_array(values, kind, "f")
    for row, (value, stored) in enumerate(zip(values, array.to_pylist(), strict=True)):
        if row in misfits:
            assert stored is None
            assert value is not None
        else:
            assert stored == value
            assert isinstance(stored, bool) == isinstance(value, bool)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_bad_kept_values_drop_their_row_only(tmp_path, read):
    rows = [
        {"text": "a", "n": 1, "m": "x"},
        {"text": "b", "n": "abc", "m": 5},
        {"text": 3, "n": 1},
        {"text": "c"},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    found = read(find_sources(path)[0], block_bytes=10_000, n=pa.int64(), m=pa.string())
    assert found.texts == ["a", "c"]
    assert found.kept == {"n": [1, None], "m": ["x", None]}
    assert found.bad == [
        "row 1 (line 2): field 'n' is 'abc', not int64",
        "row 2 (line 3): field 'text' is 3, not text",
    ]
    [block] = found.blocks
    assert block.rows(Fields()).records.tolist() == [0, 1, 3]


def test_text_may_be_kept_too(tmp_path, read):
    path = write(tmp_path / "rows.jsonl", [{"text": "a"}])
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("text\na\n")
    for source in find_sources([path, tmp_path / "rows.parquet", tmp_path / "rows.csv"]):
        types = infer_types([source], "text", ["text"])
        fields = {"text": types["text"]}
        [block] = read(source).blocks
        assert block.rows(Fields("text", fields)).kept["text"].to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (None, 1, pa.int64()),
        (1, 2.5, pa.float64()),
        (None, None, pa.string()),
        ("a", None, pa.string()),
        (True, None, pa.bool_()),
        (2**63, None, pa.uint64()),
        ([1], [2.5], pa.list_(pa.float64())),
        ([], [None], pa.list_(pa.string())),
        ({"a": 1}, {"b": "x"}, pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ({"a": None}, {"a": [{}]}, pa.struct([("a", pa.list_(pa.struct([])))])),
    ],
)
def test_agreed_types(tmp_path, first, second, expected):
    one = write(tmp_path / "one.jsonl", [{"text": "a", "f": first}, {"text": "b"}])
    two = write(tmp_path / "two.jsonl", [{"text": "a"}, {"text": "b", "f": second}])
    assert infer_types(find_sources([one, two]), "text", ["f"]) == {"f": expected}
    assert infer_types(find_sources([two, one]), "text", ["f"])["f"].equals(expected) or (
        pa.types.is_struct(expected)
    )


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (1, "a", "is int64 in .*one.jsonl and string in .*two.jsonl"),
        (True, 1, "is bool in .*one.jsonl and int64 in"),
        (2**63, -1, "is uint64 in .* and int64 in"),
        ([1], ["a"], "is list<item: int64> in .* and list<item: string> in"),
        ([1, "a"], None, "no common type: int64 and string"),
        (10**30, None, "no common type: an integer of 100 bits is too large"),
    ],
)
def test_conflicting_types(tmp_path, first, second, what):
    one = write(tmp_path / "one.jsonl", [{"text": "a", "f": first}])
    two = write(tmp_path / "two.jsonl", [{"text": "a", "f": second}])
    with pytest.raises(SourceError, match=what) as caught:
        infer_types(find_sources([one, two]), "text", ["f"])
    assert "schema={'f': …}" in str(caught.value)
    types = infer_types(find_sources([one, two]), "text", ["f"], {"f": "string"})
    assert types == {"f": pa.string()}
    schema = pa.schema([("text", pa.string()), ("f", pa.int8())])
    assert infer_types(find_sources(one), "text", ["f"], schema) == {"f": pa.int8()}


def test_types_of_csv_fields(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,int,float,flag,zip,name,none,mixed,big,under\n"
        "a,1,1.5,true,007,x,,1,99999999999999999999,1_000\n"
        "b,-2,2,False,1,,,x,1,1\n"
    )
    names = ["int", "float", "flag", "zip", "name", "none", "big", "under"]
    types = infer_types(find_sources(path), "text", names)
    kinds = [pa.int64(), pa.float64(), pa.bool_(), *[pa.string()] * 5]
    assert list(types.values()) == kinds


def test_types_of_tables(tmp_path):
    pq.write_table(
        pa.table({"text": ["a"], "n": pa.array([1], pa.int16())}), tmp_path / "a.parquet"
    )
    empty = pa.table({"text": pa.array([], pa.string()), "n": pa.array([], pa.int32())})
    pq.write_table(empty, tmp_path / "b.parquet")
    assert infer_types(find_sources(tmp_path), "text", ["n"]) == {"n": pa.int32()}


def test_kept_names_that_cannot_be(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": "a", "id": 1}])
    sources = find_sources(path)
    with pytest.raises(SourceError, match=r"No sampled row has the field 'x'.*'text', 'id'"):
        infer_types(sources, "text", ["x"])
    with pytest.raises(UsageError, match="'input_ids' cannot be kept"):
        infer_types(sources, "text", ["input_ids"])
    with pytest.raises(UsageError, match="schema names the field 'y', which is not kept"):
        infer_types(sources, "text", ["id"], {"y": "int64"})
    with pytest.raises(UsageError, match="'number' for the field 'id', which is no Arrow type"):
        infer_types(sources, "text", ["id"], {"id": "number"})
    assert infer_types(sources, "text", []) == {}


def test_sample_is_bounded_and_spread(tmp_path):
    class Probe:
        is_file = True
        nbytes = features = None

        def __init__(self, number):
            self.name = f"probe {number}"
            self.inner = find_sources([{"text": "a", "n": 1}])[0]

        def peek(self, names, num_records):
            peeked.append((self.name, num_records))
            return self.inner.peek(names, num_records)

    peeked = []
    assert infer_types([Probe(i) for i in range(1001)], "text", ["n"]) == {"n": pa.int64()}
    assert len(set(peeked)) == 100
    assert peeked[0] == ("probe 0", 1000)
    assert peeked[-1] == ("probe 1000", 1000)


def test_peek_gives_the_first_rows_only(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": str(n)} for n in range(5000)])
    blocks = find_sources(path)[0].peek(["text"], 1234)
    assert sum(block.num_records for block in blocks) == 1234


def test_sample_leaves_out_broken_rows_and_files_without_fields(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('broken\n\n{"text": "a", "n": 1}\n\n')
    (tmp_path / "doc.txt").write_text("plain")
    assert infer_types(find_sources(tmp_path), "text", ["n"]) == {"n": pa.int64()}
    with pytest.raises(SourceError, match="the rows have no fields"):
        infer_types(find_sources(tmp_path / "doc.txt"), "text", ["n"])


def test_types_of_nested_columns_of_tables(tmp_path):
    kinds = {
        "large": (pa.large_list(pa.null()), pa.list_(pa.int8()), pa.large_list(pa.int8())),
        "fixed": (pa.list_(pa.null(), 2), pa.list_(pa.null(), 2), pa.list_(pa.string(), 2)),
        "both": (pa.large_string(), pa.string(), pa.large_string()),
        "wide": (pa.uint32(), pa.int32(), pa.int64()),
        "small": (pa.float32(), pa.float32(), pa.float32()),
        "none": (pa.large_list(pa.null()), pa.null(), pa.large_list(pa.string())),
    }
    for number in range(2):
        columns = {name: pa.array([None], kind[number]) for name, kind in kinds.items()}
        pq.write_table(pa.table({"text": ["a"], **columns}), tmp_path / f"{number}.parquet")
    found = infer_types(find_sources(tmp_path), "text", list(kinds))
    assert found == {name: kind[2] for name, kind in kinds.items()}
