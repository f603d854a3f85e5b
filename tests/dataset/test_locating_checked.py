"""What is checked and what is asked for when runs are located again, and runs without tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

import easydata as ed
from easydata.errors import CorruptShardError

from .conftest import Oracle, build_rows
from .test_locating import large_rows, read_runs, spoil


@pytest.mark.parametrize("where", ["first", "middle", "end"])
def test_runs_without_tokens(dataset: ed.TokenDataset, oracle: Oracle, where: str) -> None:
    size = len(oracle.stream)
    place = {"first": 0, "middle": int(dataset.ledger.first_tokens[2]), "end": size}[where]
    for _ in range(2):  # the second time, all is open
        assert read_runs(dataset, [place, 40, place], [0, 9, 0]) == [[], oracle.stream[40:49], []]
        assert dataset.gather(np.array([place]), 0).shape == (1, 0)


def build_large(out: Path) -> ed.TokenDataset:
    """Two large batches in two shards: their tokens are not checked when they are opened."""
    build_rows(large_rows() * 2, out, part_size="4MB", shard_size="3MB")
    dataset = ed.open_dataset(out)
    assert dataset.ledger.num_shards == 2
    assert dataset.ledger.batch_bytes.min() > 4 << 20
    return dataset


def runs_of(dataset: ed.TokenDataset) -> tuple[Any, Any]:
    starts = np.arange(0, dataset.num_tokens, 100_000)
    return starts, np.minimum(dataset.num_tokens - starts, 100_000)


def test_when_all_is_checked_nobody_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build_large(tmp_path / "out")
    shards, (starts, lengths) = dataset._shards, runs_of(dataset)
    half = len(starts) // 2
    for _ in range(3):
        dataset.locate(starts[half:], lengths[half:])
        assert not shards._all_checked
    dataset.locate(starts, lengths)
    dataset.locate(starts, lengths)
    assert shards._all_checked
    assert not shards._checked.all()  # headers and footers are not read
    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", lambda data: pytest.fail("checked again"))
    dataset.locate(starts, lengths)
    assert len(dataset.tokens(0, dataset.num_tokens)) == dataset.num_tokens


def is_refused(dataset: ed.TokenDataset, number: int) -> bool:
    starts, lengths = runs_of(dataset)
    try:
        dataset.locate(starts[number : number + 1], lengths[number : number + 1])
    except CorruptShardError:
        return True
    return False


@pytest.mark.parametrize("bad", [700_000, 6_600_000])
def test_one_block_that_is_damaged_is_never_taken_for_checked(tmp_path: Path, bad: int) -> None:
    out = tmp_path / "out"
    name = spoil(out, build_large(out), bad)
    dataset = ed.open_dataset(out)
    starts, lengths = runs_of(dataset)
    refused = []
    for _ in range(3):  # everything else is checked after the first time
        found = {number for number in range(len(starts)) if is_refused(dataset, number)}
        good = np.array(sorted({*range(len(starts))} - found))
        dataset.locate(starts[good], lengths[good])
        assert not dataset._shards._all_checked
        refused.append(found)
    assert bad // 100_000 in refused[0]
    assert 5 <= len(refused[0]) <= 7  # 2^19 tokens
    assert refused[0] == refused[1] == refused[2]
    with pytest.raises(CorruptShardError, match=f"{name} is damaged"):
        dataset.tokens(bad, bad + 1)


def test_what_is_located_again_is_not_opened_again(
    folders: dict[str, Path], oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = ed.open_dataset(folders["none"])
    starts = np.arange(0, len(oracle.stream) - 50, 50)
    dataset.gather(starts, 50)
    monkeypatch.setattr(dataset._shards, "open_batch", lambda batch: pytest.fail("opened again"))
    expected = [oracle.stream[start : start + 50] for start in starts.tolist()]
    assert dataset.gather(starts, 50).tolist() == expected


def test_the_first_and_the_last_token_of_a_block(tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = build_large(out)
    first = whole.tokens(0, 1).ctypes.data - whole._shards.map_shard(0).address
    low = ((2 << 20) - (first - int(whole.ledger.batch_offsets[0]))) // 2
    high = low + (1 << 19)
    name = spoil(out, whole, low + 1000)

    def locate(dataset: ed.TokenDataset, start: int, stop: int) -> None:
        dataset.locate(np.array([start]), stop - start)

    for read in (ed.TokenDataset.tokens, locate):
        dataset = ed.open_dataset(out)
        read(dataset, low - 5, low)
        read(dataset, high, high + 5)
        for start, stop in ((low, low + 1), (high - 1, high), (low - 5, low + 1), (low - 9, high)):
            with pytest.raises(CorruptShardError, match=f"{name} is damaged"):
                read(dataset, start, stop)
