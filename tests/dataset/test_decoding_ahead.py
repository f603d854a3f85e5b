"""What is decoded before it is asked for: for several readers, within one budget."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import easydata as ed
from easydata.dataset._decode_ahead import DecodeAhead, row_bytes
from easydata.dataset._shards import Shards
from easydata.loader.iteration import BatchIterator
from tests.dataset.counting import batches_given_to


class Decoder:
    """Decodes a number to its text, when it may; notes what it did, and where."""

    def __init__(self) -> None:
        self.may_begin = threading.Event()
        self.done = threading.Semaphore(0)
        self.decoded: list[int] = []
        self.ahead: set[int] = set()

    def decode(self, batch: int) -> str:
        if threading.current_thread().name.startswith("easydata-decode"):
            assert self.may_begin.wait(60)
            self.ahead.add(batch)
        self.decoded.append(batch)
        self.done.release()
        if batch == 999:
            raise ValueError("999 cannot be decoded")
        return str(batch)

    def wait_for(self, count: int) -> None:
        self.may_begin.set()
        for _ in range(count):
            assert self.done.acquire(timeout=60)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    found = Decoder()
    yield found
    found.may_begin.set()  # so that no thread waits when a test has failed


def test_two_readers_keep_what_they_announced(decoder: Decoder) -> None:
    ahead = DecodeAhead(decoder.decode)
    one, other = range(40), range(100, 140)
    ahead.announce(dict.fromkeys(one, 10), 1000)
    ahead.announce(dict.fromkeys(other, 10), 1000)
    ahead.announce(dict.fromkeys(range(20, 50), 10), 1000)
    assert ahead.pending_bytes == 90 * 10
    decoder.wait_for(90)
    for batch in (*other, *range(50)):
        assert ahead.take(batch) == str(batch)
    assert ahead.pending_bytes == 0
    assert sorted(decoder.decoded) == sorted([*range(50), *other])
    assert decoder.ahead == {*decoder.decoded}
    assert ahead.take(7) == "7"  # whoever has announced nothing reads, too
    assert decoder.decoded.count(7) == 2
    assert len(decoder.ahead) == 90


def test_what_was_announced_longest_ago_gives_way(decoder: Decoder) -> None:
    ahead = DecodeAhead(decoder.decode)
    ahead.announce({0: 10, 1: 10, 2: 10}, 0)
    ahead.announce({3: 10, 0: 10}, 20)  # both others have room
    assert ahead.pending_bytes == 40
    ahead.announce({4: 10}, 29)  # two of 1, 2, 3, 0 have
    assert ahead.pending_bytes == 30
    decoder.may_begin.set()
    while not {4, 3, 0} <= decoder.ahead:  # others may have begun before they gave way
        decoder.wait_for(1)
    assert {ahead.take(batch) for batch in (4, 3, 0)} == {"4", "3", "0"}
    assert [decoder.decoded.count(batch) for batch in (4, 3, 0)] == [1, 1, 1]
    assert ahead.pending_bytes == 0
    ahead.announce({5: 10, 6: 10}, 0)
    ahead.announce({}, -5)
    assert ahead.pending_bytes == 0


def test_an_error_comes_to_who_asks(decoder: Decoder) -> None:
    ahead = DecodeAhead(decoder.decode)
    ahead.announce({12: 1, 999: 1, 14: 1}, 0)
    decoder.wait_for(3)
    for batch in (12, 14):
        assert ahead.take(batch) == str(batch)
    with pytest.raises(ValueError, match="999 cannot be decoded"):
        ahead.take(999)


def test_what_a_row_takes() -> None:
    schema = pa.schema(
        {
            "input_ids": pa.list_(pa.uint16(), 100),
            "segment_ids": pa.list_(pa.int32(), 100),
            "loss_mask": pa.list_(pa.uint8(), 100),
            "id": pa.int64(),
            "text": pa.string(),
            "words": pa.list_(pa.string(), 3),
        }
    )
    assert row_bytes(schema, "input_ids") == 8 + 400 + 100 + 3 * 8


def build_letters(out: Path) -> None:
    """A zstd dataset of about 40 batches of 110 KiB, if decoded."""
    rng = np.random.default_rng(0)
    rows = [
        {"text": bytes(rng.integers(97, 123, 8191, dtype=np.uint8)).decode()} for _ in range(320)
    ]
    ed.build(rows, tokenizer="bytes", out=out, compression="zstd", part_size="64kB", workers=1)


def test_what_is_announced_and_what_is_open_share_one_budget(tmp_path: Path) -> None:
    build_letters(tmp_path / "out")
    cache_bytes = 1 << 20
    dataset = ed.open_dataset(tmp_path / "out", cache_bytes=cache_bytes)
    shards, count = dataset._shards, len(dataset.ledger.batch_offsets)
    for batch in range(5):
        shards.open_batch(batch)
    dataset.warm(np.array([[0, dataset.num_tokens]]))
    announced = shards._ahead.pending_bytes
    assert 0 < announced <= cache_bytes - shards._open_bytes
    dataset.warm(np.array([[dataset.num_tokens // 2, dataset.num_tokens]]))
    assert 0 < shards._ahead.pending_bytes <= cache_bytes
    for batch in (*range(20, count), *range(20)):
        shards.open_batch(batch)
        held = shards._open_bytes + shards._ahead.pending_bytes
        assert held <= cache_bytes or len(shards._open) == 1
    assert shards._ahead.pending_bytes == 0


@pytest.mark.parametrize("prefetch", [0, 2])
def test_memory_stays_below_the_budget_and_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefetch: int
) -> None:
    build_letters(tmp_path / "out")
    cache_bytes = 6 << 17
    before = 0
    most = [0]
    real = Shards._decode

    def measuring(shards: Shards, batch: int) -> Any:
        found = real(shards, batch)
        most[0] = max(most[0], pa.total_allocated_bytes() - before)
        return found

    monkeypatch.setattr(Shards, "_decode", measuring)
    dataset = ed.open_dataset(tmp_path / "out", cache_bytes=cache_bytes)
    ledger = dataset.ledger
    assert len(ledger.batch_offsets) > 36
    size = dataset.num_tokens * 2 // len(ledger.batch_offsets)
    gc.collect()
    before = pa.total_allocated_bytes()
    # 2,048 samples are located at once: some of one group of 8 batches, and some of the next.
    loader = ed.DataLoader(dataset, 64, 64, shuffle="block", epochs=2, prefetch=prefetch)
    for batch in loader:
        assert batch["input_ids"].shape == (64, 64)
        most[0] = max(most[0], pa.total_allocated_bytes() - before)
    copies = 1 << 20  # of several small batches at once
    assert cache_bytes < most[0] < cache_bytes + 20 * size + copies
    del batch, loader
    gc.collect()
    assert pa.total_allocated_bytes() - before <= cache_bytes


def test_two_loaders_of_one_dataset_decode_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_letters(tmp_path / "out")
    decoded = batches_given_to("_decode", monkeypatch)
    dataset = ed.open_dataset(tmp_path / "out")
    loaders: list[BatchIterator] = [
        iter(ed.DataLoader(dataset, 64, 64, shuffle="block", seed=seed, epochs=1))
        for seed in (1, 2)
    ]
    for one, other in zip(*loaders, strict=True):
        assert one["input_ids"].shape == other["input_ids"].shape
    assert sorted(decoded) == list(range(len(dataset.ledger.batch_offsets)))
