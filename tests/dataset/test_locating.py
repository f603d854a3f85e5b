"""Where the tokens of a dataset lie in memory, and what is checked before they are read."""

from __future__ import annotations

import gc
import itertools
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

import easydata as ed
from easydata.dataset import _shards
from easydata.errors import CorruptShardError
from easydata.format.mapping import map_file
from easydata.loader.rows import fill_rows

from .conftest import Oracle, build_rows, make_rows


def read_runs(dataset: ed.TokenDataset, starts: list[int], lengths: list[int]) -> list[list[int]]:
    """The tokens of runs, each a row of its own length."""
    pieces = dataset.locate(np.array(starts, np.int64), np.array(lengths, np.int64))
    width = max(lengths, default=1)
    rows = fill_rows(pieces, None, num_items=width, dtype=dataset.dtype, pad_token_id=0)
    found = rows.read(0, len(starts)).tolist()
    return [row[:length] for row, length in zip(found, lengths, strict=True)]


def slices(oracle: Oracle, starts: list[int], lengths: list[int]) -> list[list[int]]:
    return [
        oracle.stream[start : start + length] for start, length in zip(starts, lengths, strict=True)
    ]


def test_runs_of_any_length_anywhere(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    size = len(oracle.stream)
    edges = dataset.ledger.first_tokens.tolist()
    near = [edge + shift for edge in edges for shift in (-2, -1, 0, 1) if 0 <= edge + shift < size]
    rng = np.random.default_rng(0)
    for most in (1, 2, 50, 1500, size):
        starts = [*near, *rng.integers(0, size, 40).tolist()]
        rng.shuffle(starts)
        lengths = [min(int(rng.integers(1, most + 1)), size - start) for start in starts]
        assert read_runs(dataset, starts, lengths) == slices(oracle, starts, lengths)


def test_runs_between_the_same_borders(mapped: ed.TokenDataset, oracle: Oracle) -> None:
    edges = mapped.ledger.first_tokens.tolist()
    pairs = [(a, b) for a in edges for b in edges if a < b]
    starts, lengths = [a for a, _ in pairs], [b - a for a, b in pairs]
    assert read_runs(mapped, starts, lengths) == slices(oracle, starts, lengths)


@pytest.mark.parametrize(
    ("starts", "lengths"),
    [
        ([-1], [3]),
        ([0, -5], [3, 9]),
        ([0], [-1]),
        ([9, 100], [5, -3]),
        ([-(2**63)], [1]),
        ([2**62], [1]),
        ([2**63 - 1], [1]),
        ([5], [2**63 - 1]),
        ([0], [-(2**63)]),
    ],
)
def test_runs_outside_the_stream(
    dataset: ed.TokenDataset, starts: list[int], lengths: list[int]
) -> None:
    with pytest.raises(IndexError, match=f"{lengths[-1]} tokens from {starts[-1]} on, of "):
        dataset.locate(np.array(starts), np.array(lengths))


def test_runs_that_end_outside(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    size = len(oracle.stream)
    for start, length in ((size, 1), (size - 4, 5), (0, size + 1), (size + 1, 1)):
        with pytest.raises(IndexError, match=f"{length} tokens from {start} on, of {size}"):
            dataset.locate(np.array([0, start]), length)
        with pytest.raises(IndexError):
            dataset.gather(np.array([0, start]), length)
    assert dataset.gather(np.array([size - 5]), 5).tolist() == [oracle.stream[-5:]]


@pytest.mark.parametrize("length", [-1, -3])
def test_runs_of_no_length(mapped: ed.TokenDataset, length: int) -> None:
    with pytest.raises(IndexError, match=f"{length} tokens from 5 on"):
        mapped.gather(np.array([5, 900]), length)


def files(folder: Path) -> list[str]:
    """Sources of which the one in the middle holds rows, but no token."""
    found = []
    for number in range(5):
        path = folder / f"{number}.jsonl"
        rows = ['{"text": "%s"}' % ("" if number == 2 else f"Satz {number}. " * 9)] * 150
        path.write_text("\n".join(rows) + "\n")
        found.append(str(path))
    return found


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_a_batch_without_tokens(tmp_path: Path, compression: str) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"part_size": 2048, "workers": 1, "progress": "none"}
    ed.build(
        files(tmp_path),
        tokenizer="bytes",
        add_eos=False,
        out=out,
        compression=compression,
        **options,
    )
    sentences = [f"Satz {number}. " * 9 for number in (0, 1, 3, 4)]
    stream = list("".join(text * 150 for text in sentences).encode())
    dataset = ed.open_dataset(out)
    empty = np.flatnonzero(np.diff(dataset.ledger.first_tokens) == 0)
    assert len(empty)
    assert 0 < empty[0] < len(dataset.ledger.batch_offsets) - 1
    middle = int(dataset.ledger.first_tokens[empty[0]])
    starts = [middle - 500, middle, 0]
    assert dataset.gather(np.array(starts), 900).tolist() == [stream[s : s + 900] for s in starts]
    assert dataset.tokens(0, len(stream)).tolist() == stream
    loader = ed.DataLoader(dataset, 5, 64, shuffle=False, epochs=1, drop_last=False)
    found = np.concatenate([batch["input_ids"] for batch in loader])
    assert found.ravel().tolist() == stream[: len(stream) // 64 * 64]


def test_views_are_where_batches_lie(mapped: ed.TokenDataset) -> None:
    edges = mapped.ledger.first_tokens.tolist()
    for first, stop in itertools.pairwise(edges):
        starts = np.arange(first, stop - 7, 8)
        rows = fill_rows(
            mapped.locate(starts, 8), None, num_items=8, dtype=mapped.dtype, pad_token_id=None
        )
        view = rows.view(0, len(starts))
        assert view is not None
        assert view.ctypes.data == mapped.tokens(first, stop).ctypes.data
        assert np.shares_memory(view, mapped.tokens(first, stop))


def spoil(folder: Path, dataset: ed.TokenDataset, token: int) -> str:
    """Change this token in its shard; the name of the file."""
    batch = int(dataset.ledger.first_tokens.searchsorted(token, side="right")) - 1
    shard = int(dataset.ledger.first_batches.searchsorted(batch, side="right")) - 1
    path = folder / dataset.ledger.shard_name(shard)
    buffer = dataset._shards.map_shard(shard)
    where = dataset.tokens(token, token + 1).ctypes.data - buffer.address
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.unlink()  # not under the map of the other dataset
    path.write_bytes(data)
    return path.name


def large_rows() -> list[dict[str, Any]]:
    """A megabyte of tokens is half of one row."""
    rng = np.random.default_rng(0)
    rest = {"tag": None, "scores": None}
    return [
        {"text": bytes(rng.integers(97, 123, 1_000_000, dtype=np.uint8)).decode(), "id": i} | rest
        for i in range(4)
    ]


def test_damage_is_found_where_it_is_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = build_rows(large_rows(), out, part_size="8MB", shard_size="64MB")
    assert len(whole.ledger.batch_offsets) == 1
    bad = 2_500_000
    name = spoil(out, whole, bad)
    block = 1 << 19  # tokens in the bytes that are checked as one
    far = np.array([0, 3_900_000, bad - 2 * block, bad + 2 * block])
    expected = [whole.tokens(start, start + 100).tolist() for start in far.tolist()]
    for start, length in ((bad, 1), (bad - 99, 100), (bad - 2 * block, 4 * block)):
        dataset = ed.open_dataset(out)
        assert dataset.gather(far, 100).tolist() == expected
        for _ in range(2):
            with pytest.raises(CorruptShardError, match=f"{name} is damaged in batch 0"):
                read_runs(dataset, [*far.tolist(), start], [100] * 4 + [length])
        assert dataset.gather(far, 100).tolist() == expected
    unchecked = ed.open_dataset(out, verify="never").gather(np.array([bad]), 1)
    assert unchecked[0, 0] == whole.tokens(bad, bad + 1)[0] ^ 1


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_before_the_damage_are_read(tmp_path: Path, prefetch: int) -> None:
    out = tmp_path / "out"
    whole = build_rows(large_rows(), out, part_size="8MB", shard_size="64MB")
    spoil(out, whole, 2_500_000)
    good = 2_500_000 // (1 << 19) * (1 << 19)  # the block begins some bytes after that

    def batches(dataset: ed.TokenDataset) -> Any:
        return iter(ed.DataLoader(dataset, 2, 10_000, shuffle=False, prefetch=prefetch))

    expected, found = batches(whole), batches(ed.open_dataset(out))
    for _ in range(good // 20_000 - 1):
        assert next(found)["input_ids"].tolist() == next(expected)["input_ids"].tolist()
    for _ in range(2):  # it is tried again
        with pytest.raises(CorruptShardError, match="damaged in batch 0"):
            list(itertools.islice(found, 3))


def test_blocks_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    build_rows(large_rows(), out, part_size="8MB", shard_size="64MB")
    dataset = ed.open_dataset(out)
    checked = []
    real = xxhash.xxh3_64_intdigest

    def counting(data: Any) -> int:
        checked.append(len(data))
        return real(data)

    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", counting)
    dataset.gather(np.array([10]), 10)
    few = len(checked)
    assert few <= 4
    for _ in range(3):
        dataset.gather(np.arange(0, 3_990_000, 5000), 5000)
        dataset.tokens(0, 3_990_000)
    blocks = -(-int(dataset.ledger.batch_bytes[0]) // (1 << 20))
    assert blocks - 1 <= len(checked) <= blocks


@pytest.mark.parametrize("name", ["none", "zstd", "gzip"])
def test_a_folder_that_is_deleted_while_it_is_read(
    tmp_path: Path, oracle: Oracle, name: str
) -> None:
    out = tmp_path / "out"
    build_rows(make_rows(), out, compression=name)
    dataset = ed.open_dataset(out, cache_bytes=0)
    starts = np.arange(0, len(oracle.stream) - 50, 50)
    expected = [oracle.stream[s : s + 50] for s in starts.tolist()]
    kept = dataset.gather(starts, 50)
    views = [dataset.tokens(s, s + 50) for s in starts.tolist()]
    rows = fill_rows(
        dataset.locate(starts, 50), None, num_items=50, dtype=dataset.dtype, pad_token_id=None
    )
    untouched = ed.open_dataset(out)
    shutil.rmtree(out)
    assert dataset.gather(starts, 50).tolist() == expected
    with pytest.raises(CorruptShardError, match=r"is missing. If the dataset was built again"):
        untouched.gather(starts, 50)
    del dataset, untouched
    gc.collect()
    junk = [pa.allocate_buffer(1 << 16) for _ in range(100)]
    assert kept.tolist() == [view.tolist() for view in views] == expected
    assert rows.read(0, len(starts)).tolist() == rows.copy(0, len(starts)).tolist() == expected
    del junk


def test_located_rows_stay_when_their_batches_are_evicted(
    folders: dict[str, Path], oracle: Oracle
) -> None:
    dataset = ed.open_dataset(folders["zstd"], cache_bytes=0)
    starts = np.random.default_rng(0).integers(0, len(oracle.stream) - 90, 60)
    rows = fill_rows(
        dataset.locate(starts, 90), None, num_items=90, dtype=dataset.dtype, pad_token_id=None
    )
    for row in range(0, len(dataset), 10):
        dataset[row]  # another batch, in place of the one before
    assert len(dataset._shards._open) == 1
    junk = [np.full(50_000, 7, np.uint16) for _ in range(50)]
    assert rows.copy(0, 60).tolist() == [oracle.stream[s : s + 90] for s in starts.tolist()]
    del junk


@pytest.mark.parametrize("cache_bytes", [0, 4000])
def test_threads_that_touch_everything_first(
    folder: Path, oracle: Oracle, cache_bytes: int
) -> None:
    stream = np.array(oracle.stream, np.uint16)
    dataset = ed.open_dataset(folder, cache_bytes=cache_bytes)
    gate = threading.Barrier(4)

    def read(seed: int) -> bool:
        gate.wait()
        rng = np.random.default_rng(seed)
        for _ in range(6):
            starts = rng.integers(0, len(stream) - 700, 20)
            found = dataset.gather(starts, 700)
            if not np.array_equal(found, stream[starts[:, None] + np.arange(700)]):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_two_threads_that_map_a_shard_at_once(
    folders: dict[str, Path], oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Addresses are kept for good, so all must be of the one map that is kept.
    dataset = ed.open_dataset(folders["none"])
    gate = threading.Barrier(2)

    def mapped_by_both(path: str) -> pa.Buffer:
        gate.wait(60)
        return map_file(path)

    monkeypatch.setattr(_shards, "map_file", mapped_by_both)
    with ThreadPoolExecutor(2) as pool:
        views = list(pool.map(lambda _: dataset.tokens(0, 5), range(2)))
    monkeypatch.undo()
    assert len({view.ctypes.data for view in views}) == 1
    assert dataset.tokens(0, 5).ctypes.data == views[0].ctypes.data
    assert dataset.gather(np.array([0]), 5).tolist() == [oracle.stream[:5]]


FORK = """
import os, signal, sys
import numpy as np
import easydata as ed
dataset = ed.open_dataset(sys.argv[1])
starts = np.arange(0, dataset.num_tokens - 40, 40)
half = starts[:len(starts) // 2]
before = dataset.gather(half, 40).tolist()  # the other half is first touched in the child
child = os.fork()
if not child:
    signal.alarm(60)
    fresh = ed.open_dataset(sys.argv[1])
    assert dataset.gather(starts, 40).tolist() == fresh.gather(starts, 40).tolist()
    assert dataset.gather(half, 40).tolist() == before
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert dataset.gather(half, 40).tolist() == before
"""


@pytest.mark.parametrize("name", ["none", "zstd"])
def test_a_forked_child_reads_on(folders: dict[str, Path], name: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(folders[name])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_compressed_batch_is_never_taken_for_a_mapped_one(tmp_path: Path) -> None:
    """Its values are no part of the map, so their address may not be kept."""
    rows = [{"text": "abc " * 50}] * 20
    dataset = ed.build(rows, tokenizer="bytes", out=tmp_path / "out", compression="zstd")
    dataset.ledger.metadata["compression"] = "none"
    shards = _shards.Shards(
        dataset.path,
        dataset.ledger,
        token_column="input_ids",
        verify="never",
        cache_bytes=1 << 20,
    )
    with pytest.raises(CorruptShardError, match="compressed, but the ledger says that it is not"):
        shards.open_batch(0)
