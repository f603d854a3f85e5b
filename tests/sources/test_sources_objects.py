"""Objects as input: iterables of dicts, datasets, Arrow tables."""

from __future__ import annotations

import datetime as dt
import decimal

import datasets
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

from easydata.errors import BadRowError, SourceError, UsageError
from easydata.sources import find_sources, infer_types

ROWS = [{"text": "a", "n": 1, "x": object()}, {"text": "b", "n": None}]


def gen():
    yield from ROWS


class Again:
    def __iter__(self):
        return gen()


@pytest.mark.parametrize("rows", [ROWS, tuple(ROWS), Again()])
def test_iterables_of_dicts(read, rows):
    [source] = find_sources(rows)
    assert (source.name, source.is_file) == (f"rows of {type(rows).__name__}", False)
    assert (source.nbytes, source.features, source.read_content_hash()) == (None, None, None)
    assert infer_types([source], "text", ["n"]) == {"n": pa.int64()}
    for block_bytes in (1, 1000):
        found = read(source, block_bytes=block_bytes, n=pa.int64())
        assert (found.texts, found.kept) == (["a", "b"], {"n": [1, None]})
        assert found.content_hash is None
    assert found.blocks[0].locate(1) == "row 1"
    assert found.bytes_read == found.blocks[0].nbytes


def test_iterator_is_peeked_and_then_read_once(read):
    [source] = find_sources(gen())
    assert source.name == "rows of generator"
    assert infer_types([source], "text", ["n"]) == {"n": pa.int64()}
    assert [block.num_records for block in source.peek(["text"], 1)] == [1]
    assert read(source, n=pa.int64()).texts == ["a", "b"]
    for again in (lambda: read(source), lambda: source.peek(["text"], 1)):
        with pytest.raises(
            SourceError, match="rows of generator: an iterator can be read only once"
        ):
            again()


def test_iterator_is_read_no_further_than_peeked():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield {"text": "a"}

    [source] = find_sources(endless())
    source.peek(["text"], 10)
    source.peek(["text"], 5)
    assert len(taken) == 10
    with source.open(["text"], 100) as reader:
        next(iter(reader))
    assert len(taken) < 30


def test_rich_values_of_rows(read):
    row = {
        "text": "a",
        "bytes": b"\x00\xff",
        "when": dt.datetime(2020, 1, 2, 3, 4, 5),
        "day": dt.date(2020, 1, 2),
        "clock": dt.time(1, 2, 3),
        "price": decimal.Decimal("1.50"),
        "array": np.array([1, 2], np.int8),
        "scalar": np.float32(1.5),
        "nested": ({"a": [b"x"]},),
    }
    [source] = find_sources([row])
    keep = [name for name in row if name != "text"]
    types = infer_types([source], "text", keep)
    assert types["bytes"] == pa.binary()
    assert types["array"] == pa.list_(pa.int64())
    found = read(source, **types)
    expected = {**row, "array": [1, 2], "scalar": 1.5, "nested": [{"a": [b"x"]}]}
    assert {name: values[0] for name, values in found.kept.items()} == {
        name: expected[name] for name in keep
    }


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("abc", "Row 1 of the rows of list is a str, not a dict"),
        ({1: "a"}, "Row 1 .* has the key 1, which is not a string"),
        ({"text": "a", "n": object()}, "Row 1 .*field 'n' holds a object, which cannot be kept"),
        ({"text": "a", "n": {"$easydata:bytes": 1}}, "easydata keeps such names for itself"),
        ({"text": "a", "n": {2: 1}}, "field 'n' has the key 2"),
    ],
)
def test_rows_that_cannot_be_read(read, row, what):
    [source] = find_sources([{"text": "a"}, row])
    with pytest.raises(BadRowError, match=what):
        read(source, n=pa.int64())


def test_bad_rows_of_an_iterable_are_located(read):
    found = read(find_sources([{"body": "a"}, {"text": "b"}, {"text": "\ud800"}])[0])
    assert found.texts == ["b"]
    assert found.bad[0].startswith("row 0: field 'text' is missing; the row has 'body'")
    assert found.bad[1].startswith("row 2: field 'text' has the lone surrogate")


def test_dataset(read):
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "n": [1, 2, 3], "x": [0, 0, 0]})
    data = data.cast_column("n", datasets.ClassLabel(names=["u", "v", "w", "z"]))
    [source] = find_sources(data.select([2, 0]).with_format("numpy"))
    assert (source.name, source.is_file, source.nbytes) == ("rows of Dataset", False, None)
    assert source.features["n"]["names"] == ["u", "v", "w", "z"]
    assert infer_types([source], "text", ["n"]) == {"n": pa.int64()}
    found = read(source, n=pa.int64(), block_bytes=1)
    assert (found.texts, found.kept) == (["c", "a"], {"n": [3, 1]})
    assert found.content_hash == source.read_content_hash()
    assert source.read_content_hash() != find_sources(data)[0].read_content_hash()
    with pytest.raises(SourceError, match="no column 'body'; it has 'text', 'n', 'x'"):
        read(source, "body")


def test_iterable_dataset(read):
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "n": [1, 2]})
    [source] = find_sources(data.to_iterable_dataset().with_format("numpy"))
    assert source.name == "rows of IterableDataset"
    assert source.features["n"] == {"dtype": "int64", "_type": "Value"}
    for _ in range(2):
        found = read(source, n=pa.int64())
        assert (found.texts, found.kept) == (["a", "b"], {"n": [1, 2]})
    stream = datasets.IterableDataset.from_generator(lambda: iter([{"text": "z"}]))
    [source] = find_sources(stream)
    assert (source.features, read(source).texts) == (None, ["z"])


def test_datasets_that_must_be_changed_first():
    data = datasets.Dataset.from_dict({"text": ["a"]})
    splits = datasets.DatasetDict({"train": data, "test": data})
    for inputs in (splits, [splits]):
        with pytest.raises(UsageError, match=r"holds the splits 'train', 'test'\. Choose one"):
            find_sources(inputs)
    with pytest.raises(UsageError, match="transform"):
        find_sources(data.with_transform(lambda rows: rows))


@pytest.mark.parametrize(
    "make",
    [
        lambda table: table,
        lambda table: table.to_batches()[0],
        lambda table: table.to_pandas(),
        polars.from_arrow,
    ],
)
def test_arrow_objects(read, make):
    [source] = find_sources(make(pa.table({"text": ["a", None], "n": [1, 2]})))
    assert infer_types([source], "text", ["n"]) == {"n": pa.int64()}
    for _ in range(2):
        found = read(source, n=pa.int64())
        assert (found.texts, found.kept) == (["a"], {"n": [1]})
        assert found.bad == ["row 1: field 'text' is null, not text"]
    assert (source.is_file, source.read_content_hash()) == (False, None)


def test_record_batch_reader_is_read_once(read):
    table = pa.table({"text": ["a", "b", "c"], "n": [1, 2, 3]})
    [source] = find_sources(pa.RecordBatchReader.from_batches(table.schema, table.to_batches(1)))
    assert infer_types([source], "text", ["n"]) == {"n": pa.int64()}
    with pytest.raises(SourceError, match="no column 'body'"):
        read(source, "body")
    assert read(source).texts == ["a", "b", "c"]
    with pytest.raises(SourceError, match="only once"):
        read(source)


def test_several_inputs_of_different_kinds(tmp_path, read):
    path = tmp_path / "a.txt"
    path.write_text("a")
    frame = pd.DataFrame({"text": ["b"]})
    data = datasets.Dataset.from_dict({"text": ["c"]})
    sources = find_sources([path, frame, data, [{"text": "d"}]])
    assert [read(source).texts for source in sources] == [["a"], ["b"], ["c"], ["d"]]
