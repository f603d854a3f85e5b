"""Rows against slices of NumPy arrays."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.loader.rows import Pieces, Rows, empty_aligned, fill_rows

DTYPES = ["uint8", "uint16", "int32", "uint64"]
PAD = 7


@dataclass
class Drawn:
    """Rows made of runs, runs made of pieces, and what they hold."""

    pieces: Pieces
    runs_in_row: npt.NDArray[np.int64] | None
    num_items: int
    dtype: np.dtype[Any]
    pad: int | None
    expected: npt.NDArray[Any]
    # For each row, where its pieces begin and end; of its padding, None.
    spans: list[list[tuple[int, int] | None]]


@st.composite
def drawn_rows(draw: st.DrawFn) -> Drawn:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    num_items = draw(st.integers(1, 9))
    size = draw(st.integers(num_items, 60))
    memory = [np.arange(n, n + size).astype(dtype) for n in (0, 80, 160)]
    one_run = draw(st.booleans())
    one_piece = one_run and draw(st.booleans())
    pads = draw(st.booleans())
    addresses: list[int] = []
    sizes: list[int] = []
    counts: list[int] = []
    runs: list[int] = []
    expected, spans = [], []
    # Where the latest piece ended, so that others often begin there.
    array, at = 0, 0
    for _ in range(draw(st.integers(0, 8))):
        row: list[int] = []
        row_spans: list[tuple[int, int] | None] = []
        wanted = draw(st.integers(1, num_items)) if pads else num_items
        runs.append(0)
        while len(row) < wanted or not runs[-1]:
            counts.append(0)
            runs[-1] += 1
            while len(row) < wanted:
                left = wanted - len(row)
                length = left if one_piece else draw(st.integers(0, left))
                if not draw(st.booleans()) or at + length > size:
                    array = draw(st.integers(0, 2))
                    at = draw(st.integers(0, size - length))
                start = memory[array].ctypes.data + at * dtype.itemsize
                addresses.append(start)
                sizes.append(length * dtype.itemsize)
                row_spans.append((start, start + sizes[-1]))
                row += memory[array][at : at + length].tolist()
                at += length
                counts[-1] += 1
                if not one_run and draw(st.booleans()):
                    break
        if len(row) < num_items:
            row_spans.append(None)
        expected.append(row + [PAD] * (num_items - len(row)))
        spans.append(row_spans)
    pieces = Pieces(
        np.array(addresses, np.int64),
        np.array(sizes, np.int64),
        None if one_piece else np.array(counts, np.int64),
        memory,
    )
    return Drawn(
        pieces,
        None if one_run else np.array(runs, np.int64),
        num_items,
        dtype,
        PAD if pads else None,
        np.array(expected, dtype).reshape(len(expected), num_items),
        spans,
    )


def is_one_run(spans: list[list[tuple[int, int] | None]]) -> bool | None:
    """Whether these pieces follow one another in memory; None where padding leaves it open."""
    flat = [span for row in spans for span in row]
    if None in flat:
        return None
    known = [span for span in flat if span is not None]
    return all(before[1] == after[0] for before, after in itertools.pairwise(known))


@settings(max_examples=200)
@given(drawn=drawn_rows(), data=st.data())
def test_any_rows(drawn: Drawn, data: st.DataObject) -> None:
    rows = fill_rows(
        drawn.pieces,
        drawn.runs_in_row,
        num_items=drawn.num_items,
        dtype=drawn.dtype,
        pad_token_id=drawn.pad,
    )
    count = len(drawn.expected)
    assert (rows.num_rows, rows.num_items, rows.dtype) == (count, drawn.num_items, drawn.dtype)
    bounds = [(0, count), *((i, i + 1) for i in range(count)), (0, 0), (count, count)]
    for _ in range(3):
        start = data.draw(st.integers(0, count))
        bounds.append((start, data.draw(st.integers(start, count))))
    for start, stop in bounds:
        expected = drawn.expected[start:stop]
        copied = rows.copy(start, stop)
        view = rows.view(start, stop)
        found = rows.read(start, stop)
        for array in (copied, found, view):
            if array is not None:
                assert array.shape == expected.shape
                assert array.dtype == drawn.dtype
                assert array.flags.c_contiguous
                assert np.array_equal(array, expected)
        assert copied.flags.writeable
        assert copied.ctypes.data % 64 == 0 or not copied.size
        assert found.flags.writeable == (view is None)
        adjacent = is_one_run(drawn.spans[start:stop])
        if start == stop:
            assert view is None
        elif adjacent is not None:
            assert (view is not None) == adjacent
        if view is not None and adjacent:
            first = drawn.spans[start][0]
            assert first is not None
            assert view.ctypes.data == first[0]
            with pytest.raises(ValueError, match="read-only"):
                view[0, 0] = 0
        copied[:] = 0  # nobody else's
        assert np.array_equal(rows.read(start, stop), expected)


def one_piece_rows(array: npt.NDArray[Any], starts: list[int], num_items: int) -> Rows:
    itemsize = array.itemsize
    return Rows(
        array.ctypes.data + np.array(starts, np.int64) * itemsize,
        np.full(len(starts), num_items * itemsize),
        num_items=num_items,
        dtype=array.dtype,
        owner=array,
    )


def test_large_and_small_pieces_from_high_to_low_addresses() -> None:
    # What Arrow sets aside follows from the first and the last address alone.
    array = np.arange(3_000_000, dtype=np.uint16)
    base = array.ctypes.data
    starts = np.array([2_000_000, 1_000_000, 5, 0], np.int64)
    sizes = np.array([999_999, 1, 1, 999_999], np.int64)
    rows = Rows(
        base + starts * 2,
        sizes * 2,
        num_items=1_000_000,
        dtype=array.dtype,
        owner=array,
        first_piece=np.array([0, 2, 4]),
    )
    expected = [
        np.append(array[2_000_000:2_999_999], array[1_000_000]),
        np.append(array[5], array[:999_999]),
    ]
    assert np.array_equal(rows.read(0, 2), expected)
    assert np.array_equal(rows.copy(1, 2), expected[1:])


@pytest.mark.parametrize("few", [0, 500])
def test_a_copy_takes_no_more_memory_than_it_holds(few: int) -> None:
    """Also where some rows have many pieces and others one, or all but a few have one."""
    array = np.arange(1 << 20, dtype=np.uint16)
    counts = np.array([1] * (1000 - few) + [64] * few + [2])
    first_piece = np.append(0, counts.cumsum())
    sizes = (2048 // counts).repeat(counts)
    starts = np.random.default_rng(0).integers(0, len(array) - 1024, len(sizes))
    rows = Rows(
        array.ctypes.data + 2 * starts,
        sizes,
        num_items=1024,
        dtype=array.dtype,
        owner=array,
        first_piece=first_piece,
    )
    pool = pa.default_memory_pool()
    for start, stop in ((0, 1001), (0, 400), (600, 1001), (998, 1001), (999, 1000)):
        # From here on, more is more than there ever was.
        filler = pa.allocate_buffer(pool.max_memory() - pool.bytes_allocated())
        before = pool.max_memory()
        allocations = pool.num_allocations()
        copied = rows.copy(start, stop)
        # Of the values, of where each ends, of which are missing; another would be a larger buffer.
        assert pool.num_allocations() - allocations == 3
        pieces = slice(first_piece[start], first_piece[stop])
        # Arrow also has a number of 8 bytes and a bit for each piece.
        most = copied.nbytes + 9 * (pieces.stop - pieces.start) + 1024
        assert copied.nbytes <= pool.max_memory() - before <= most
        expected = [
            array[s : s + n // 2] for s, n in zip(starts[pieces], sizes[pieces], strict=True)
        ]
        assert np.array_equal(copied.ravel(), np.concatenate(expected))
        del copied, filler


@pytest.mark.parametrize("address_bits", [0, 1])
def test_items_at_odd_addresses(address_bits: int) -> None:
    memory = np.arange(101, dtype=np.uint8)
    odd = np.frombuffer(memory.data, np.uint16, 50, address_bits)
    rows = one_piece_rows(odd, [0, 10, 20], 10)
    assert np.array_equal(rows.read(0, 3), odd[:30].reshape(3, 10))
    assert np.array_equal(rows.copy(1, 3), odd[10:30].reshape(2, 10))


class Owner:
    """Can be referred to weakly."""


def test_views_keep_the_owner_alive_and_copies_do_not() -> None:
    array = np.arange(100, dtype=np.uint16)
    owner = Owner()
    alive = weakref.ref(owner)
    rows = Rows(
        np.array([array.ctypes.data]),
        np.array([40]),
        num_items=20,
        dtype=array.dtype,
        owner=(owner, array),
    )
    view, copied = rows.view(0, 1), rows.copy(0, 1)
    assert view is not None
    part = view[0, 3:5]
    del rows, owner, array, view
    gc.collect()
    assert alive() is not None
    assert part.tolist() == [3, 4]
    del part
    gc.collect()
    assert alive() is None
    assert copied.tolist() == [list(range(20))]


def test_rows_keep_padding_and_owner_alive() -> None:
    array = np.arange(10, dtype=np.uint16)
    owner = Owner()
    alive = weakref.ref(owner)
    pieces = Pieces(np.array([array.ctypes.data]), np.array([20]), None, (owner, array))
    rows = fill_rows(pieces, None, num_items=1000, dtype=array.dtype, pad_token_id=PAD)
    del pieces, owner, array
    gc.collect()
    junk = [np.full(1000, 3, np.uint16) for _ in range(50)]
    assert alive() is not None
    assert rows.read(0, 1).tolist() == [[*range(10), *[PAD] * 990]]
    del rows, junk
    gc.collect()
    assert alive() is None


def test_copies_outlive_what_they_were_copied_from() -> None:
    kept = []
    for n in range(50):
        array = np.full(5000, n, np.uint16)
        kept.append(one_piece_rows(array, [0, 2000, 10], 1000).copy(0, 3))
        array[:] = 9999
        del array
    gc.collect()
    assert [set(np.unique(copied).tolist()) for copied in kept] == [{n} for n in range(50)]


def test_threads() -> None:
    array = np.arange(60_000, dtype=np.uint16)
    starts = np.random.default_rng(0).integers(0, 59_000, 500).tolist()
    rows = one_piece_rows(array, starts, 1000)

    def check(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            start = int(rng.integers(0, 490))
            found = rows.read(start, start + 10)
            expected = [array[s : s + 1000] for s in starts[start : start + 10]]
            if not np.array_equal(found, expected):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(8)))


FORK = """
import os, signal
import numpy as np
from easydata.loader.rows import Rows
array = np.arange(1000, dtype=np.uint16)
starts = np.array([500, 0, 100])
rows = Rows(array.ctypes.data + 2 * starts, np.full(3, 200), num_items=100, dtype=array.dtype,
            owner=array)
kept, view = rows.copy(0, 3), rows.view(1, 3)
expected = [array[s:s + 100].tolist() for s in starts]
child = os.fork()
if not child:
    signal.alarm(60)
    for _ in range(100):
        assert rows.read(0, 3).tolist() == expected
    assert kept.tolist() == expected and view.tolist() == expected[1:]
    kept[:] = 0
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert kept.tolist() == expected
"""


def test_a_forked_child_reads_too() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shape", [(), (0, 5), (1, 1), (3, 7), (256, 2048)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_aligned(shape: tuple[int, ...], dtype: str) -> None:
    kept = [empty_aligned(shape, np.dtype(dtype)) for _ in range(5)]
    for number, array in enumerate(kept):
        assert (array.shape, array.dtype.name, array.flags.writeable) == (shape, dtype, True)
        assert array.ctypes.data % 64 == 0 or not array.size
        array[...] = number
    assert all((array == number).all() for number, array in enumerate(kept))


@pytest.mark.parametrize(
    ("sizes", "counts", "pad", "message"),
    [
        ([20, 18], None, None, "row 1 was located as 18 bytes, but it has 20"),
        ([20, 22], None, None, "row 1 was located as 22 bytes"),
        ([20, 22], None, PAD, "row 1 was located as 22 bytes"),
        ([10, 8, 20], [2, 1], None, "row 0 was located as 18 bytes"),
        ([20, 10, 12], [1, 2], PAD, "row 1 was located as 22 bytes"),
    ],
)
def test_runs_that_are_no_rows(
    sizes: list[int], counts: list[int] | None, pad: int | None, message: str
) -> None:
    array = np.arange(100, dtype=np.uint16)
    addresses = np.full(len(sizes), array.ctypes.data)
    pieces = Pieces(addresses, np.array(sizes), None if counts is None else np.array(counts), array)
    with pytest.raises(ValueError, match=message):
        fill_rows(pieces, None, num_items=10, dtype=array.dtype, pad_token_id=pad)
