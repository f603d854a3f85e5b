"""What must hold of the arrays of JAX. `test_jax_data.py` runs this in a process of its own, with
eight devices: forks after JAX was used warn, and its first use fixes the number of devices.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import shutil
import traceback
import weakref
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest

import easydata as ed
from easydata.errors import UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader
from easydata.loader.jax_data import to_device
from easydata.loader.samples import ConcatSamples
from tests.loader.sources import Numbers

SEQ_LEN = 32


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def tokens(count: int = 8 * 40 * SEQ_LEN) -> np.ndarray:
    """uint16[count], all different as far as they can be, at an address that is aligned."""
    array = np.ndarray((count,), np.uint16, pa.allocate_buffer(2 * count))
    array[:] = np.arange(count) * 7919 % 65521
    return array


def samples(array: np.ndarray) -> ConcatSamples:
    return ConcatSamples(ArrayTokens(array), SEQ_LEN)


def documents(count: int = 60) -> ArrayTokens:
    lengths = np.arange(count) * 13 % 50 + 1
    return ArrayTokens(np.arange(lengths.sum()).astype(np.uint16), lengths)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": chr(97 + i % 26) * (300 + i)} for i in range(40)]
    out = tmp_path_factory.mktemp("data") / "ds"
    ed.build(rows, tokenizer="bytes", out=out, dtype="uint16", progress="none")
    return out


def assert_equal(found: Any, expected: Any) -> None:
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert isinstance(mine[name], jax.Array)
            np.testing.assert_array_equal(np.asarray(mine[name]), theirs[name])


# --- Memory


def test_views_and_copies_are_used_where_they_are() -> None:
    array = tokens()
    size = 4 * SEQ_LEN * 2
    for number, batch in enumerate(DataLoader(samples(array), 4, shuffle=False, epochs=1).to_jax()):
        assert batch["input_ids"].unsafe_buffer_pointer() == address(array) + number * size
    # Several of these are copied into one buffer.
    for batch in itertools.islice(DataLoader(samples(array), 4), 50):
        assert batch["input_ids"].flags.writeable
        assert to_device(batch)["input_ids"].unsafe_buffer_pointer() == address(batch["input_ids"])


def test_memory_lives_as_long_as_the_arrays_on_it() -> None:
    array = tokens()
    expected = array.reshape(-1, 8, SEQ_LEN).copy()
    is_alive = weakref.ref(array)
    batches = DataLoader(samples(array), 8, shuffle=False, epochs=1).to_jax()
    del array
    kept = [batch["input_ids"] for batch in batches]
    del batches
    gc.collect()
    assert is_alive() is not None
    assert_equal([{"ids": ids} for ids in kept], [{"ids": ids} for ids in expected])
    del kept
    gc.collect()
    assert is_alive() is None


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_folder_may_go_while_arrays_live(dataset: Path, tmp_path: Path, shuffle: bool) -> None:
    folder = shutil.copytree(dataset, tmp_path / "ds")
    loader = DataLoader(ed.open_dataset(folder), 4, SEQ_LEN, shuffle=shuffle, epochs=1)
    expected = [batch["input_ids"].copy() for batch in loader]
    kept = [batch["input_ids"] for batch in loader.to_jax()]
    del loader
    shutil.rmtree(folder)
    gc.collect()
    other = [np.full(4 * SEQ_LEN, 9, np.uint16) for _ in range(1000)]  # in what became free
    assert_equal([{"ids": ids} for ids in kept], [{"ids": ids} for ids in expected])
    assert len(other) == 1000


def test_a_donated_batch_never_writes_into_the_dataset(dataset: Path) -> None:
    before = {path: path.read_bytes() for path in dataset.glob("*.arrow")}
    loader = DataLoader(ed.open_dataset(dataset), 4, SEQ_LEN, shuffle=False, epochs=1)
    assert all(not batch["input_ids"].flags.writeable for batch in loader)
    add = jax.jit(lambda ids: ids + 1, donate_argnums=0)
    added = [add(batch["input_ids"]) for batch in loader.to_jax()]
    assert_equal(
        [{"ids": ids} for ids in added], [{"ids": b["input_ids"] + np.uint16(1)} for b in loader]
    )
    assert {path: path.read_bytes() for path in dataset.glob("*.arrow")} == before


# --- The same batches


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("pack", ["concat", "greedy"])
def test_the_batches_are_those_of_the_loader(pack: str, prefetch: int) -> None:
    columns = ["labels", "loss_mask"]
    if pack == "greedy":
        columns += ["segment_ids", "positions"]
    loader = DataLoader(
        documents(), 4, SEQ_LEN, pack=pack, columns=columns, pad_token_id=0, epochs=2
    )
    batches = loader.to_jax(prefetch=prefetch)
    assert len(batches) == len(loader)
    assert_equal(batches, loader)
    assert_equal(batches, loader)  # anew
    first = next(iter(batches))
    assert first["input_ids"].dtype == np.uint16
    assert all(array.devices() == {jax.devices()[0]} for array in first.values())
    with jax.default_device(jax.devices()[3]):
        first = next(iter(batches))
    assert all(array.devices() == {jax.devices()[3]} for array in first.values())
    there = jax.device_put(np.zeros(SEQ_LEN, np.uint16), jax.devices()[5])
    assert (there + first["input_ids"]).devices() == {jax.devices()[5]}


@pytest.mark.parametrize("hosts", [1, 2, 4, 8])
def test_the_shares_of_hosts_make_the_batch(hosts: int) -> None:
    whole = list(DataLoader(Numbers(50), 8, epochs=1))
    shares = [
        DataLoader(Numbers(50), 8, epochs=1, shard_index=host, shard_count=hosts).to_jax()
        for host in range(hosts)
    ]
    found = [
        np.concatenate([part["input_ids"] for part in parts]) for parts in zip(*shares, strict=True)
    ]
    np.testing.assert_array_equal(found, [batch["input_ids"] for batch in whole])


# --- State


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_state_is_where_the_reader_is(prefetch: int) -> None:
    mixed = {"a": Numbers(23), "b": Numbers(17, base=100)}
    loader = DataLoader(mixed, 4, weights=[0.75, 0.25], epochs=3)
    plain, iterator = iter(loader), iter(loader.to_jax(prefetch=prefetch))
    states, batches = [iterator.state_dict()], []
    assert states[0] == plain.state_dict()
    for expected, batch in zip(plain, iterator, strict=True):
        assert_equal([batch], [expected])
        batches.append(expected)
        assert iterator.stats == plain.stats
        states.append(json.loads(json.dumps(iterator.get_state())))
        assert states[-1] == plain.state_dict()
    for step, state in enumerate(states):
        iterator.set_state(state)
        assert iterator.state_dict() == state
        assert_equal(iterator, batches[step:])
        other = DataLoader(mixed, 4, weights=[0.75, 0.25], epochs=3)
        other.load_state_dict(state)
        assert_equal(other.to_jax(prefetch=prefetch), batches[step:])


def test_a_state_that_is_refused_changes_nothing() -> None:
    iterator = iter(DataLoader(Numbers(23), 4, epochs=1).to_jax())
    next(iterator)
    with pytest.raises(UsageError, match="seed was 5 and is 0"):
        iterator.load_state_dict(DataLoader(Numbers(23), 4, epochs=1, seed=5).state_dict())
    state = iterator.state_dict()
    state["order"].clear()  # it is the reader's
    assert iterator.state_dict()["samples"] == 4
    assert iterator.state_dict()["order"]
    assert_equal(iterator, itertools.islice(DataLoader(Numbers(23), 4, epochs=1), 1, None))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_loader_stands_where_the_reader_does(prefetch: int) -> None:
    loader = DataLoader(Numbers(23), 4, epochs=2)
    expected = list(loader)
    batches = loader.to_jax(prefetch=prefetch)
    iterator = iter(batches)
    assert loader.state_dict()["samples"] == 0
    for step in range(1, 4):
        next(iterator)
        assert loader.state_dict() == iterator.state_dict()
        assert loader.state_dict()["samples"] == 4 * step
        assert loader.stats.batches == step
    state = loader.state_dict()
    loader.load_state_dict(state)
    assert_equal(batches, expected[3:])
    assert_equal(batches, expected)


# --- Reading ahead, its errors and its end


class Watched(Numbers):
    """Notes which samples are read, and raises an error before one of them."""

    def __init__(self, num_samples: int, error: BaseException | None = None, at: int = 0) -> None:
        super().__init__(num_samples)
        self.read_so_far: list[int] = []
        self.error, self.at = error, at

    def read(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        if self.error is not None and self.at in samples:
            error = self.error
            if not isinstance(error, Exception):
                self.error = None  # once
            raise error
        self.read_so_far.extend(samples.tolist())
        return super().read(samples)


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_so_many_are_put_beyond_the_one_that_is_asked_for(prefetch: int) -> None:
    source = Watched(40)
    iterator = iter(DataLoader(source, 2, shuffle=False).to_jax(prefetch=prefetch))
    assert not source.read_so_far
    for step in range(1, 30):
        next(iterator)
        assert len(source.read_so_far) == 2 * (step + prefetch)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_comes_in_its_turn_with_its_traceback_and_is_tried_again(threads: int) -> None:
    source = Watched(40, ValueError("broken"), at=12)
    iterator = iter(DataLoader(source, 2, shuffle=False, epochs=1, prefetch=threads).to_jax())
    for step in range(6):
        assert np.asarray(next(iterator)["input_ids"])[:, 0].tolist() == [2 * step, 2 * step + 1]
    for _ in range(3):  # never an end that looks like that of the data
        with pytest.raises(ValueError, match="broken") as caught:
            next(iterator)
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert Path(__file__).name in [Path(frame.filename).name for frame in frames[1:]]
    assert iterator.state_dict()["samples"] == 12
    source.error = None
    found = [np.asarray(batch["input_ids"])[:, 0].tolist() for batch in iterator]
    assert found == [[step, step + 1] for step in range(12, 40, 2)]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 3, 4, 11])
def test_no_batch_is_lost_where_putting_fails(
    monkeypatch: pytest.MonkeyPatch, at: int, error: type[BaseException]
) -> None:
    put, calls = jax.device_put, itertools.count()

    def fails_once(arrays: Any) -> Any:
        if next(calls) == at:
            raise error("busy")
        return put(arrays)

    monkeypatch.setattr(jax, "device_put", fails_once)
    iterator = iter(DataLoader(Numbers(24), 2, shuffle=False, epochs=1).to_jax(prefetch=3))
    found: list[list[int]] = []

    def read_on() -> None:
        found.extend(np.asarray(batch["input_ids"])[:, 0].tolist() for batch in iterator)

    with pytest.raises(error, match="busy"):
        read_on()
    # An error waits for its turn, an interrupt for nothing.
    assert len(found) == (at if error is OSError else max(at - 3, 0))
    assert iterator.state_dict()["samples"] == 2 * len(found)
    read_on()
    assert found == [[step, step + 1] for step in range(0, 24, 2)]


def test_the_end_holds_on_to_nothing() -> None:
    def read_all() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        iterator = iter(DataLoader(Numbers(12), 4, epochs=1).to_jax())
        mine = Numbers(1)  # such as parameters, in whose frame the end was seen
        for _ in range(3):
            next(iterator)
        for _ in range(2):
            with contextlib.suppress(StopIteration):
                next(iterator)
        return weakref.ref(iterator), weakref.ref(mine)

    gc.collect()
    gc.disable()
    try:
        assert [held() for held in read_all()] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("at", [0, 5, 6, 9])
def test_after_an_interrupt_it_goes_on_without_a_gap(at: int) -> None:
    source = Watched(12, KeyboardInterrupt(), at=at)
    iterator = iter(DataLoader(source, 2, shuffle=False, epochs=1).to_jax())
    found: list[int] = []
    interrupts = 0
    while True:
        try:
            for batch in iterator:
                found += np.asarray(batch["input_ids"])[:, 0].tolist()
            break
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 1
    assert found == list(range(12))


def test_after_the_end_or_a_close_there_is_nothing_more() -> None:
    batches = DataLoader(Numbers(12), 4, epochs=1).to_jax()
    iterator = iter(batches)
    assert len(list(iterator)) == 3
    assert not list(iterator)
    iterator = iter(batches)
    next(iterator)
    iterator.close()
    assert not list(iterator)
    assert iterator.stats.batches == 1


# --- Types


def test_tokens_become_another_type_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = DataLoader(documents(), 4, SEQ_LEN, columns=["loss_mask"], epochs=1)
    put, sent = jax.device_put, []
    monkeypatch.setattr(
        jax, "device_put", lambda x: sent.extend(a.dtype for a in x.values()) or put(x)
    )
    batches = list(loader.to_jax(dtype=jax.numpy.int32))
    assert set(map(str, sent)) == {"uint16", "bool"}
    assert {name: str(array.dtype) for name, array in batches[0].items()} == {
        "input_ids": "int32",
        "loss_mask": "bool",
    }
    assert_equal(batches, loader)


def test_types_that_would_lose_tokens_are_refused() -> None:
    loader = DataLoader(documents(), 4, SEQ_LEN)
    for dtype, message in {
        "float32": "whole numbers",
        "ids": "whole numbers",
        "int64": "jax_enable_x64",
        "int16": "does not hold every uint16",
        "uint8": "does not hold every uint16",
    }.items():
        with pytest.raises(UsageError, match=message):
            next(iter(loader.to_jax(dtype=dtype)))
    for stored, dtype in [("uint32", "int32"), ("int64", "int32"), ("int32", "uint32")]:
        found = next(iter(DataLoader(documents(), 4, SEQ_LEN, dtype=stored).to_jax(dtype=dtype)))
        assert found["input_ids"].dtype == dtype


def test_numbers_of_64_bits_are_never_cut_off() -> None:
    for values in ([2**31 - 1, -(2**31)], [0, 5]):
        found = to_device({"document_ids": np.array(values)})["document_ids"]
        assert found.dtype == np.int32
        assert found.tolist() == values
    for value, dtype in [(2**31, "int64"), (-(2**31) - 1, "int64"), (2**32, "uint64")]:
        array = np.array([[0, value]], dtype)
        with pytest.raises(UsageError, match=rf"'document_ids' holds {value}, .*jax_enable_x64"):
            to_device({"document_ids": array})
        with jax.enable_x64(True):
            assert to_device({"document_ids": array})["document_ids"].tolist() == [[0, value]]
    assert to_device({"document_ids": np.empty((0, 2), np.int64)})["document_ids"].shape == (0, 2)
