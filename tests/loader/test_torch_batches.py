from __future__ import annotations

import gc
import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import easydata as ed
from easydata.errors import CorruptShardError, UsageError
from easydata.loader import batch_places
from easydata.loader.mixing import Mixture
from easydata.loader.state import place_of
from easydata.loader.torch_data import TorchBatches
from tests.loader.sources import Numbers

# Other tests of this process may have started threads, of which its children know nothing; and this
# machine may have less cores than the tests have workers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*fork:RuntimeWarning",
    "ignore:.*fork:DeprecationWarning",
    "ignore:This DataLoader will create",
    "ignore:.set_vital. is deprecated",  # which torchdata 0.11 calls
)

Batches = list[list[int]]


class Damaged(Numbers):
    """Sample 7 cannot be read."""

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        if 7 in samples:
            raise CorruptShardError("shard 3, batch 1 differs")
        return super().read(samples)


def one(**options: Any) -> ed.DataLoader:
    settings: dict[str, Any] = {"epochs": 2, "seed": 3, "drop_last": False}
    return ed.DataLoader(Numbers(11), 4, **settings | options)


def mixed(**options: Any) -> ed.DataLoader:
    sources = {"a": Numbers(7), "b": Numbers(6, base=100)}
    return ed.DataLoader(sources, 4, weights={"a": 0.7, "b": 0.3}, **{"epochs": 2} | options)


def scheduled(**options: Any) -> ed.DataLoader:
    sources = {"a": Numbers(7), "b": Numbers(6, base=100)}
    schedule = [(0, {"a": 1.0, "b": 0.0}), (2, {"a": 0.2, "b": 0.8}), (5, {"a": 0.5, "b": 0.5})]
    return ed.DataLoader(sources, 4, weight_schedule=schedule, **{"epochs": 2} | options)


def rows(batches: Iterable[Any]) -> Batches:
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


def torch_loader(loader: ed.DataLoader, workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(TorchBatches(loader), batch_size=None, num_workers=workers, **options)


def stateful(loader: ed.DataLoader, workers: int, method: str | None = None) -> StatefulDataLoader:
    return StatefulDataLoader(
        TorchBatches(loader), batch_size=None, num_workers=workers, multiprocessing_context=method
    )


@pytest.fixture(autouse=True)
def no_workers_are_left() -> Iterator[None]:
    before = {*multiprocessing.active_children()}
    yield
    gc.collect()
    for process in {*multiprocessing.active_children()} - before:
        process.join(30)  # it was told to end
        assert not process.is_alive()


def walk(loader: StatefulDataLoader) -> tuple[Batches, list[Any]]:
    """The batches of a pass, and the state before each and after the last."""
    found, states = [], [loader.state_dict()]
    for batch in loader:
        found += rows([batch])
        states.append(json.loads(json.dumps(loader.state_dict())))
    return found, states


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("make", [one, mixed])
def test_batches_in_the_order_of_the_loader(make: Any, workers: int) -> None:
    expected = rows(make())
    loader = torch_loader(make(), workers)
    assert len(loader) == len(expected) == 6
    assert rows(loader) == rows(loader) == expected


def test_what_a_batch_is() -> None:
    loader = one(columns=["labels", "loss_mask"])
    for batch, array in zip(TorchBatches(loader), loader, strict=True):
        assert [tensor.dtype for tensor in batch.values()] == [
            torch.int64,
            torch.int64,
            torch.bool,
        ]
        for name, values in array.items():
            assert batch[name].tolist() == values.tolist()
        batch["input_ids"][:] = 0
    kept = next(iter(TorchBatches(one(dtype=np.int32))))
    assert (kept["input_ids"].dtype, kept["input_ids"].shape) == (torch.int32, (4, 3))
    named = next(iter(TorchBatches(one(), for_transformers=True)))
    assert list(named) == ["input_ids", "labels"]
    number = int(named["input_ids"][0, 0])
    assert named["labels"][0].tolist() == [-100, number, number]
    with pytest.raises(UsageError, match=r"columns are input_ids, loss_mask, but .* add 'labels'"):
        TorchBatches(one(columns=["loss_mask"]), for_transformers=True)


def test_every_host_has_its_part() -> None:
    parts = [
        rows(torch_loader(one(shard_index=host, shard_count=2), workers=2)) for host in range(2)
    ]
    assert [a + b for a, b in zip(*parts, strict=True)] == rows(one())


@pytest.mark.parametrize("workers", [0, 3])
def test_restored_between_snapshots(workers: int) -> None:
    def make() -> StatefulDataLoader:
        data = TorchBatches(one())
        return StatefulDataLoader(data, None, num_workers=workers, snapshot_every_n_steps=4)

    expected, states = walk(make())
    assert expected == rows(one())
    for step in (1, 3, 5):
        again = make()
        again.load_state_dict(states[step])
        assert rows(again) == expected[step:], step


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [one, scheduled])
def test_restored_at_every_step(make: Any, workers: int) -> None:
    expected = rows(make())
    found, states = walk(stateful(make(), workers, "fork" if workers else None))
    assert found == expected
    assert len({len(json.dumps(state)) // 100 for state in states[1:-1]}) <= 2
    for step, state in enumerate(states[:-1]):
        again = stateful(make(), workers)
        again.load_state_dict(state)
        assert rows(again) == expected[step:], step
        if step == 2:
            assert rows(again) == expected  # the next pass is a whole one


def test_restored_in_the_midst_of_what_was_restored() -> None:
    expected = rows(one(epochs=4))
    state: Any = None
    found: Batches = []
    for length in (1, 3, 2, 1, 4):
        loader = stateful(one(epochs=4), 2)
        if state is not None:
            loader.load_state_dict(state)
        found += rows(islice(loader, length))
        state = loader.state_dict()
    assert found == expected


def test_spawned_workers() -> None:
    expected, before = walk(stateful(mixed(), 2, "fork"))
    spawned = stateful(mixed(), 2, "spawn")
    spawned.load_state_dict(before[1])
    found, states = walk(spawned)
    assert found == expected[1:]
    for step, state in enumerate(states[1:-1], 2):
        again = stateful(mixed(), 2, "fork")
        again.load_state_dict(state)
        assert rows(again) == expected[step:], step


def test_persistent_workers_begin_anew() -> None:
    loader = torch_loader(one(), 2, persistent_workers=True)
    expected = rows(one())
    assert rows(islice(loader, 3)) == expected[:3]
    assert rows(loader) == rows(loader) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_source_reaches_the_reader(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch waits so many seconds for each worker after an error, before it ends them.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    loader = torch_loader(ed.DataLoader(Damaged(20), 4, shuffle=False, epochs=1), workers)
    batches = iter(loader)
    assert rows([next(batches)]) == [[0, 1, 2, 3]]
    with pytest.raises(CorruptShardError, match="shard 3, batch 1 differs"):
        next(batches)
    del batches
    gc.collect()


@pytest.mark.parametrize("workers", [0, 2])
def test_who_stops_early_leaves_nothing(workers: int) -> None:
    loader = torch_loader(one(epochs=None, prefetch=3), workers)
    with pytest.raises(TypeError, match="epochs=None has no length"):
        len(loader)
    assert len(rows(islice(loader, 50))) == 50
    gc.collect()
    # Others, as those of Grain, end some time after they are let go.
    assert not [t for t in threading.enumerate() if t.name.startswith("easydata-prefetch")]


@pytest.mark.parametrize("make", [one, mixed, scheduled])
def test_the_state_after_some_batches(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_places, "_CHUNK", 5)
    whole = sum(rows(make(drop_last=False)), [])
    batches = TorchBatches(make(drop_last=False))
    assert len(batches) == -(-len(whole) // 4) > len(whole) // 4
    for count in range(len(batches) + 1):
        other = make(drop_last=False)
        other.load_state_dict(json.loads(json.dumps(batches.state_after(count))))
        state = other.state_dict()
        assert sum(rows(other), []) == whole[4 * count :]
        rest = TorchBatches(make(drop_last=False), place_of(state, other.sequence))
        assert len(rest) == len(batches) - count
        assert rows(torch_loader_of(rest)) == rows(batches)[count:]
        assert sum(rows(rest), []) == sum(rows(batches), [])[4 * count :]
        if count < len(batches):
            assert rest.state_after(1) == batches.state_after(count + 1)
    end = iter(batches)
    assert len([*end]) == len(batches)
    loader_state = end.state_dict()
    assert batches.state_after(len(batches)).items() <= loader_state.items()
    with pytest.raises(UsageError, match="batches is 100, but a pass has"):
        batches.state_after(100)
    with pytest.raises(UsageError, match="batches is -1"):
        batches.state_after(-1)


def torch_loader_of(batches: TorchBatches) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None)


def test_the_state_after_many_batches_of_one_source() -> None:
    source = Numbers(10**12, dtype=np.int64)
    batches = TorchBatches(ed.DataLoader(source, 8, epochs=None))
    assert batches.state_after(10**11)["samples"] == 8 * 10**11
    place = place_of(batches.state_after(10**11), batches._loader.sequence)
    assert rows(islice(TorchBatches(batches._loader, place), 1)) == [
        ed.loader.order.SampleOrder(10**12, shuffle=True, seed=0)
        .visits(8 * 10**11, 8 * 10**11 + 8)
        .tolist()
    ]


def test_the_number_of_batches() -> None:
    whole = one(drop_last=False)
    assert len(TorchBatches(whole)) == 6  # 22 samples
    assert len(TorchBatches(one(drop_last=True))) == 5
    for samples, left in ((0, 6), (1, 6), (2, 5), (21, 1), (22, 0)):
        state = whole.state_dict() | {"samples": samples}
        place = place_of(state, whole.sequence)
        assert len(TorchBatches(whole, place)) == len(rows(TorchBatches(whole, place))) == left
    ends = ed.DataLoader(Mixture({"a": Numbers(9)}, stop_strategy="all_exhausted"), 4)
    assert len(TorchBatches(ends)) == len(rows(TorchBatches(ends))) == 2


def test_states_of_others_are_refused() -> None:
    batches = iter(TorchBatches(one()))
    state = batches.state_dict()
    with pytest.raises(UsageError, match="of 2 readers that take turns, but there are 1"):
        batches.load_state_dict(state | {"turns": 2})
    for turn, message in [(-1, "turn is -1"), (1, "turn is 1, but only 1 readers")]:
        with pytest.raises(UsageError, match=message):
            batches.load_state_dict(state | {"turn": turn})
    assert rows(islice(batches, 2)) == rows(one())[:2]  # it is where it was
    with pytest.raises(UsageError, match="seed was 9 and is 3"):
        batches.load_state_dict(iter(TorchBatches(one(seed=9))).state_dict())
    with pytest.raises(UsageError, match="no state of a loader"):
        batches.load_state_dict({})
    batches.load_state_dict(one().state_dict())  # that of the loader itself
    assert rows(batches) == rows(one())


def test_pickles_are_small_whatever_was_read(tmp_path: Any) -> None:
    texts = [{"text": "x" * (n % 50)} for n in range(3000)]
    dataset = ed.build(texts, tokenizer="bytes", out=tmp_path / "out")
    batches = TorchBatches(dataset.loader(4, 32, shuffle=True))
    expected = rows(islice(batches, 5))
    pickled = pickle.dumps(batches)
    assert len(pickled) < 3000
    assert rows(islice(pickle.loads(pickled), 5)) == expected
