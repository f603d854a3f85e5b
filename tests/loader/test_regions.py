"""Regions against a search that looks at them one by one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.loader import regions as regions_module
from easydata.loader.regions import Regions

Int64Array = npt.NDArray[np.int64]


def firsts_of(sizes: list[int]) -> Int64Array:
    return np.append(0, np.cumsum(sizes)).astype(np.int64)


def region_of(sizes: list[int], position: int) -> int:
    """The last region that begins at a position or before it."""
    found, begin = -1, 0
    for number, size in enumerate(sizes):
        if begin <= position:
            found = number
        begin += size
    return found


def pieces_of(sizes: list[int], start: int, length: int) -> list[tuple[int, int, int]]:
    """Region, start in it and length of each piece, found item by item."""
    holder = [(number, at) for number, size in enumerate(sizes) for at in range(size)]
    found: list[tuple[int, int, int]] = []
    for number, at in holder[start : start + length]:
        if found and found[-1][0] == number:
            found[-1] = (number, found[-1][1], found[-1][2] + 1)
        else:
            found.append((number, at, 1))
    return found


sizes_of_regions = st.lists(st.integers(0, 9) | st.sampled_from([0, 1, 40]), max_size=30)


@settings(max_examples=300)
@given(sizes=sizes_of_regions, entries=st.sampled_from([1, 2, 8, 4096]), data=st.data())
def test_any_regions(sizes: list[int], entries: int, data: st.DataObject) -> None:
    total = sum(sizes)
    runs = data.draw(
        st.lists(
            st.integers(0, total).flatmap(
                lambda start: st.tuples(st.just(start), st.integers(0, total - start))
            ),
            max_size=12,
        )
    )
    with mock.patch.multiple(regions_module, _LEAST_ENTRIES=entries, _MOST_ENTRIES=entries):
        regions = Regions(firsts_of(sizes))
    everywhere = np.arange(total + 1)
    assert regions.find(everywhere).tolist() == [region_of(sizes, p) for p in range(total + 1)]
    starts, lengths = (np.array([run[i] for run in runs], np.int64) for i in (0, 1))
    found = regions.split(starts, lengths)
    counts = np.ones(len(runs), np.int64) if found.counts is None else found.counts
    ends = counts.cumsum()
    for end, count, (start, length) in zip(ends, counts, runs, strict=True):
        part = slice(end - count, end)
        pieces = [
            (int(region), int(begin), int(size))
            for region, begin, size in zip(
                found.regions[part], found.starts[part], found.lengths[part], strict=True
            )
            if size  # a region without items between two others is a piece of its own
        ]
        assert pieces == pieces_of(sizes, start, length)
        assert count >= 1


def test_one_length_for_all_runs() -> None:
    regions = Regions(firsts_of([10, 10, 10]))
    found = regions.split(np.array([0, 8, 20, 5]), 5)
    assert found.counts is not None
    assert found.counts.tolist() == [1, 2, 1, 1]
    assert found.regions.tolist() == [0, 0, 1, 2, 0]
    assert found.starts.tolist() == [0, 8, 0, 0, 5]
    assert found.lengths.tolist() == [5, 2, 3, 5, 5]
    whole = regions.split(np.array([20, 0]), 10)
    assert whole.counts is None
    assert whole.regions.tolist() == [2, 0]


@pytest.mark.parametrize(
    "sizes", [[5] * 70_000, [1 << 40] * 1000, [1, 1 << 50, 3], [7] * 5000, [1 << 61]]
)
def test_long_streams(sizes: list[int]) -> None:
    firsts = firsts_of(sizes)
    regions = Regions(firsts)
    rng = np.random.default_rng(0)
    positions = np.concatenate(
        [rng.integers(0, firsts[-1], 2000), firsts, firsts[1:] - 1, np.maximum(firsts - 2, 0)]
    )
    expected = np.minimum(firsts.searchsorted(positions, side="right") - 1, len(sizes) - 1)
    assert np.array_equal(regions.find(positions), expected)


@pytest.mark.parametrize("count", [1, 127, 128, 255, 256, 257, 32_768, 65_535, 65_536, 65_537])
def test_any_number_of_regions(count: int) -> None:
    regions = Regions(np.arange(count + 1))  # a table of as few bytes as their numbers take
    assert np.array_equal(regions.find(np.arange(count)), np.arange(count))
    assert regions.split(np.array([0]), count).regions.tolist() == list(range(count))


@pytest.mark.parametrize("count", [1, 1000, 3_000_000])
def test_a_table_is_bounded(count: int) -> None:
    regions: Any = Regions(np.arange(count + 1) * 1000)
    assert regions._table.nbytes <= 2 * 4 * regions_module._MOST_ENTRIES + 8
    # Enough entries that most positions need no search, where there are not too many regions.
    if count <= 1000:
        guess = regions._table.take(np.arange(count * 1000) >> regions._shift)
        assert (guess == np.arange(count * 1000) // 1000).mean() > 0.85


def test_shares_no_more_than_the_first_items() -> None:
    firsts = firsts_of([3, 4])
    found = Regions(firsts).split(np.array([0, 3]), np.array([3, 4]))
    for array in found[:3]:
        array[:] = -1
    assert firsts.tolist() == [0, 3, 7]
