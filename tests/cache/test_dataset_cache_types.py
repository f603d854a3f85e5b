"""Types that DatasetCache is given and Arrow, Parquet or datasets cannot handle as they are."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset, Features, List, Value

import easydata as ed
from easydata.cache.dataset_cache import DatasetCache

CODECS = ["none", "zstd", "gzip"]


@pytest.mark.parametrize("codec", CODECS)
class TestFrames:
    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            (pl.String, ["a", None, "long" * 20]),
            (pl.List(pl.String), [["a", None], None, []]),
            (pl.Categorical, ["x", None, "y"]),
            (pl.Enum(["x", "y"]), ["x", None, "y"]),
            (pl.List(pl.Categorical), [["x", None], None, ["y"]]),
            (pl.Binary, [b"a", None, b""]),
            (pl.Struct({"s": pl.List(pl.String)}), [{"s": ["a", None]}, {"s": None}]),
            (pl.Array(pl.String, 2), [["a", None], None]),
        ],
        ids=str,
    )
    def test_polars(self, tmp_path: Path, codec: str, kind: Any, values: list[Any]) -> None:
        cache = DatasetCache(tmp_path, codec)
        cache.put("k", pl.DataFrame({"c": pl.Series(values, dtype=kind)}))
        found = cache.get("k")
        assert found["c"][:] == values
        taken = found.data.table["c"].take([1, 0])  # of views, Arrow cannot
        assert taken.to_pylist() == [values[1], values[0]]

    def test_features_that_are_views_are_kept(self, tmp_path: Path, codec: str) -> None:
        features = Features({"c": List(Value("string_view")), "d": Value("binary_view")})
        rows = {"c": [["a", None], None, ["b" * 50]], "d": [b"a", None, b"c" * 50]}
        cache, dataset = DatasetCache(tmp_path, codec), Dataset.from_dict(rows, features=features)
        for value in (dataset, dataset.data.table):
            cache.put("k", value)
            assert cache.get("k").features == features
            assert cache.get("k").to_dict() == rows


@pytest.mark.parametrize(
    "value", [pa.chunked_array([[1]]), pl.DataFrame({"a": pl.Series([1], dtype=pl.Int128)})]
)
def test_streams_that_are_no_tables(tmp_path: Path, value: object) -> None:
    with pytest.raises(ed.UsageError, match="Arrow cannot read this"):
        DatasetCache(tmp_path).put("k", value)


class TestParquet:
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (pa.timestamp("s"), datetime.datetime(2020, 1, 2, 3, 4, 5)),
            (pa.date64(), datetime.date(2020, 1, 2)),
            (pa.time32("s"), datetime.time(1, 2, 3)),
            (pa.list_(pa.timestamp("s")), [datetime.datetime(2020, 1, 2), None]),
            (pa.struct({"x": pa.date64()}), {"x": datetime.date(2020, 1, 2)}),
        ],
        ids=str,
    )
    def test_types_that_it_has_not_come_back(
        self, tmp_path: Path, kind: pa.DataType, value: Any
    ) -> None:
        table = pa.table({"a": pa.array([value, None], kind), "b": [1, 2]})
        found = []
        for codec in ("none", "gzip"):
            cache = DatasetCache(tmp_path / codec, codec)
            cache.put("k", table)
            found.append(cache.get("k"))
        assert found[0].features == found[1].features
        assert found[1].data.table["a"].type == kind
        assert found[1].data.table["a"].to_pylist() == [value, None]
        assert found[0]._fingerprint == found[1]._fingerprint

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (pa.array([2**62], pa.timestamp("s")), "column 'a' as timestamp.ms., which cannot"),
            (pa.array([[2**62]], pa.list_(pa.timestamp("s"))), "column 'a' as list"),
            (pa.array([5], pa.int64()).view(pa.date64()), "column 'a' as date32"),
            (pa.array([{}], pa.struct([])), "cannot hold these columns.*no child field"),
        ],
    )
    def test_what_it_cannot_hold_is_refused(
        self, tmp_path: Path, column: pa.Array, message: str
    ) -> None:
        cache = DatasetCache(tmp_path, "gzip")
        with pytest.raises(ed.UsageError, match=message):
            cache.put("k", pa.table({"a": column}))
        assert [item for item in tmp_path.iterdir() if item.is_dir()] == []
        DatasetCache(tmp_path, "zstd").put("k", pa.table({"a": column}))
        assert cache.get("k").data.table["a"].combine_chunks().equals(column)

    def test_categories_of_pandas(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path, "gzip")
        cache.put("k", pd.DataFrame({"c": pd.Categorical(["a", None, "a"])}))
        assert cache.get("k")["c"][:] == ["a", None, "a"]
