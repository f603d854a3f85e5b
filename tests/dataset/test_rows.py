from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import NotADatasetError, UsageError

from .conftest import Oracle

COUNT = 150


def plain(row: dict[str, object]) -> dict[str, object]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}


def test_every_row(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    assert len(dataset) == len(oracle.rows)
    assert dataset.num_tokens == len(oracle.stream)
    assert dataset.dtype == np.uint16
    for index, expected in enumerate(oracle.rows):
        row = dataset[index]
        assert plain(row) == expected
        assert row["input_ids"].dtype == np.uint16
        assert not row["input_ids"].flags.writeable
        assert plain(dataset[index - len(dataset)]) == expected
    assert plain(dataset[np.int64(3)]) == oracle.rows[3]


def test_no_such_row(dataset: ed.TokenDataset) -> None:
    for index in (COUNT, -COUNT - 1, 10**12):
        with pytest.raises(IndexError):
            dataset[index]
        with pytest.raises(IndexError, match=f"row {index} of a dataset of {COUNT} rows"):
            dataset.take([0, index])


def test_iterating_ends(mapped: ed.TokenDataset, oracle: Oracle) -> None:
    assert [row["id"] for row in mapped] == [row["id"] for row in oracle.rows]


@pytest.mark.parametrize(
    "indices",
    [
        [],
        [0],
        [COUNT - 1, 0],
        [-1, -COUNT, 3],
        [5, 5, 5, 140, 5],
        list(range(COUNT)),
        list(range(COUNT - 1, -1, -1)),
    ],
    ids=str,
)
def test_take(dataset: ed.TokenDataset, oracle: Oracle, indices: list[int]) -> None:
    for given_indices in (indices, np.array(indices, np.int32)):
        table = dataset.take(given_indices)
        assert table.schema == dataset.schema
        assert table.to_pylist() == [oracle.rows[i] for i in indices]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-COUNT, COUNT - 1), max_size=40))
def test_take_anything(mapped: ed.TokenDataset, oracle: Oracle, indices: list[int]) -> None:
    assert mapped.take(indices).to_pylist() == [oracle.rows[i] for i in indices]


def test_whole_tables(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    table = dataset.to_table()
    table.validate(full=True)
    assert table.schema == dataset.schema
    assert table.to_pylist() == oracle.rows
    assert table.schema.field("input_ids").type == pa.list_(pa.uint16())
    frame = dataset.to_pandas()
    assert frame["id"].tolist() == [row["id"] for row in oracle.rows]
    assert [list(ids) for ids in frame["input_ids"]] == [r["input_ids"] for r in oracle.rows]
    for name in table.schema.names:
        column = dataset.column(name)
        assert column.num_chunks == len(dataset.ledger.batch_offsets)
        assert column.to_pylist() == [row[name] for row in oracle.rows]
    with pytest.raises(KeyError, match="no column 'other'; the columns are input_ids, id"):
        dataset.column("other")


def test_pickle_keeps_the_path_alone(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    dataset.to_table()
    data = pickle.dumps(dataset)
    assert len(data) < 500
    assert plain(pickle.loads(data)[7]) == oracle.rows[7]
    opened = ed.open_dataset(dataset.path, verify="never", cache_bytes=7)
    again = pickle.loads(pickle.dumps(opened))
    assert (again._verify, again._cache_bytes) == ("never", 7)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("cache_bytes", [0, 4000, 1 << 30])
def test_threads(folder: Path, oracle: Oracle, cache_bytes: int) -> None:
    dataset = ed.open_dataset(folder, cache_bytes=cache_bytes)
    start = threading.Barrier(8)
    wrong: list[object] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        start.wait()
        try:
            for index in rng.integers(0, COUNT, 150).tolist():
                if plain(dataset[index]) != oracle.rows[index]:
                    wrong.append(index)
            starts = rng.integers(0, len(oracle.stream) - 99, 40)
            if dataset.gather(starts, 99).tolist() != [
                oracle.stream[s : s + 99] for s in starts.tolist()
            ]:
                wrong.append("gather")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_cache_keeps_to_its_budget(folders: dict[str, Path]) -> None:
    budget = 8000
    dataset = ed.open_dataset(folders["zstd"], cache_bytes=budget)
    threads = [threading.Thread(target=dataset.to_table) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shards = dataset._shards
    held = sum(found.batch.nbytes for found in shards._open.values())
    assert shards._open_bytes == held <= budget
    assert len(shards._open) > 1


def test_verify_modes(folder: Path, oracle: Oracle) -> None:
    for verify in ("lazy", "open", "never"):
        dataset = ed.open_dataset(folder, verify=verify)
        assert dataset.to_table().to_pylist() == oracle.rows
        dataset.verify()
    with pytest.raises(UsageError, match="verify is 'always'; choose"):
        ed.open_dataset(folder, verify="always")  # type: ignore[arg-type]


def test_opening_reads_no_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from easydata.dataset import _shards

    monkeypatch.setattr(_shards, "map_file", lambda path: pytest.fail(f"opened {path}"))
    dataset = ed.open_dataset(folder)
    assert len(dataset) == COUNT
    assert dataset.metadata.num_examples == COUNT
    assert f"{COUNT} rows" in repr(dataset)
    assert dataset.lineage(3).record == 3


def test_no_splits_here(mapped: ed.TokenDataset) -> None:
    with pytest.raises(NotADatasetError, match=r"has no splits\. Open it with"):
        ed.open_splits(mapped.path)
    with pytest.raises(NotADatasetError, match=r"no split 'train'; it has no splits"):
        ed.open_dataset(mapped.path, split="train")
