from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from easydata.errors import UsageError
from easydata.format.features import HUGGINGFACE_KEY, features_of, huggingface_metadata

_INTEGERS = [
    f() for f in (pa.int8, pa.int16, pa.int32, pa.int64, pa.uint8, pa.uint16, pa.uint32, pa.uint64)
]
_MOMENTS = [
    pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "+01:00")
]
_FLAT = [
    pa.null(),
    pa.bool_(),
    *_INTEGERS,
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.date32(),
    pa.date64(),
    *_MOMENTS,
    *[pa.time32(unit) for unit in ("s", "ms")],
    *[pa.time64(unit) for unit in ("us", "ns")],
    *[pa.duration(unit) for unit in ("s", "ms", "us", "ns")],
    pa.decimal128(12, 2),
    pa.decimal256(50, 3),
]
_NESTED = [
    pa.list_(pa.uint16()),
    pa.large_list(pa.int64()),
    pa.list_(pa.uint16(), 4),
    pa.list_(pa.list_(pa.string())),
    pa.large_list(pa.list_(pa.float32(), 2)),
    pa.struct({"a": pa.int8(), "b": pa.list_(pa.string())}),
    pa.list_(pa.struct({"b": pa.bool_(), "a": pa.struct({"c": pa.date32()})})),
]
_ODD = [
    pa.list_view(pa.int8()),
    pa.large_list_view(pa.int8()),
    pa.map_(pa.string(), pa.int8()),
    pa.dictionary(pa.int8(), pa.string()),
    pa.month_day_nano_interval(),
    pa.run_end_encoded(pa.int32(), pa.string()),
    pa.sparse_union([pa.field("a", pa.int8())]),
    pa.decimal32(5, 1),
    pa.decimal64(12, 1),
    pa.binary(3),
    pa.struct([]),
]


def as_datasets_writes(schema: pa.Schema) -> dict[str, Any] | None:
    """The features that `datasets` puts into a file of this schema, None if it refuses it."""
    try:
        features = datasets.Features.from_arrow_schema(schema)
        written = features.arrow_schema
        if written.field(0).type != schema.field(0).type:
            return None
        return json.loads(written.metadata[HUGGINGFACE_KEY])
    except (ValueError, KeyError, TypeError, NotImplementedError, AttributeError):
        return None


@pytest.mark.parametrize("kind", [*_FLAT, *_NESTED], ids=str)
def test_same_json_as_datasets(kind: pa.DataType) -> None:
    schema = pa.schema({"column": kind, "input_ids": pa.list_(pa.uint16())})
    ours = json.loads(huggingface_metadata(schema, "0123456789abcdef"))
    theirs = as_datasets_writes(schema)
    assert theirs is not None
    # As text, because the order of columns and of struct fields counts.
    assert json.dumps(ours["info"]) == json.dumps(theirs["info"])
    assert ours["fingerprint"] == "0123456789abcdef"


@pytest.mark.parametrize("kind", _ODD, ids=str)
def test_refused_exactly_if_datasets_refuses(kind: pa.DataType) -> None:
    schema = pa.schema({"column": kind})
    theirs = as_datasets_writes(schema)
    if theirs is None:
        with pytest.raises(UsageError, match="'column'"):
            huggingface_metadata(schema, "0")
    else:
        assert json.loads(huggingface_metadata(schema, "0"))["info"] == theirs["info"]


@pytest.mark.parametrize("kind", _ODD[:7], ids=str)
def test_refused_inside_of_others_too(kind: pa.DataType) -> None:
    with pytest.raises(UsageError, match=r"'a'.*schema="):
        features_of(pa.list_(pa.struct({"inner": kind})), "a")


def test_a_file_that_datasets_wrote(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"input_ids": [[1, 2], [3]], "name": ["a", None], "meta": [{"x": 1.5}, {"x": None}]}
    )
    rows.save_to_disk(tmp_path / "saved")
    with pa.memory_map(str(tmp_path / "saved" / "data-00000-of-00001.arrow")) as file:
        schema = pa.ipc.open_stream(file).schema
    theirs = json.loads(schema.metadata[HUGGINGFACE_KEY])
    assert (
        json.loads(huggingface_metadata(schema, "0"))["info"]["features"]
        == (theirs["info"]["features"])
    )


def test_richer_features_win() -> None:
    label = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])}).to_dict()
    schema = pa.schema({"input_ids": pa.list_(pa.uint16()), "label": pa.int64()})
    text = huggingface_metadata(schema, "0", {**label, "dropped": {"_type": "Value"}})
    read = datasets.Features.from_arrow_schema(schema.with_metadata({HUGGINGFACE_KEY: text}))
    assert read["label"] == datasets.ClassLabel(names=["no", "yes"])
    assert list(read) == ["input_ids", "label"]
