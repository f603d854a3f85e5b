"""Orders that read runs of neighbours: every sample once, and no more than two groups at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.loader.block_order import (
    GROUP_BLOCKS,
    MAX_BLOCKS,
    BlockOrder,
    default_blocks,
    merge_blocks,
)
from easydata.loader.data_loader import DataLoader
from easydata.loader.order import SampleOrder
from tests.dataset.counting import batches_given_to

from .sequences import samples_of
from .sources import Numbers

Borders = npt.NDArray[np.int64]

block_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=60)
seeds = st.integers(0, 2**64 - 1)


def borders_of(sizes: list[int]) -> Borders:
    return np.append(0, np.cumsum(sizes)).astype(np.int64)


def samples_in(runs: Borders) -> set[int]:
    return {sample for first, stop in runs.tolist() for sample in range(first, stop)}


@settings(max_examples=100)
@given(sizes=block_sizes, seed=seeds, epoch=st.integers(0, 10**6), data=st.data())
def test_any_blocks(sizes: list[int], seed: int, epoch: int, data: st.DataObject) -> None:
    borders = borders_of(sizes)
    total = sum(sizes)
    order = BlockOrder(borders, seed=seed, epoch=epoch)
    samples = order.at(np.arange(total))
    assert samples.dtype == np.int64
    assert sorted(samples.tolist()) == list(range(total))
    # Groups are whole blocks, as many as there may be; a group is gone through before the next.
    block_of = np.repeat(np.arange(len(sizes)), sizes)
    left = list(range(len(sizes)))
    place = 0
    while place < total:
        here = order.ahead(place, place + 1)
        blocks = {int(block_of[first]) for first, _ in here[:GROUP_BLOCKS].tolist()}
        assert len(blocks) == min(GROUP_BLOCKS, len(left))
        stop = place + sum(sizes[block] for block in blocks)
        assert {int(block) for block in block_of[samples[place:stop]]} == blocks
        assert samples_in(here[:GROUP_BLOCKS]) == {*samples[place:stop].tolist()}
        for inside in (place, (place + stop) // 2, stop - 1):
            assert np.array_equal(order.ahead(inside, inside + 1), here)
        if stop < total:  # and the next group is known already
            following = order.ahead(stop, stop + 1)[:GROUP_BLOCKS]
            assert np.array_equal(here[GROUP_BLOCKS:], following)
        else:
            assert len(here) <= GROUP_BLOCKS
        left = [block for block in left if block not in blocks]
        place = stop
    assert not left
    # Some places at a time give the same as all at once.
    chosen = np.sort(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=20)))
    assert order.at(chosen).tolist() == samples[chosen].tolist()


def test_orders_differ_and_mix() -> None:
    borders = borders_of([20] * 16)
    orders = {
        tuple(BlockOrder(borders, seed=seed, epoch=epoch).at(np.arange(320)).tolist())
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100
    # Within a group, samples of its blocks lie among each other, unlike in the next group.
    firsts = np.array([order[:160] for order in orders]) // 20
    assert all(len({*row.tolist()}) == GROUP_BLOCKS for row in firsts)
    changes = (np.diff(firsts, axis=1) != 0).mean()
    assert 0.8 < changes < 0.95  # 7 / 8 if all places in a group are equally likely
    # Every block is as likely in the first group as any other.
    counts = np.bincount(np.concatenate([np.unique(row) for row in firsts]), minlength=16)
    assert counts.sum() == 800
    assert 25 < counts.min() <= counts.max() < 75


# Kept in the states of runs: it must not change between releases.
def test_golden_values() -> None:
    order = BlockOrder(borders_of([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]), seed=7, epoch=2)
    found = order.at(np.arange(44)).tolist()
    assert found == [
        3, 12, 26, 2, 38, 6, 8, 24, 29, 7, 27, 0, 36, 13, 9, 5,
        28, 25, 4, 11, 10, 23, 1, 37, 30, 18, 43, 19, 42, 34, 41, 15,
        39, 21, 32, 33, 40, 17, 16, 35, 20, 22, 31, 14,
    ]  # fmt: skip


@settings(max_examples=100)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=60), least=st.integers(1, 100))
def test_merging(sizes: list[int], least: int) -> None:
    borders = borders_of(sizes)
    total = sum(sizes)
    if not total:
        return
    merged = merge_blocks(borders, least)
    assert merged.dtype == np.int64
    assert (merged[0], merged[-1]) == (0, total)
    assert {*merged.tolist()} <= {*borders.tolist()}
    assert (np.diff(merged) > 0).all()
    # The first border at or after every multiple of `least`.
    multiples = range(0, total, least)
    firsts = {min(border for border in borders.tolist() if border >= at) for at in multiples}
    assert {*merged.tolist()} == firsts | {total}


@pytest.mark.parametrize("total", [1, 5, 1023, 1024, 1025, 10**6, 2**26 + 1, 10**12, 2**62])
def test_blocks_of_one_size(total: int) -> None:
    borders = default_blocks(total)
    sizes = np.diff(borders)
    assert (borders[0], borders[-1], borders.dtype.name) == (0, total, "int64")
    assert (sizes > 0).all()
    assert len(sizes) <= MAX_BLOCKS
    assert len({*sizes[:-1].tolist()}) <= 1
    assert sizes[0] >= min(total, 1024)


def test_very_many_blocks_become_few() -> None:
    merged = merge_blocks(np.arange(500_001) * 3, 1)
    assert MAX_BLOCKS // 2 < len(merged) - 1 <= MAX_BLOCKS
    assert merged[-1] == 1_500_000


@settings(max_examples=60)
@given(sizes=block_sizes, seed=seeds, start=st.integers(0, 300), length=st.integers(0, 90))
def test_epochs(sizes: list[int], seed: int, start: int, length: int) -> None:
    borders, total = borders_of(sizes), sum(sizes)
    order = SampleOrder(total, shuffle="block", seed=seed, blocks=borders)
    expected = [
        int(BlockOrder(borders, seed=seed, epoch=visit // total).at(np.array([visit % total]))[0])
        for visit in range(start, start + length)
    ]
    assert order.visits(start, start + length).tolist() == expected
    some = np.arange(start, start + length, 3)
    assert order.at(some).tolist() == expected[::3]
    epoch, place = divmod(start, total)
    ahead = BlockOrder(borders, seed=seed, epoch=epoch).ahead(place, place + 1)
    assert np.array_equal(order.ahead(start, start + 1), ahead)


def test_the_blocks_are_part_of_the_order() -> None:
    def order(sizes: list[int]) -> dict[str, Any]:
        return SampleOrder(
            sum(sizes), shuffle="block", seed=1, blocks=borders_of(sizes)
        ).description

    assert order([3, 4]) == order([3, 4])
    assert order([3, 4]) != order([4, 3])
    assert SampleOrder(7, shuffle=True, seed=1).description != order([3, 4])


def test_what_lies_ahead_in_other_orders() -> None:
    assert SampleOrder(9, shuffle=True, seed=0).ahead(4, 5).shape == (0, 2)
    assert SampleOrder(9, shuffle=False, seed=0).ahead(22, 23).tolist() == [[4, 9]]
    far = SampleOrder(10**9, shuffle=False, seed=0).ahead(10**9 + 50, 10**9 + 51)
    assert far[0, 0] == 50 < far[0, 1] < 10**6


class Warmed(Numbers):
    """Notes what it is told to have at hand, and that nothing else is read."""

    is_mapped = False

    def __init__(self, num_samples: int, blocks: list[int]) -> None:
        super().__init__(num_samples)
        self.blocks = blocks
        self.at_hand: set[int] = set()
        self.most = self.missed = 0

    def borders(self) -> Borders:
        return borders_of(self.blocks)

    def warm(self, runs: Borders) -> None:
        self.at_hand = samples_in(runs)
        self.most = max(self.most, len(self.at_hand))

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        self.missed += len({*samples.tolist()} - self.at_hand)
        return super().read(samples)


@pytest.mark.parametrize("shuffle", ["block", False])
@pytest.mark.parametrize("size", [256, 300, 1000])
def test_what_is_read_is_at_hand(shuffle: Any, size: int) -> None:
    source = Warmed(40 * size, [size] * 40)
    loader = DataLoader(source, 10, shuffle=shuffle, epochs=1)
    assert len(list(loader)) == 4 * size
    assert source.missed == 0
    if shuffle:
        assert source.most <= 16 * size + max(2048 + 8 * size, 16 * size)


def test_a_block_is_decoded_once_in_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"text": bytes(rng.integers(97, 123, 400, dtype=np.uint8)).decode()} for _ in range(900)
    ]
    out = tmp_path / "out"
    ed.build(rows, tokenizer="bytes", out=out, compression="zstd", part_size="4kB")
    dataset = ed.open_dataset(out)
    assert len(dataset.ledger.batch_offsets) > 40
    decoded = batches_given_to("_decode", monkeypatch)
    dataset = ed.open_dataset(out)
    loader = DataLoader(dataset, 4, 8, shuffle="block", epochs=1)
    assert len(np.unique(np.array(samples_of(loader)), axis=0)) > 40_000
    assert len(decoded) == len({*decoded}) == len(dataset.ledger.batch_offsets)


def test_any_number_of_hosts_and_any_compression_give_one_order(tmp_path: Path) -> None:
    rows = [{"text": f"Satz {i}. " * (i * 7 % 23)} for i in range(150)]
    found = []
    for compression in ("none", "zstd", "gzip"):
        out = tmp_path / compression
        dataset = ed.build(
            rows, tokenizer="bytes", out=out, compression=compression, part_size=2048
        )
        assert len(dataset.ledger.batch_offsets) > 3
        for cache_bytes in (0, "1GiB"):
            opened = ed.open_dataset(out, cache_bytes=cache_bytes)
            loader = DataLoader(opened, 6, 16, shuffle="block", seed=2, epochs=2)
            found.append(samples_of(loader))
    assert all(samples == found[0] for samples in found)
