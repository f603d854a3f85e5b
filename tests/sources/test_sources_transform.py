"""Transforms of rows: what they get, what becomes of what they give, and what is said of it."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import json
import pickle
from collections import UserDict

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import SourceError
from easydata.sources import Fields, RowTransform, find_sources, parse_rows

ROWS = [
    {"id": 1, "body": "one", "tags": ["a"], "meta": {"k": 1.5}},
    {"id": 2, "body": "two", "tags": [], "meta": None},
    {"id": 3, "body": "drop", "tags": None, "meta": {"k": None}},
]


def clean(row):
    if row["body"] == "drop":
        return None
    return {**row, "text": row["body"].upper(), "twice": row["id"] * 2}


def spoil(row):
    """Changes whatever it was given."""
    row["tags"] = [*(row["tags"] or ()), "x"]
    row["text"] = row.pop("body")
    if row["meta"]:
        row["meta"]["k"] = 9.0
    return row


def write(path, rows=ROWS):
    kind = path.name.split(".", 1)[1]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


def sources_of(tmp_path):
    yield from find_sources(
        [write(tmp_path / f"rows.{kind}") for kind in ("jsonl", "json", "parquet", "arrow")]
    )
    yield from find_sources(
        [datasets.Dataset.from_list(ROWS), pa.Table.from_pylist(ROWS), copy.deepcopy(ROWS)]
    )


@pytest.fixture
def apply():
    """Apply a transform to all blocks of a source, read with all its fields."""

    def apply_transform(source, transform, block_bytes=20, **keep):
        fields = Fields(transform.text, keep, transform)
        assert fields.names is None
        with source.open(fields.names, block_bytes) as reader:
            blocks = list(reader)
        texts, bad, left_out = [], [], 0
        kept = {name: [] for name in keep}
        for block in blocks:
            rows = parse_rows(block, fields)
            assert len(rows.records) == len(rows.texts)
            texts += rows.texts
            left_out += rows.left_out
            bad += [f"{block.locate(one.record)}: {one.reason}" for one in rows.bad]
            for name, array in rows.kept.items():
                assert (array.type, len(array)) == (keep[name], len(rows.texts))
                kept[name] += array.to_pylist()
        return texts, kept, bad, left_out

    return apply_transform


def test_every_source_gives_the_same_rows(tmp_path, apply):
    for source in sources_of(tmp_path):
        found = apply(source, RowTransform(clean), twice=pa.int32(), tags=pa.list_(pa.string()))
        kept = {"twice": [2, 4], "tags": [["a"], []]}
        assert found == (["ONE", "TWO"], kept, [], 1), source.name


def test_transform_gets_whole_rows_in_order(tmp_path, apply):
    for source in sources_of(tmp_path):
        seen = []
        apply(source, RowTransform(lambda row: seen.append(row)))  # noqa: B023, PLW0108
        assert [list(row.items()) for row in seen] == [list(row.items()) for row in ROWS]


def test_transform_may_change_what_it_gets(tmp_path, apply):
    keep = {"tags": pa.list_(pa.string()), "meta": pa.struct([("k", pa.float64())])}
    for source in sources_of(tmp_path):
        with source.open(None, 1000) as reader:
            blocks = list(reader)
        for _ in range(2):
            rows = [
                parse_rows(block, Fields("text", keep, RowTransform(spoil))) for block in blocks
            ]
            texts = [text for one in rows for text in one.texts]
            tags = [value for one in rows for value in one.kept["tags"].to_pylist()]
            metas = [value for one in rows for value in one.kept["meta"].to_pylist()]
            assert texts == ["one", "two", "drop"]
            assert tags == [["a", "x"], ["x"], ["x"]]
            assert metas == [{"k": 9.0}, None, {"k": 9.0}]
    assert ROWS[0]["tags"] == ["a"]


def test_transform_may_return_one_object_again_and_again(tmp_path, apply):
    out = {"nested": {"list": [0]}, "array": np.zeros(1, np.int64)}

    def same(row):
        out["text"] = row["body"]
        out["nested"]["list"][0] = row["id"]
        out["array"][0] = row["id"]
        return out

    [source] = find_sources(write(tmp_path / "rows.jsonl"))
    nested = pa.struct([("list", pa.list_(pa.int64()))])
    found = apply(source, RowTransform(same), 1000, nested=nested, array=pa.list_(pa.int64()))
    assert found[0] == ["one", "two", "drop"]
    assert found[1]["nested"] == [{"list": [1]}, {"list": [2]}, {"list": [3]}]
    assert found[1]["array"] == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("transform", "texts"),
    [
        (RowTransform(rename={"body": "text"}), ["one", "two", "drop"]),
        (RowTransform(rename={"body": "doc", "id": "body"}, text="doc"), ["one", "two", "drop"]),
        (RowTransform(clean, {"text": "doc", "nothing": "x"}, text="doc"), ["ONE", "TWO"]),
        (RowTransform(lambda row: UserDict(text=row["body"])), ["one", "two", "drop"]),
    ],
)
def test_renaming(tmp_path, apply, transform, texts):
    [source] = find_sources(write(tmp_path / "rows.jsonl"))
    assert apply(source, transform)[0] == texts


def test_fields_may_swap_names():
    swap = RowTransform(rename={"a": "b", "b": "a"})
    assert swap({"a": 1, "b": 2, "c": 3}) == {"b": 1, "a": 2, "c": 3}


def test_either_of_two_fields_may_be_renamed(tmp_path, apply):
    path = write(tmp_path / "rows.jsonl", [{"a": "x"}, {"b": "y"}, {"a": "x", "b": "y"}])
    transform = RowTransform(rename={"a": "text", "b": "text"})
    texts, _, bad, _ = apply(find_sources(path)[0], transform)
    assert texts == ["x", "y"]
    assert bad == [
        "row 2 (line 3): renaming makes two fields 'text' of 'a', 'b'; "
        "remove one of them with a transform"
    ]


def fail(row):
    if row["id"] == 2:
        raise ValueError("no good")
    return {"text": row["body"]}


def test_transform_that_raises(tmp_path, apply):
    for source in sources_of(tmp_path):
        texts, _, bad, _ = apply(source, RowTransform(fail))
        assert texts == ["one", "drop"]
        assert [one.split(": ", 1)[1] for one in bad] == [
            "the transform fail raised ValueError: no good"
        ]
        assert bad[0].startswith("row 1")
    with source.open(None, 1000) as reader:
        [row] = parse_rows(next(iter(reader)), Fields(transform=RowTransform(fail))).bad
    assert isinstance(row.cause, ValueError)
    assert row.cause.args == ("no good",)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_fault_of_a_row_passes_through(tmp_path, apply, error):
    def interrupt(row):
        raise error

    [source] = find_sources(write(tmp_path / "rows.jsonl"))
    with pytest.raises(error):
        apply(source, RowTransform(interrupt))


class Shout:
    def __call__(self, row):
        raise KeyError(row["id"])

    def method(self, row):
        raise RuntimeError


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (Shout(), "the transform Shout raised KeyError: 1"),
        (Shout().method, "the transform Shout.method raised RuntimeError"),
        (functools.partial(fail, None), "the transform fail raised TypeError: fail() takes 1 "),
        (lambda row: row["body"], "the transform <lambda> returned 'one', not a dict of fields"),
        (lambda _: [("text", "a")], "the transform <lambda> returned [('text', 'a')], not a dict"),
        (
            lambda row: {"doc": row["body"], "n": 1},
            "after the transform <lambda> field 'text' is missing; the row has 'doc', 'n'. "
            "Pass text_field='doc' (--text-field doc)",
        ),
        (lambda _: {"text": 5}, "after the transform <lambda> field 'text' is 5, not text"),
        (lambda _: {"text": None}, "after the transform <lambda> field 'text' is None, not text"),
        (lambda _: {"text": b"a"}, "after the transform <lambda> field 'text' is b'a', not text"),
        (
            lambda _: {"text": "a\ud800"},
            "after the transform <lambda> field 'text' has the lone surrogate \\ud800 at "
            "character 1, which is no text",
        ),
        (
            lambda _: {"text": [{"role": "user"}]},
            "after the transform <lambda> field 'text' is [{'role': 'user'}], not text; "
            "a list of messages needs a tokenizer with a chat template",
        ),
    ],
)
def test_what_is_said_of_a_bad_row(tmp_path, apply, function, reason):
    [source] = find_sources(write(tmp_path / "rows.jsonl", ROWS[:1]))
    texts, _, [bad], _ = apply(source, RowTransform(function))
    assert texts == []
    assert bad.startswith(f"row 0 (line 1): {reason}")


def test_missing_field_after_renaming_only(tmp_path, apply):
    [source] = find_sources(write(tmp_path / "rows.jsonl", ROWS[:1]))
    [bad] = apply(source, RowTransform(rename={"body": "doc"}))[2]
    assert "after renaming field 'text' is missing; the row has 'id', 'doc'" in bad


def test_broken_records_are_reported_as_without_a_transform(tmp_path, apply, read):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n\n[1]\n{"text": "b"\n\xff\n{"text": "c"}')
    (tmp_path / "b.csv").write_bytes(b'text,n\na,1\nb\n\nc,"2\n')
    (tmp_path / "c.txt").write_bytes(b"a\n\xff\nc")
    for source in find_sources(tmp_path, text_rows="line"):
        plain = read(source)
        texts, _, bad, left_out = apply(source, RowTransform(lambda row: row))
        assert (texts, bad, left_out) == (plain.texts, plain.bad, 0)
        assert bad


def test_kept_values_must_fit_as_without_a_transform(tmp_path, apply):
    path = write(
        tmp_path / "rows.jsonl", [{"text": "a", "n": 1}, {"text": "b", "n": 1.5}, {"text": "c"}]
    )
    texts, kept, bad, _ = apply(find_sources(path)[0], RowTransform(dict), n=pa.int64())
    assert (texts, kept) == (["a", "c"], {"n": [1, None]})
    assert bad == ["row 1 (line 2): field 'n' is 1.5, not int64"]


def test_fields_of_csv_stay_texts_that_may_stand_for_numbers(tmp_path, apply):
    path = tmp_path / "rows.csv"
    path.write_text("text,n,flag,zip\na,1,true,007\nb,,False,1\nc,x,true,2\n")
    seen = []

    def double(row):
        seen.append(dict(row))
        return {
            **row,
            "more": None if row["n"] == "" else len(row["text"]) + 0.5,
            "day": "2020-01-02",
        }

    keep = {"n": pa.int64(), "flag": pa.bool_(), "zip": pa.string(), "more": pa.float64()}
    found = apply(find_sources(path)[0], RowTransform(double), 1000, **keep, day=pa.date32())
    assert seen[0] == {"text": "a", "n": "1", "flag": "true", "zip": "007"}
    assert found[1] == {
        "n": [1, None],
        "flag": [True, False],
        "zip": ["007", "1"],
        "more": [1.5, None],
        "day": [dt.date(2020, 1, 2)] * 2,
    }
    assert found[2] == ["row 2 (line 4): field 'n' is 'x', not int64"]
    mixed = RowTransform(lambda row: {**row, "n": row["n"] if row["n"] == "1" else 2.5})
    found = apply(find_sources(path)[0], mixed, 1000, n=pa.float64())
    assert found[1] == {"n": [1.0, 2.5, 2.5]}


@pytest.mark.parametrize("unit", ["file", "line", "paragraph"])
def test_rows_of_text_files(tmp_path, apply, unit):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    texts = {"file": ["one\ntwo\n"], "line": ["one", "two"], "paragraph": ["one\ntwo"]}[unit]
    [source] = find_sources(path, text_rows=unit)
    upper = [text.upper() for text in texts]
    for name in ("text", "body"):
        shout = RowTransform(lambda row, name=name: {name: row[name].upper()}, text=name)
        assert apply(source, shout)[0] == upper
    assert apply(source, RowTransform(dict, {"old": "text"}))[0] == texts


CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def render(messages):
    if not messages:
        raise IndexError
    return "|".join(f"{one['role']}:{one['content']}" for one in messages)


def test_messages_are_rendered_last(tmp_path, apply):
    rows = [{"chat": CHAT}, {"chat": "plain"}, {"chat": []}, {"chat": ["a"]}]
    path = write(tmp_path / "rows.jsonl", rows)
    transform = RowTransform(rename={"chat": "text"}, render=render)
    texts, _, bad, _ = apply(find_sources(path)[0], transform)
    assert texts == ["user:hi|assistant:ho", "plain"]
    assert bad == [
        "row 2 (line 3): rendering the messages of field 'text' raised IndexError",
        "row 3 (line 4): after renaming field 'text' is ['a'], not text",
    ]
    turned = RowTransform(lambda row: {"text": row["chat"][::-1]}, render=render)
    assert apply(find_sources([rows[0]])[0], turned)[0] == ["assistant:ho|user:hi"]
    table = pa.Table.from_pylist(rows[:1])
    assert apply(find_sources(table)[0], transform)[0] == ["user:hi|assistant:ho"]
    nothing = RowTransform(render=lambda _: None, text="chat")
    [bad] = apply(find_sources(rows[:1])[0], nothing)[2]
    assert bad == "row 0: rendering the messages of field 'chat' gave None, not text"
    assert RowTransform(render=render, text="chat")({"chat": tuple(CHAT), "n": 1}) == {
        "chat": "user:hi|assistant:ho",
        "n": 1,
    }


def test_messages_without_a_template(tmp_path, read):
    path = write(tmp_path / "rows.jsonl", [{"text": CHAT}])
    [bad] = read(find_sources(path)[0]).bad
    assert bad.endswith("not text; a list of messages needs a tokenizer with a chat template")
    source = find_sources(write(tmp_path / "rows.parquet", [{"text": CHAT}]))[0]
    with pytest.raises(SourceError, match="not text; a list of messages needs a tokenizer"):
        source.open(["text"], 10)


def test_without_a_transform_nothing_is_added(tmp_path):
    [source] = find_sources(write(tmp_path / "rows.parquet"))
    fields = Fields("body", {"id": pa.int64()})
    assert fields.names == ["body", "id"]
    with source.open(fields.names, 1000) as reader:
        [block] = reader
    assert block.batch.schema.names == ["body", "id"]
    rows = parse_rows(block, fields)
    assert (rows.texts, rows.left_out) == (["one", "two", "drop"], 0)


def test_transform_is_pickled_by_reference():
    fields = Fields("doc", {"n": pa.int64()}, RowTransform(clean, {"text": "doc"}, render, "doc"))
    assert pickle.loads(pickle.dumps(fields)) == fields
    assert pickle.loads(pickle.dumps(fields)).transform.function is clean


value = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5)


row = st.fixed_dictionaries({"text": st.text(max_size=5), "v": value})


@settings(max_examples=60)
@given(rows=st.lists(row, min_size=1, max_size=8))
def test_a_transform_that_changes_nothing_changes_nothing(rows):
    [source] = find_sources(rows)
    for kind in (pa.int64(), pa.bool_(), pa.string()):
        found = []
        for transform in (None, RowTransform(dict)):
            fields = Fields("text", {"v": kind}, transform)
            with source.open(fields.names, 1000) as reader:
                [block] = reader
            found.append(parse_rows(block, fields))
        plain, same = found
        assert (plain.texts, plain.bad) == (same.texts, same.bad)
        assert plain.records.tolist() == same.records.tolist()
        assert plain.kept["v"].equals(same.kept["v"])
