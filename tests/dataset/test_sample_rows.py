"""Rows of samples, and of what is stored beside them, where they lie; values that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import easydata as ed
from easydata.dataset._decode_ahead import OpenBatch
from easydata.errors import CorruptShardError
from easydata.format.ledger import Ledger, ShardEntry
from easydata.loader.rows import fill_rows
from easydata.loader.stored_samples import StoredSamples
from tests.dataset.counting import batches_given_to

SEQ_LEN = 4
ROWS = 10


def numbers(first: int, dtype: Any) -> list[list[int]]:
    return (first + np.arange(ROWS * SEQ_LEN, dtype=dtype).reshape(ROWS, SEQ_LEN)).tolist()


def lists(values: list[Any], kind: Any) -> pa.Array:
    return pa.array(values, pa.list_(kind, SEQ_LEN))


def stored(
    folder: Path, batches: list[pa.RecordBatch], *, compression: str = "none", written: str = ""
) -> ed.TokenDataset:
    """A dataset of these batches as they are, without checksums."""
    schema = batches[0].schema
    codec = None if (written or compression) == "none" else written or compression
    path = folder / "data.arrow"
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(str(path), schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    places = []
    with pa.memory_map(str(path)) as file:
        pa.ipc.read_schema(file)
        for batch in batches:
            start = file.tell()
            pa.ipc.read_message(file)
            tokens = len(batch["input_ids"].values)
            places.append((start, file.tell() - start, batch.num_rows, tokens))
    metadata = {"token_column": "input_ids", "shard_format": "ipc", "compression": compression}
    shard = ShardEntry(
        path.name, path.stat().st_size, np.array(places, np.int64), np.empty(0, np.uint64)
    )
    ledger = Ledger.build(schema, metadata, shards=[shard])
    return ed.TokenDataset(folder, ledger, verify="lazy", cache_bytes=1 << 20)


def sample_batches(count: int = 3) -> list[pa.RecordBatch]:
    return [
        pa.record_batch(
            {
                "input_ids": lists(numbers(100 * i, np.uint16), pa.uint16()),
                "segment_ids": lists(numbers(1000 * i, np.int32), pa.int32()),
                "name": pa.array([f"row {i}"] * ROWS),
            }
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_row_of_every_column(tmp_path: Path, compression: str) -> None:
    dataset = stored(tmp_path, sample_batches(), compression=compression)
    samples = np.random.default_rng(0).permutation(3 * ROWS)
    expected = dataset.take(samples)
    for dtype in ("int64", "int32", "uint64", "uint8"):
        found = StoredSamples(dataset).read(samples.astype(dtype))
        for name, kind in (("input_ids", "uint16"), ("segment_ids", "int32")):
            assert found[name].dtype == kind
            assert found[name].tolist() == expected[name].to_pylist()


def test_mapped_columns_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = stored(tmp_path, sample_batches())
    samples = StoredSamples(dataset)
    opened = batches_given_to("open_batch", monkeypatch)
    some = samples.read(np.array([1, ROWS + 1]))
    assert sorted(opened) == [0, 0, 1, 1]  # for either column
    again = samples.read(np.array([1, ROWS + 1, 2 * ROWS]))
    assert sorted(opened[4:]) == [2, 2]
    assert again["segment_ids"][:2].tolist() == some["segment_ids"].tolist()
    everything = samples.read(np.arange(3 * ROWS))
    assert len(opened) == 6
    first, second = (batch["segment_ids"].values for batch in sample_batches(2))
    flat = everything["segment_ids"].ravel().tolist()
    assert flat[: 2 * ROWS * SEQ_LEN] == [*first.to_pylist(), *second.to_pylist()]


@pytest.mark.parametrize("column", ["input_ids", "segment_ids"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("missing", ["row", "item"])
def test_missing_values_are_refused(
    tmp_path: Path, column: str, compression: str, missing: str
) -> None:
    batches = sample_batches()
    values = batches[1][column].to_pylist()
    values[3] = None if missing == "row" else [7, None, 8, 9]
    place = batches[1].schema.get_field_index(column)
    kind = batches[1][column].type.value_type
    batches[1] = batches[1].set_column(place, batches[1].schema[place], lists(values, kind))
    dataset = stored(tmp_path, batches, compression=compression)
    samples = StoredSamples(dataset)
    for _ in range(2):
        with pytest.raises(CorruptShardError, match=f"in batch 1: its column '{column}' has miss"):
            samples.read(np.array([0, ROWS]))
    whole = samples.read(np.array([9, 2 * ROWS]))
    assert whole[column].tolist() == dataset.take([9, 2 * ROWS])[column].to_pylist()


def test_documents_with_missing_rows(tmp_path: Path) -> None:
    """A row that is missing has no tokens; where it hides some, they are no part of a document."""
    offsets, tokens = np.array([0, 2, 2, 5], np.int32), np.arange(5, dtype=np.uint16)
    found = []
    for valid in (0b101, 0b011):
        made = pa.Array.from_buffers(
            pa.list_(pa.uint16()),
            3,
            [pa.py_buffer(bytes([valid])), pa.py_buffer(offsets)],
            children=[pa.array(tokens)],
        )
        folder = tmp_path / str(valid)
        folder.mkdir()
        found.append(stored(folder, [pa.record_batch({"input_ids": made})]))
    plain, hiding = found
    assert plain.tokens(0, 5).tolist() == tokens.tolist()
    assert plain.lengths().tolist() == [2, 0, 3]
    with pytest.raises(CorruptShardError, match="in batch 0: its column 'input_ids' has missing"):
        hiding.tokens(0, 5)


def test_what_is_not_in_the_map_is_never_taken_for_it(tmp_path: Path) -> None:
    """Addresses in the map are kept for good, so none may be of what was decoded."""
    dataset = stored(tmp_path, sample_batches(), written="zstd")
    with pytest.raises(CorruptShardError, match="compressed, but the ledger says that it is not"):
        dataset.locate_samples("segment_ids", np.array([0]))
    # A writer may leave some columns of a compressed batch as they are.
    dataset = stored(tmp_path, sample_batches())
    dataset.locate_samples("input_ids", np.array([0]))
    dataset._shards._open[0] = OpenBatch(sample_batches()[0], "input_ids")
    with pytest.raises(CorruptShardError, match="compressed, but the ledger says that it is not"):
        dataset.locate_samples("segment_ids", np.array([0]))


def test_rows_outlive_the_dataset(tmp_path: Path) -> None:
    for compression in ("none", "zstd"):
        dataset = stored(tmp_path, sample_batches(), compression=compression)
        pieces = dataset.locate_samples("segment_ids", np.array([3, 25]))
        rows = fill_rows(
            pieces, None, num_items=SEQ_LEN, dtype=np.dtype(np.int32), pad_token_id=None
        )
        expected = dataset.take([3, 25])["segment_ids"].to_pylist()
        del dataset, pieces
        junk = [np.full(5000, 7, np.int32) for _ in range(50)]
        assert rows.copy(0, 2).tolist() == expected
        del junk


def test_a_dataset_without_a_fingerprint_is_told_apart_by_its_shape(tmp_path: Path) -> None:
    found = []
    for count in (2, 3, 3):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        batches = sample_batches(count)
        if len(found) == 1:
            batches = [batch.drop_columns(["segment_ids"]) for batch in batches]
        dataset = stored(folder, batches)
        assert dataset.fingerprint == ""
        found.append(StoredSamples(dataset))
    assert len({samples.fingerprint for samples in found}) == 3
    assert found[0].description["samples"] == found[0].fingerprint
    assert StoredSamples(dataset, ["input_ids"]).fingerprint == found[2].fingerprint
