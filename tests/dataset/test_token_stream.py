from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.format.mapping import map_file

from .conftest import Oracle, build_rows, make_rows


def test_every_pair_of_positions(tmp_path: Path) -> None:
    rows = make_rows(60)
    for row in rows:
        row["text"] = row["text"][: row["id"] % 4]
    dataset = build_rows(rows, tmp_path / "out", shard_size=1000)
    assert len(dataset.ledger.batch_offsets) > 1
    stream = np.array(Oracle.of(rows).stream)
    for start in range(len(stream) + 1):
        for stop in range(start, len(stream) + 1):
            found = dataset.tokens(start, stop)
            assert np.array_equal(found, stream[start:stop])
            assert found.dtype == np.uint16
            assert not found.flags.writeable


def test_ranges(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    size = len(oracle.stream)
    for start in range(0, size, 97):
        for length in (0, 1, 50, 1500, size):
            stop = min(start + length, size)
            assert dataset.tokens(start, stop).tolist() == oracle.stream[start:stop]
    for start, stop in ((-1, 3), (3, 2), (0, size + 1), (size + 1, size + 1)):
        with pytest.raises(IndexError, match=f"tokens {start} to {stop} of a dataset of {size}"):
            dataset.tokens(start, stop)


def shard_of(dataset: ed.TokenDataset, array: np.ndarray) -> pa.Buffer | None:
    """The mapped shard that an array lies in; None if it is a copy."""
    for buffer in dataset._shards._maps.values():
        if buffer.address <= array.ctypes.data < buffer.address + buffer.size:
            return buffer
    return None


def test_views_lie_in_the_map(mapped: ed.TokenDataset, oracle: Oracle) -> None:
    edges = mapped.ledger.first_tokens.tolist()
    for start, stop in itertools.pairwise(edges):
        view = mapped.tokens(start, stop)
        buffer = shard_of(mapped, view)
        assert buffer is not None
        assert view.ctypes.data % 64 == 0
        assert np.shares_memory(view, np.frombuffer(buffer, np.uint8))
        assert np.shares_memory(view, mapped.tokens(start, start + 1))
    across = mapped.tokens(edges[1] - 1, edges[1] + 1)
    assert shard_of(mapped, across) is None
    assert across.tolist() == oracle.stream[edges[1] - 1 : edges[1] + 1]
    assert shard_of(mapped, mapped[0]["input_ids"]) is not None
    for chunk in mapped.column("input_ids").chunks:
        assert shard_of(mapped, chunk.values.to_numpy()) is not None
    copied = mapped.gather(np.array([0, 5]), 3)
    assert shard_of(mapped, copied) is None
    assert copied.flags.writeable
    assert copied.ctypes.data % 64 == 0


def test_nothing_that_is_read_can_be_changed(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    for array in (dataset.tokens(3, 40), dataset[1]["input_ids"], dataset.tokens(0, 5000)):
        with pytest.raises(ValueError, match=r"read-only|assignment destination"):
            array[0] = 0
    assert dataset.tokens(0, len(oracle.stream)).tolist() == oracle.stream


def test_gather(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    size = len(oracle.stream)
    rng = np.random.default_rng(0)
    for length in (1, 2, 63, 900, 4000, size):
        starts = rng.integers(0, size - length + 1, 30)
        found = dataset.gather(starts, length)
        assert found.dtype == np.uint16
        assert found.tolist() == [oracle.stream[s : s + length] for s in starts.tolist()]
    assert dataset.gather(np.empty(0, np.int64), 5).shape == (0, 5)
    for bad in ([-1], [0, size - 4], [size]):
        with pytest.raises(IndexError, match=r"^5 tokens from"):
            dataset.gather(np.array(bad), 5)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_gather_anything(folders: dict[str, Path], oracle: Oracle, data: st.DataObject) -> None:
    # A fresh dataset each time: what was opened and checked before must not matter.
    dataset = ed.open_dataset(folders[data.draw(st.sampled_from(["none", "zstd", "gzip"]))])
    length = data.draw(st.integers(1, 3000))
    last = len(oracle.stream) - length
    starts = data.draw(st.lists(st.integers(0, last), min_size=1, max_size=20))
    found = dataset.gather(np.array(starts), length)
    assert found.tolist() == [oracle.stream[s : s + length] for s in starts]


def test_jax_aliases_aligned_views(mapped: ed.TokenDataset) -> None:
    import jax

    cpu = jax.devices("cpu")[0]
    edges = mapped.ledger.first_tokens.tolist()
    for start, stop in itertools.pairwise(edges):
        for at in (start, start + 32):  # 32 tokens are 64 bytes
            view = mapped.tokens(at, stop)
            assert view.ctypes.data % 64 == 0
            array = jax.device_put(view, cpu)
            assert array.unsafe_buffer_pointer() == view.ctypes.data
            assert array.tolist() == view.tolist()


def test_many_batches_of_large_shards(tmp_path: Path) -> None:
    """Checks of several blocks of 1 MiB in one batch, in any order."""
    rng = np.random.default_rng(0)
    rows = [
        {"text": bytes(rng.integers(97, 123, 300_000, dtype=np.uint8)).decode(), "id": i}
        | {"tag": None, "scores": None}
        for i in range(12)
    ]
    build_rows(rows, tmp_path / "out", part_size="4MB", shard_size="16MB")
    stream = np.array(Oracle.of(rows).stream, np.uint16)
    for seed in range(3):
        dataset = ed.open_dataset(tmp_path / "out")
        assert dataset.ledger.batch_bytes.max() > 3 << 20
        starts = np.random.default_rng(seed).permutation(np.arange(0, len(stream) - 2048, 2048))
        for batch in np.array_split(starts, 20):
            expected = stream[batch[:, None] + np.arange(2048)]
            assert np.array_equal(dataset.gather(batch, 2048), expected)
        assert np.array_equal(dataset.tokens(1, len(stream) - 1), stream[1:-1])
    size = sum(map_file(path).size for path in (tmp_path / "out").glob("data-*"))
    assert size > 7_000_000
