"""DataFrames: those that Arrow keeps come back equal, others are refused."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from easydata.cache.values import decode, encode, freeze
from easydata.errors import UnsupportedValueError

INDEX = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", None])
KEPT: dict[str, Any] = {
    "numbers": pd.DataFrame({"i": np.array([1, 2], "i2"), "f": [0.5, np.nan], "b": [True, False]}),
    "strings": pd.DataFrame({"s": ["x", None, "é"]}),
    "range index": pd.DataFrame({"a": [1, 2, 3]}, index=pd.RangeIndex(3, 9, 2, name="r")),
    "int index": pd.DataFrame({"a": [1, 2, 3]}, index=[5, 1, 5]),
    "multi-index": pd.DataFrame({"a": [1, 2]}, index=INDEX),
    "multi-columns": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", "y")])
    ),
    "int columns": pd.DataFrame(np.zeros((2, 3), np.float32)),
    "named columns": pd.DataFrame([[1]], columns=pd.Index(["a"], name="n")),
    "categories": pd.DataFrame(
        {"c": pd.Categorical(["b", "a", None], categories=["b", "a", "z"], ordered=True)}
    ),
    "times": pd.DataFrame({"t": pd.to_datetime(["2024-01-01", None]).tz_localize("Europe/Berlin")}),
    "time index": pd.DataFrame({"a": [1, 2]}, index=pd.to_datetime(["2024-01-01", "2024-01-05"])),
    "nullable": pd.DataFrame(
        {"n": pd.array([1, None], "Int16"), "b": pd.array([True, None], "boolean")}
    ),
    "deltas": pd.DataFrame({"d": pd.to_timedelta([1, 2], unit="s")}),
    "decimals": pd.DataFrame({"d": [decimal.Decimal("1.50"), decimal.Decimal("2.25")]}),
    "dates": pd.DataFrame({"d": [datetime.date(2024, 1, 1), None]}),
    "bytes": pd.DataFrame({"b": pd.Series([b"x", b"\0"], dtype=object)}),
    "empty": pd.DataFrame(),
    "no rows": pd.DataFrame({"a": np.zeros(0, "u1")}),
    "no columns": pd.DataFrame(index=[3, 4]),
}
with_attrs = pd.DataFrame({"a": [1]})
with_attrs.attrs["source"] = "x"
KEPT["attrs"] = with_attrs

sliced = pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2024-01-01", periods=2, freq="D"))
odd_attrs = pd.DataFrame({"a": [1]})
odd_attrs.attrs["where"] = (1, 2)
no_duplicates = pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False)
REFUSED: dict[str, Any] = {
    "mixed": pd.DataFrame({"a": [1, "x"]}),
    "ints as objects": pd.DataFrame({"a": pd.Series([1, 2], dtype=object)}),
    "lists": pd.DataFrame({"a": [[1], [2, 3]]}),
    "dicts": pd.DataFrame({"a": [{"x": 1}, {}]}),
    "frequency": sliced,
    "tuple in attrs": odd_attrs,
    "flags": no_duplicates,
    "objects": pd.DataFrame({"a": [object()]}),
    "complex": pd.DataFrame({"a": [1j]}),
    "duplicate columns": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "mixed labels": pd.DataFrame([[1, 2]], columns=["a", 1]),
    "sparse": pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1])}),
    "decimals of two scales": pd.DataFrame(
        {"d": [decimal.Decimal("1.5"), decimal.Decimal("2.25")]}
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    frame = KEPT[name]
    for value, get in [
        (frame, lambda v: v),
        ({"f": frame}, lambda v: v["f"]),
        ([frame], lambda v: v[0]),
    ]:
        encoded = encode(value)
        columns = [memoryview(column.data) for column in encoded.columns]
        for made in (decode(encoded.recipe, columns), freeze(value).thaw()):
            back = get(made)
            pd.testing.assert_frame_equal(back, frame, check_index_type="exact")
            assert back.attrs == frame.attrs
            assert list(map(type, back.columns)) == list(map(type, frame.columns))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    for store in (encode, freeze):
        with pytest.raises(
            UnsupportedValueError, match=r"(?s)^value\['f'\] (is a DataFrame|has col)"
        ):
            store({"f": REFUSED[name]})


def test_other_pandas_objects() -> None:
    for value in (pd.Series([1]), pd.Index([1]), pd.Timestamp("2024"), pd.NA, pd.NaT):
        with pytest.raises(UnsupportedValueError, match=r"^value\[0\] is a pandas"):
            encode([value])


def test_a_decoded_frame_can_be_changed_alone() -> None:
    encoded = encode(pd.DataFrame({"a": [1.5, 2.5]}))
    columns = [memoryview(column.data) for column in encoded.columns]
    first = decode(encoded.recipe, columns)
    first.loc[0, "a"] = 9
    assert decode(encoded.recipe, columns)["a"].tolist() == [1.5, 2.5]
