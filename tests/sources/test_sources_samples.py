"""What the first rows say after a transform: types, features, and whether texts are messages."""

from __future__ import annotations

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easydata.errors import SourceError
from easydata.sources import (
    Fields,
    RowTransform,
    find_sources,
    infer_types,
    kept_features,
    sample_text_kind,
)

CHAT = [{"role": "user", "content": "hi"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path):
    kinds = {"n": pa.int16(), "x": pa.float32(), "when": pa.timestamp("ms"), "none": pa.int8()}
    columns = {
        "n": [1, 2],
        "x": [0.1, float("nan")],
        "when": [0, None],
        "none": [None, None],
    }
    arrays = {name: pa.array(columns[name], kind) for name, kind in kinds.items()}
    pq.write_table(pa.table({"text": ["a", "b"], **arrays}), tmp_path / "t.parquet")
    return find_sources(tmp_path / "t.parquet"), kinds


@pytest.mark.parametrize("transform", [RowTransform(dict), RowTransform(lambda row: row)])
def test_fields_that_pass_keep_their_types(table, transform):
    sources, kinds = table
    assert infer_types(sources, "text", list(kinds), transform=transform) == kinds


def test_renamed_fields_keep_their_types(table):
    sources, kinds = table
    rename = {"n": "number", "x": "n", "number": "m"}
    found = infer_types(sources, "text", ["number", "n"], transform=RowTransform(rename=rename))
    assert found == {"number": kinds["n"], "n": kinds["x"]}


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda row: {"text": "a", "n": row["n"] * 2}, pa.int64()),
        (lambda row: {"text": "a", "n": float(row["n"])}, pa.float64()),
        (lambda row: {"text": "a", "n": str(row["n"])}, pa.string()),
        (lambda row: {"text": "a", "n": [row["n"]]}, pa.list_(pa.int64())),
        (lambda row: {"text": "a", "n": row["n"] == 1}, pa.bool_()),
        # One changed value in the sample is enough.
        (lambda row: {"text": "a", "n": min(row["n"], 1)}, pa.int64()),
        (lambda row: {"text": "a", "n": None}, pa.string()),
    ],
)
def test_new_values_are_typed_as_they_are(table, function, kind):
    sources, _ = table
    assert infer_types(sources, "text", ["n"], transform=RowTransform(function)) == {"n": kind}


def test_a_changed_dict_does_not_look_unchanged(tmp_path):
    pq.write_table(
        pa.table({"text": ["a"], "l": pa.array([[1]], pa.list_(pa.int8()))}), tmp_path / "t.parquet"
    )

    def change(row):
        row["l"].append(1000)
        return row

    sources = find_sources(tmp_path / "t.parquet")
    types = infer_types(sources, "text", ["l"], transform=RowTransform(change))
    assert types == {"l": pa.list_(pa.int64())}


def test_types_of_csv_fields(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,n,zip,m\na,1,7,1\nb,2,8,2\n")
    transform = RowTransform(lambda row: {**row, "zip": "0" + row["zip"], "m": int(row["m"]) / 2})
    found = infer_types(find_sources(path), "text", ["n", "zip", "m"], transform=transform)
    assert found == {"n": pa.int64(), "zip": pa.string(), "m": pa.float64()}
    padded = RowTransform(lambda row: {"text": "a", "n": row["n"] + "0"})
    assert infer_types(find_sources(path), "text", ["n"], transform=padded) == {"n": pa.string()}
    found = infer_types(find_sources(path), "t", ["k"], transform=RowTransform(rename={"n": "k"}))
    assert found == {"k": pa.int64()}


def test_types_agree_over_sources(table, tmp_path):
    sources, _ = table
    more = find_sources(write(tmp_path / "m.jsonl", [{"text": "c", "n": 1.5}]))
    transform = RowTransform(lambda row: {**row, "m": len(row["text"])})
    found = infer_types([*sources, *more], "text", ["n", "m"], transform=transform)
    assert found == {"n": pa.float64(), "m": pa.int64()}
    clash = RowTransform(lambda row: {"text": "a", "n": "b" if row["text"] == "c" else row["n"]})
    with pytest.raises(SourceError, match=r"is int16 in .*t\.parquet and string in .*m\.jsonl"):
        infer_types([*sources, *more], "text", ["n"], transform=clash)
    late = RowTransform(lambda row: {"text": "a", "n": "b"} if row["text"] == "c" else None)
    assert infer_types([*sources, *more], "text", ["n"], transform=late) == {"n": pa.string()}
    given = infer_types([*sources, *more], "text", ["n"], {"n": "string"}, transform=clash)
    assert given == {"n": pa.string()}


def test_rows_of_text_files_get_fields_from_a_transform(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    transform = RowTransform(lambda row: {**row, "n": len(row["text"])})
    sources = find_sources(tmp_path / "a.txt")
    assert infer_types(sources, "text", ["n"], transform=transform) == {"n": pa.int64()}


def test_rows_that_fail_are_passed_over_in_the_sample(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b", "n": 1}])
    sources = find_sources(path)
    transform = RowTransform(lambda row: {"text": row["text"], "n": row["n"]})
    assert infer_types(sources, "text", ["n"], transform=transform) == {"n": pa.int64()}
    with pytest.raises(SourceError, match=r"rows have 'text', 'n'\. Check keep_fields"):
        infer_types(sources, "text", ["m"], transform=transform)
    broken = RowTransform(lambda row: row["m"])
    with pytest.raises(SourceError) as caught:
        infer_types(sources, "text", ["n"], transform=broken)
    assert str(caught.value) == (
        "The type of the field 'n' is not known, because no sampled row came through the "
        f"transform: {path}, row 0 (line 1): the transform <lambda> raised KeyError: 'm'. "
        "Mend it, or give its type with schema={'n': …}."
    )
    nothing = RowTransform(lambda _: None)
    with pytest.raises(SourceError, match=r"the rows \(2 were left out\) have no fields"):
        infer_types(sources, "text", ["n"], transform=nothing)
    assert infer_types(sources, "text", ["n"], {"n": "int8"}, nothing) == {"n": pa.int8()}
    assert infer_types(sources, "text", [], transform=broken) == {}


@pytest.fixture
def labelled(tmp_path):
    data = datasets.Dataset.from_dict({"body": ["a", "b"], "y": [0, 1], "z": [1, 0]})
    for name in ("y", "z"):
        data = data.cast_column(name, datasets.ClassLabel(names=["no", "yes"]))
    data.to_parquet(tmp_path / "l.parquet")
    plain = write(tmp_path / "p.jsonl", [{"body": "c", "y": 0, "z": 0}])
    return [
        find_sources([plain, tmp_path / "l.parquet"]),
        find_sources(data),
        find_sources(data.to_iterable_dataset()),
    ]


def test_features_of_kept_fields(labelled):
    label = {"names": ["no", "yes"], "_type": "ClassLabel"}
    keep = {"y": pa.int64(), "z": pa.int64(), "new": pa.int64()}
    swap = RowTransform(lambda row: {**row, "y": 1 - row["y"], "new": 1}, {"body": "text"})
    moved = RowTransform(rename={"y": "new", "body": "text"})
    for sources in labelled:
        assert kept_features(sources, {"y": pa.int64()}) == {"y": label}
        assert kept_features(sources, keep, swap) == {"z": label}
        assert kept_features(sources, keep, moved) == {"z": label, "new": label}
        assert kept_features(sources, keep, RowTransform(lambda _: None)) == {}
        assert kept_features(sources, {}, swap) == {}
    tables = labelled[:2]
    for sources in tables:
        assert kept_features(sources, {"z": pa.float64()}, moved) == {}
    assert kept_features(find_sources([{"text": "a"}]), keep) == {}


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([{"text": "a"}], "text"),
        ([{"text": CHAT}], "messages"),
        ([{"text": "a"}, {"text": CHAT}], "messages"),
        ([{"text": None}, {"n": 1}, {"text": CHAT}], "messages"),
        ([{"text": 5}, {"text": ["a"]}], "text"),
        ([{"n": 1}], "text"),
    ],
)
def test_kind_of_the_text_field(tmp_path, rows, kind):
    path = write(tmp_path / "a.jsonl", rows)
    empty = write(tmp_path / "empty.jsonl", [])
    iterated = [{**row, "odd": object()} for row in rows]
    for given in ([empty, path], [iterated], [iter(iterated)]):
        assert sample_text_kind(find_sources(given), Fields()) == kind


def test_kind_of_the_text_field_of_tables(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "chat": [CHAT]}), tmp_path / "a.parquet")
    sources = find_sources(tmp_path / "a.parquet")
    assert sample_text_kind(sources, Fields("text")) == "text"
    assert sample_text_kind(sources, Fields("chat")) == "messages"
    for transform in (
        RowTransform(lambda row: {"new": row["chat"]}, text="new"),
        RowTransform(rename={"chat": "new"}, text="new", render=lambda _: "rendered"),
    ):
        assert sample_text_kind(sources, Fields("new", transform=transform)) == "messages"
    turned = RowTransform(lambda row: {"chat": row["text"]}, text="chat")
    assert sample_text_kind(sources, Fields("chat", transform=turned)) == "text"


def test_kind_comes_from_the_first_rows_of_the_first_good_source(tmp_path):
    rows = [{"text": "a"}] * 100 + [{"text": CHAT}]
    first = write(tmp_path / "a.jsonl", rows)
    second = write(tmp_path / "b.jsonl", [{"text": CHAT}])
    assert sample_text_kind(find_sources([first, second]), Fields()) == "text"
    assert sample_text_kind(find_sources([second, first]), Fields()) == "messages"
