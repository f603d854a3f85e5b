"""Kept fields come back as they were, in easydata, pandas and datasets."""

from __future__ import annotations

import datetime as dt
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import easydata as ed

from .support import SMALL, texts, write

UTC = dt.UTC
TABLE = pa.table(
    {
        "text": texts(40, words=4),
        "flag": pa.array([True, None, False, True] * 10),
        "number": pa.array([1, None, -(2**62), 7] * 10, pa.int64()),
        "small": pa.array([1, 2, None, 255] * 10, pa.uint8()),
        "real": pa.array([1.5, None, float("inf"), -0.0] * 10),
        "word": pa.array(["a", None, "", "東京"] * 10),
        "blob": pa.array([b"\0\xff", None, b"", b"x"] * 10),
        "day": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1), dt.date(1970, 1, 1)] * 10),
        "when": pa.array(
            [dt.datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=UTC), None] * 20,
            pa.timestamp("us", "UTC"),
        ),
        "list": pa.array([[1, None, 3], None, [], [4]] * 10, pa.list_(pa.int32())),
        "deep": pa.array([[["a"], []], None, [[]], [["b", None]]] * 10),
        "struct": pa.array(
            [{"x": 1, "y": ["p"]}, None, {"x": None, "y": None}, {"x": 2, "y": []}] * 10,
            pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]),
        ),
        "structs": pa.array([[{"k": "v"}], [], None, [{"k": None}]] * 10),
        "null": pa.array([None] * 40, pa.string()),
    }
)
KEEP = [name for name in TABLE.schema.names if name != "text"]


@pytest.fixture(scope="module", params=["parquet", "table", "dataset"])
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    source = TABLE
    if request.param == "parquet":
        source = folder / "in.parquet"
        pq.write_table(TABLE, source)
    if request.param == "dataset":
        source = datasets.Dataset(TABLE)
    return ed.build(source, out=folder / "out", keep_fields=KEEP, workers=2, **SMALL)


def test_rows_come_back(built):
    expected = TABLE.select(KEEP).to_pylist()
    for i, values in enumerate(expected):
        row = built[i]
        assert built.decode(i) == TABLE["text"][i].as_py()
        del row["input_ids"]
        assert row == values
        assert all(type(row[name]) is type(values[name]) for name in KEEP)


def test_types_come_back(built):
    for name in KEEP:
        assert built.schema.field(name).type == TABLE.schema.field(name).type


def test_pandas_gets_the_same(built):
    found, expected = built.to_pandas()[KEEP], TABLE.select(KEEP).to_pandas()
    assert found.dtypes.to_dict() == expected.dtypes.to_dict()
    for name in KEEP:
        assert list(map(repr, found[name])) == list(map(repr, expected[name]))


def test_datasets_gets_the_same(built):
    loaded = datasets.load_from_disk(built.path)
    assert loaded.select_columns(KEEP).to_list() == TABLE.select(KEEP).to_pylist()
    assert loaded.features["input_ids"].feature.dtype == "uint16"


def test_fields_of_json_lines_come_back(tmp_path):
    values = [
        {"text": "a", "flag": True, "n": 1, "r": 1.5, "w": "x", "l": [1, 2], "s": {"k": [None]}},
        {"text": "b", "flag": None, "n": None, "r": 2.0, "w": None, "l": [], "s": None},
        {"text": "c", "flag": False, "n": -5, "r": None, "w": "", "l": None, "s": {"k": ["z"]}},
    ]
    source = write(tmp_path / "a.jsonl", values)
    keep = [name for name in values[0] if name != "text"]
    ds = ed.build(source, out=tmp_path / "out", keep_fields=keep, **SMALL)
    found = ds.to_table().drop(["input_ids"]).to_pylist()
    assert found == [{name: value[name] for name in keep} for value in values]
    assert json.dumps(found) == json.dumps([{n: v[n] for n in keep} for v in values])


def test_types_are_agreed_over_all_files(tmp_path):
    write(tmp_path / "a.jsonl", [{"text": "a", "n": 1}])
    write(tmp_path / "b.jsonl", [{"text": "b", "n": 2.5}])
    write(tmp_path / "c.jsonl", [{"text": "c"}])
    given = [tmp_path / f"{name}.jsonl" for name in "abc"]
    ds = ed.build(given, out=tmp_path / "out", keep_fields=["n"], **SMALL)
    assert ds.column("n").to_pylist() == [1.0, 2.5, None]
    assert ds.schema.field("n").type == pa.float64()


def test_the_types_of_a_schema_are_used(tmp_path):
    source = write(tmp_path / "a.jsonl", [{"text": "a", "n": 1, "when": "2024-02-29"}])
    schema = {"n": "float32", "when": pa.string()}
    ds = ed.build(source, out=tmp_path / "o", keep_fields=["n", "when"], schema=schema, **SMALL)
    assert ds.schema.field("n").type == pa.float32()
    assert ds[0]["n"] == 1.0


@pytest.mark.parametrize("kind", ["dataset", "iterable"])
def test_rich_features_are_carried(tmp_path, kind):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "labels": datasets.List(datasets.ClassLabel(names=["x", "y", "z"])),
            "other": datasets.Value("int32"),
        }
    )
    given = {"text": ["a", "b"], "label": [1, 0], "labels": [[2], [0, 1]], "other": [1, 2]}
    source = datasets.Dataset.from_dict(given, features=features)
    if kind == "iterable":
        source = source.to_iterable_dataset()
    keep = ["label", "labels"]
    ed.build(source, out=tmp_path / "out", keep_fields=keep, **SMALL)
    loaded = datasets.load_from_disk(tmp_path / "out")
    assert {name: loaded.features[name] for name in keep} == {n: features[n] for n in keep}
    assert loaded.features["label"].int2str(loaded[0]["label"]) == "yes"
    assert loaded["labels"][:] == given["labels"]


def test_a_kept_field_may_be_the_text(tmp_path):
    ds = ed.build([{"text": "é"}], out=tmp_path / "out", keep_fields=["text"], **SMALL)
    assert ds[0]["text"] == ds.decode(0) == "é"


def test_the_name_of_the_tokens_is_taken(tmp_path):
    with pytest.raises(ed.UsageError, match="input_ids"):
        ed.build(
            [{"text": "a", "input_ids": 1}], out=tmp_path / "o", keep_fields=["input_ids"], **SMALL
        )
