from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader
from easydata.loader.rows import fill_rows

from .sequences import samples_of


@settings(max_examples=100)
@given(
    size=st.integers(1, 200),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "uint32", "int64"]),
    step=st.sampled_from([1, 2, -1]),
    data=st.data(),
)
def test_runs(size: int, dtype: str, step: int, data: st.DataObject) -> None:
    array = np.arange(2 * size).astype(dtype)[::step][:size]
    tokens = ArrayTokens(array)
    assert (tokens.num_tokens, tokens.dtype.name) == (size, dtype)
    width = data.draw(st.integers(1, size))
    starts = data.draw(st.lists(st.integers(0, size - width), max_size=9))
    lengths = [data.draw(st.integers(1, width)) for _ in starts]
    pieces = tokens.locate(np.array(starts, np.int64), np.array(lengths, np.int64))
    rows = fill_rows(pieces, None, num_items=width, dtype=tokens.dtype, pad_token_id=0)
    found = rows.read(0, len(starts)).tolist()
    for row, start, length in zip(found, starts, lengths, strict=True):
        assert row == [*array[start : start + length].tolist(), *[0] * (width - length)]
        assert tokens.tokens(start, start + length).tolist() == row[:length]


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (-1, 2),
        (9, 2),
        (10, 1),
        (11, 0),
        (0, 11),
        (5, -1),
        (0, -(2**63)),
        (2**63 - 1, 1),
        (2**62, 5),
    ],
)
def test_runs_outside(start: int, length: int) -> None:
    tokens = ArrayTokens(np.arange(10))
    with pytest.raises(IndexError, match=f"{length} tokens from {start} on, of 10"):
        tokens.locate(np.array([3, start]), np.array([1, length]))
    with pytest.raises(IndexError, match=f"{length} tokens from {start} on, of 10"):
        tokens.locate(np.array([start]), length)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 11), (11, 11)])
def test_slices_outside(start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=f"tokens {start} to {stop} of 10"):
        ArrayTokens(np.arange(10)).tokens(start, stop)


def test_what_is_handed_out_cannot_be_changed() -> None:
    array = np.arange(100, dtype=np.uint16)
    tokens = ArrayTokens(array)
    view = tokens.tokens(10, 20)
    batch = next(iter(DataLoader(tokens, 2, 10, shuffle=False)))
    for found in (view, batch["input_ids"]):
        assert np.shares_memory(found, array)
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 0
    array[3] = 1  # that of the caller stays writable


def test_a_memory_map_is_not_copied_and_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    np.arange(50_000, dtype=np.uint16).tofile(path)
    array = np.memmap(path, np.uint16, "r")
    address = array.ctypes.data
    loader = DataLoader(ArrayTokens(array), 4, 100, shuffle=False)
    iterator = iter(loader)
    view = next(iterator)["input_ids"]
    assert view.ctypes.data == address
    path.unlink()
    del array
    gc.collect()
    assert next(iterator)["input_ids"].ctypes.data == address + 800
    iterator.close()
    del iterator, loader
    gc.collect()
    assert view.ravel().tolist() == list(range(400))


def test_the_fingerprint_follows_from_the_tokens(tmp_path: Path) -> None:
    array = np.arange(1000, dtype=np.uint16)
    array.tofile(tmp_path / "ids")
    same = [
        ArrayTokens(array),
        ArrayTokens(np.repeat(array, 2)[::2]),
        ArrayTokens(np.memmap(tmp_path / "ids", np.uint16, "r")),
        ArrayTokens(array, [400, 0, 600]),
    ]
    # Kept in states: it must not change between releases.
    assert {tokens.fingerprint for tokens in same} == {"786262fee7c4299657f75391ec0623aa"}
    changed = array.copy()
    changed[999] += 1
    others: list[Any] = [changed, array[:-1], array[::-1], array.astype(np.uint32)]
    prints = {DataLoader(ArrayTokens(other), 2, 10).sequence["tokens"] for other in others}
    assert len(prints | {DataLoader(same[0], 2, 10).sequence["tokens"]}) == 5
    assert ArrayTokens(array, fingerprint="mine").fingerprint == "mine"


def test_a_given_fingerprint_spares_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # to read it all would take many seconds
    array = np.memmap(path, np.uint16, "r")
    loader = DataLoader(ArrayTokens(array, fingerprint="zeros"), 2, 2048)
    assert not next(iter(loader))["input_ids"].any()


def test_documents() -> None:
    lengths = [3, 0, 4, 1]
    tokens = ArrayTokens(np.arange(8), lengths)
    assert tokens.lengths().tolist() == lengths
    assert tokens.lengths().dtype == np.int64
    assert ArrayTokens(np.arange(8)).lengths().tolist() == [8]
    loader = DataLoader(tokens, 1, 4, pack="greedy", pad_token_id=99, shuffle=False, epochs=1)
    assert samples_of(loader) == [[0, 1, 2, 99], [3, 4, 5, 6], [7, 99, 99, 99]]


def test_pickling() -> None:
    tokens = ArrayTokens(np.arange(100), [40, 60], fingerprint="x")
    other = pickle.loads(pickle.dumps(tokens))
    assert (other.fingerprint, other.lengths().tolist()) == ("x", [40, 60])
    found = samples_of(DataLoader(other, 5, 10, epochs=1))
    assert found == samples_of(DataLoader(tokens, 5, 10, epochs=1))


@pytest.mark.parametrize(
    ("array", "lengths", "message"),
    [
        (np.arange(6).reshape(2, 3), None, "int64 in 2 dimensions is no stream of tokens; give"),
        (np.array(5), None, "in 0 dimensions"),
        (np.arange(5.0), None, "an array of float64 in 1 dim"),
        (np.array([True, False]), None, "an array of bool in 1 dim"),
        (["a", "b"], None, "in 1 dimensions is no stream"),
        (np.array([1, None]), None, "an array of object"),
        ([[1, 2], [3]], None, "no stream of tokens"),
        (np.arange(5).astype(">u2"), None, "an array of >u2"),
        (np.arange(5), [2, 2], "lengths of the documents add up to 4, but there are 5 tokens"),
        (np.arange(5), [6, -1], "document 1 has length -1"),
        (np.arange(5), [2.5, 2.5], "the lengths are float64"),
        (np.arange(5), 5, "the lengths are int64 in 0 dimensions"),
        (np.arange(5), [], "add up to 0, but there are 5"),
    ],
)
def test_wrong_arguments(array: Any, lengths: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ArrayTokens(array, lengths)


@pytest.mark.parametrize("starts", [np.array([0, 1], np.int32), np.array([0.0, 1.0])])
def test_numbers_of_another_type(starts: Any) -> None:
    tokens = ArrayTokens(np.arange(9))
    with pytest.raises(UsageError, match=f"the starts of runs are {starts.dtype}; give int64"):
        tokens.locate(starts, 2)
    with pytest.raises(UsageError, match=f"the lengths of runs are {starts.dtype}; give int64"):
        tokens.locate(np.array([0, 1]), starts)


FORK = """
import os, signal, sys
import numpy as np
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader
loader = DataLoader(ArrayTokens(np.arange(5000, dtype=np.uint16)), 4, 50, seed=1)
iterator = iter(loader)
kept = [next(iterator)["input_ids"] for _ in range(7)]
copies = [batch.copy() for batch in kept]
child = os.fork()
mine = [next(iterator)["input_ids"].tolist() for _ in range(60)]
again = DataLoader(ArrayTokens(np.arange(5000, dtype=np.uint16)), 4, 50, seed=1)
expected = [batch["input_ids"].tolist() for batch, _ in zip(again, range(67))]
assert [batch.tolist() for batch in kept] + mine == expected
assert all((a == b).all() for a, b in zip(kept, copies))
if not child:
    os._exit(0)
signal.alarm(60)
assert os.waitpid(child, 0)[1] == 0
"""


def test_an_iteration_goes_on_in_a_forked_child() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
