"""The fingerprint of a cached dataset: it follows from rows and features, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets import writing
from easydata.cache.datasets.content import ContentHasher

KIND = pa.struct(
    {
        "n": pa.int16(),
        "t": pa.string(),
        "u": pa.large_string(),
        "v": pa.string_view(),
        "f": pa.bool_(),
        "l": pa.list_(pa.struct({"x": pa.float32(), "y": pa.list_(pa.binary())})),
        "g": pa.list_(pa.int8(), 2),
        "w": pa.large_list(pa.int64()),
        "d": pa.decimal128(5, 1),
        "z": pa.null(),
    }
)
TEXTS = st.none() | st.text(max_size=3)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.integers(-5, 5),
            "t": TEXTS,
            "u": TEXTS,
            "v": TEXTS,
            "f": st.none() | st.booleans(),
            "l": st.none()
            | st.lists(
                st.none()
                | st.fixed_dictionaries(
                    {
                        "x": st.none() | st.sampled_from([0.5, 1.5]),
                        "y": st.none() | st.lists(st.none() | st.binary(max_size=2), max_size=2),
                    }
                ),
                max_size=3,
            ),
            "g": st.none() | st.lists(st.none() | st.integers(-2, 2), min_size=2, max_size=2),
            "w": st.none() | st.lists(st.none() | st.integers(-2, 2), max_size=2),
            "d": st.none(),
            "z": st.none(),
        }
    ),
    max_size=6,
)


def batch_of(rows: list[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array(rows, KIND))


def fingerprint(batches: list[pa.RecordBatch], features: dict[str, Any] | None = None) -> str:
    hasher = ContentHasher(features or {})
    for batch in batches:
        hasher.update(batch)
    return hasher.fingerprint()


@settings(max_examples=40)
@given(ROWS, st.integers(0, 6), st.integers(0, 6))
def test_it_does_not_depend_on_batches_and_buffers(rows: list[Any], a: int, b: int) -> None:
    whole = batch_of(rows)
    expected = fingerprint([whole])
    low, high = sorted((a, b))
    assert fingerprint([whole[:low], whole[low:high], whole[high:]]) == expected
    # As slices of something longer, whose buffers hold other values around and under nulls.
    padded = batch_of([*rows[::-1], *rows, *rows])
    assert fingerprint([padded.slice(len(rows), len(rows))]) == expected


@settings(max_examples=40)
@given(ROWS, ROWS)
def test_other_rows_have_another(one: list[Any], other: list[Any]) -> None:
    same = batch_of(one).to_pylist() == batch_of(other).to_pylist()
    assert (fingerprint([batch_of(one)]) == fingerprint([batch_of(other)])) == same


def test_what_lies_under_a_null_does_not_count() -> None:
    mask = pa.py_buffer(b"\x05")  # the second of three is null
    offsets = pa.py_buffer(b"".join(i.to_bytes(4, "little") for i in (0, 1, 2, 3)))
    found = set()
    for hidden in (7, 8):
        values = pa.py_buffer(bytes([1, hidden, 3]))
        numbers = pa.Array.from_buffers(pa.int8(), 3, [mask, values])
        texts = pa.Array.from_buffers(pa.binary(), 3, [mask, offsets, values])
        child = pa.Array.from_buffers(pa.int8(), 3, [None, values])
        lists = pa.Array.from_buffers(pa.list_(pa.int8()), 3, [mask, offsets], children=[child])
        struct = pa.Array.from_buffers(pa.struct({"a": pa.int8()}), 3, [mask], children=[child])
        found.add(fingerprint([pa.record_batch([numbers, texts, lists, struct], names="abcd")]))
    assert len(found) == 1


def test_features_count() -> None:
    batch = pa.record_batch({"a": [1]})
    assert fingerprint([batch], {"a": {"_type": "Value"}}) != fingerprint([batch])


def test_it_is_the_same_in_every_release() -> None:
    batch = batch_of(
        [
            {"n": 1, "t": "a", "l": [{"x": 0.5, "y": [b"q", None]}], "g": [1, None], "f": True},
            {"n": None, "v": "b", "u": "c", "w": [5], "l": None},
        ]
    )
    assert fingerprint([batch], {"a": 1}) == "1dade56afad83ccb"


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_neither_codec_nor_way_nor_cut_matters(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table(
        {"a": list(range(3000)), "b": [str(i) if i % 7 else None for i in range(3000)]}
    )
    cache = DatasetCache(tmp_path)
    cache.put("k", table)
    expected = cache.get("k")._fingerprint
    monkeypatch.setattr(writing, "BATCH_BYTES", 5000)
    monkeypatch.setattr(writing, "SHARD_BYTES", 9000)
    other = DatasetCache(tmp_path / "other", codec)
    dataset = datasets.Dataset(table)
    for value in (
        dataset,
        dataset.select(range(2999, -1, -1)).select(range(2999, -1, -1)),
        dataset.to_iterable_dataset(),
        datasets.IterableDataset.from_generator(lambda: iter(table.to_pylist())),
        iter(table.to_batches(max_chunksize=100)),
    ):
        other.put("k", value)
        assert other.get("k")._fingerprint == expected
    assert len([*(tmp_path / "other").rglob("data-*")]) > 2
    other.put("k", table[:2999])
    assert other.get("k")._fingerprint != expected
