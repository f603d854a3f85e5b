"""Snapshots: nothing outside changes what the next thaw returns."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given

from easydata.cache.values import freeze
from tests.cache.test_cache_values import SLOW
from tests.cache.values_strategy import FLAT_DICTS, VALUES, assert_same


def spoil(value: Any, *, dtypes: bool = False) -> None:
    """Change everything in a value that lets itself be changed."""
    if isinstance(value, dict):
        for item in value.values():
            spoil(item, dtypes=dtypes)
        value.clear()
        value["spoiled"] = True
    elif isinstance(value, (list, tuple)):
        for item in value:
            spoil(item, dtypes=dtypes)
        if isinstance(value, list):
            value.append("spoiled")
    elif isinstance(value, np.ndarray):
        if value.dtype.names and dtypes:
            value.dtype.names = tuple(f"spoiled{at}" for at in range(len(value.dtype.names)))
        if value.flags.writeable:
            value.view(np.ndarray)[...] = np.ones((), value.dtype)
    elif isinstance(value, np.void) and value.dtype.names:
        value[0] = 77


@SLOW
@given(VALUES | FLAT_DICTS)
def test_thaws_are_equal_and_independent(value: Any) -> None:
    before = copy.deepcopy(value)
    frozen = freeze(value)
    spoil(value)
    assert_same(before, frozen.thaw())
    spoil(frozen.thaw(), dtypes=True)
    spoil(frozen.thaw(), dtypes=True)
    assert_same(before, frozen.thaw())
    assert frozen.nbytes >= 0


def test_arrays_are_copied_once_and_shared_read_only() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    frozen = freeze({"a": array, "b": [array[0]], "c": (array[:, 1], [array])})
    array[:] = -1
    first, second = frozen.thaw(), frozen.thaw()
    assert first["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert first["a"] is second["a"]
    assert first["c"] is not second["c"]
    for view in (first["a"], first["b"][0], first["c"][0], first["c"][1][0]):
        assert view.flags.c_contiguous
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            view.flags.writeable = True


def test_arrow_memory_of_the_caller_is_copied() -> None:
    array = np.arange(100)
    table = pa.Table.from_arrays([pa.array(array)], names=["a"])
    frozen = freeze({"t": table})
    array[:] = -1
    assert frozen.thaw()["t"]["a"].to_pylist() == list(range(100))


def test_frames_are_made_anew() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    frozen = freeze([frame])
    expected = frame.copy(deep=True)
    frame.loc[0, "a"] = 9
    thawed = frozen.thaw()[0]
    thawed.loc[1, "a"] = 9
    thawed.attrs["new"] = 1
    pd.testing.assert_frame_equal(frozen.thaw()[0], expected)
    assert frozen.thaw()[0].attrs == {}


def test_a_batch_encoding_thaws_as_a_dict() -> None:
    from transformers import BatchEncoding

    value = BatchEncoding({"input_ids": [1, 2]})
    frozen = freeze(value)
    value["input_ids"].append(3)
    assert_same({"input_ids": [1, 2]}, frozen.thaw())


def test_nbytes_counts_what_is_held() -> None:
    assert 80_000 <= freeze({"a": np.zeros(10_000)}).nbytes < 81_000
    assert 80_000 <= freeze([(np.zeros((100, 100)),)]).nbytes < 81_000
    assert 80_000 <= freeze("x" * 80_000).nbytes < 81_000
    assert 80_000 <= freeze(["x" * 40_000, b"y" * 40_000]).nbytes < 81_000
    assert 80_000 <= freeze(pa.table({"a": np.zeros(10_000)})).nbytes < 82_000
    assert 10_000 * 16 <= freeze(list(range(10_000))).nbytes < 10_000 * 64
    assert 1_000 <= freeze({"k" * 1000: None}).nbytes < 2_000
    assert freeze(None).nbytes > 0


def test_shared_parts_are_not_counted_as_new_objects() -> None:
    frozen = freeze((1, "a", (b"x", None)))
    assert frozen.thaw() is frozen.thaw()


def test_threads_get_containers_of_their_own() -> None:
    frozen = freeze({"a": [1], "b": {"c": [2]}})
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(frozen.thaw())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [{"a": [1], "b": {"c": [2]}}] * 8
    assert len({id(value["b"]["c"]) for value in seen}) == 8
