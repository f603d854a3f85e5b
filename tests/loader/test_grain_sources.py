from __future__ import annotations

import json
import pickle
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import grain
import numpy as np
import numpy.typing as npt
import pytest

import easydata as ed
from easydata.errors import UsageError
from easydata.loader import batch_places
from easydata.loader.grain_data import GrainBatches, GrainSource
from easydata.loader.state import place_of
from tests.loader.sources import Numbers

TEXTS = [f"Satz {i}. " * (i * 7 % 23) for i in range(120)]
SCHEDULE = [(0, {"a": 1.0, "b": 0.0}), (2, {"a": 0.2, "b": 0.8}), (5, {"a": 0.5, "b": 0.5})]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    out = tmp_path_factory.mktemp("grain") / "out"
    return ed.build([{"text": text} for text in TEXTS], tokenizer="bytes", out=out)


def samples(seq_len: int) -> npt.NDArray[np.int64]:
    stream = np.array(sum(([*text.encode(), 256] for text in TEXTS), []))
    return stream[: len(stream) // seq_len * seq_len].reshape(-1, seq_len)


class Counting(Numbers):
    def __init__(self, num_samples: int, **options: Any) -> None:
        super().__init__(num_samples, **options)
        self.reads: list[int] = []

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        self.reads.append(len(samples))
        return super().read(samples)


def one(**options: Any) -> ed.DataLoader:
    settings: dict[str, Any] = {"epochs": 2, "seed": 3, "drop_last": False}
    return ed.DataLoader(Numbers(11), 4, **settings | options)


def mixed(**options: Any) -> ed.DataLoader:
    sources = {"a": Numbers(7), "b": Numbers(5, base=100)}
    return ed.DataLoader(sources, 4, weights={"a": 0.7, "b": 0.3}, **{"epochs": 4} | options)


def scheduled(**options: Any) -> ed.DataLoader:
    sources = {"a": Numbers(7), "b": Numbers(5, base=100)}
    return ed.DataLoader(sources, 4, weight_schedule=SCHEDULE, **{"epochs": 4} | options)


def first_exhausted(**options: Any) -> ed.DataLoader:
    sources = {"a": Numbers(17), "b": Numbers(50, base=100)}
    return ed.DataLoader(
        sources, 4, weights={"a": 0.7, "b": 0.3}, stop_strategy="first_exhausted", **options
    )


def rows(batches: Any) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


def restored_at_every_step(make: Any) -> list[list[int]]:
    """The batches of what `make` makes; checks that they go on the same from any state."""
    iterator = iter(make())
    found, states = [], [iterator.get_state()]
    for batch in iterator:
        found += rows([batch])
        states.append(iterator.get_state())
    for step, state in enumerate(states):
        again = iter(make())
        again.set_state(state)
        assert rows(again) == found[step:], step
    return found


def test_items_are_the_samples_in_order(dataset: ed.TokenDataset) -> None:
    source = GrainSource(dataset, 48, columns=["labels"], dtype="int32")
    expected = samples(48)
    assert isinstance(source, grain.sources.RandomAccessDataSource)
    assert len(source) == len(expected)
    for number, item in enumerate(source):
        assert item["input_ids"].dtype == np.int32
        assert item["input_ids"].tolist() == expected[number].tolist()
        assert item["labels"].tolist() == [*expected[number, 1:].tolist(), -100]
    found = source._getitems([5, 0, 5])
    assert [item["input_ids"].tolist() for item in found] == expected[[5, 0, 5]].tolist()
    assert source._getitems([]) == []
    for bad in (len(expected), -1):
        with pytest.raises(IndexError):
            source[bad]
    with pytest.raises(UsageError, match="samples of a mixture are not numbered"):
        GrainSource({"a": Numbers(3)})


def test_samples_in_a_pipeline() -> None:
    def make() -> Any:
        ds = grain.MapDataset.source(GrainSource(Numbers(20))).shuffle(seed=5).repeat(2)
        return ds.batch(6).to_iter_dataset()

    found = sum(restored_at_every_step(make), [])
    assert sorted(found[:20]) == sorted(found[20:]) == [*range(20)]
    assert found[:20] != [*range(20)]


def test_several_samples_are_read_in_one_call() -> None:
    source = Counting(20)
    ds = grain.MapDataset.source(GrainSource(source)).shuffle(seed=5)
    expected = [ds[number]["input_ids"].tolist() for number in range(8)]
    source.reads.clear()
    # What Grain's batches call once its experiment of asking for many rows is switched on.
    found = ds._getitems([*range(8)])
    assert [item["input_ids"].tolist() for item in found] == expected
    assert source.reads == [8]


@pytest.mark.parametrize("make", [one, mixed, scheduled, first_exhausted])
def test_batches_in_a_pipeline(make: Any) -> None:
    def pipeline() -> Any:
        return grain.MapDataset.source(GrainBatches(make())).to_iter_dataset()

    assert restored_at_every_step(pipeline) == rows(make())


def test_batches_through_threads_and_transforms() -> None:
    def pipeline() -> Any:
        ds = grain.MapDataset.source(GrainBatches(scheduled()))
        ds = ds.map(lambda batch: {"input_ids": batch["input_ids"] + 1})
        return ds.to_iter_dataset(grain.ReadOptions(num_threads=8, prefetch_buffer_size=20))

    expected = [[number + 1 for number in batch] for batch in rows(scheduled())]
    assert restored_at_every_step(pipeline) == expected


def data_loader(source: Any, *operations: Any, seed: int = 0) -> grain.DataLoader:
    sampler = grain.samplers.IndexSampler(
        num_records=len(source),
        num_epochs=1,
        shard_options=grain.sharding.NoSharding(),
        shuffle=bool(operations),
        seed=seed,
    )
    return grain.DataLoader(data_source=source, sampler=sampler, operations=operations)


def test_grains_own_loader() -> None:
    found = restored_at_every_step(
        lambda: data_loader(GrainSource(Numbers(20)), grain.transforms.Batch(batch_size=6))
    )
    assert sorted(sum(found, [])) == [*range(20)]
    assert restored_at_every_step(lambda: data_loader(GrainBatches(mixed()))) == rows(mixed())


def test_a_checkpoint_is_of_content(dataset: ed.TokenDataset, tmp_path: Path) -> None:
    shutil.copytree(dataset.path, tmp_path / "copy")
    copied = ed.open_dataset(tmp_path / "copy")
    for make in (
        lambda data, **options: GrainSource(data, 48, **options),
        lambda data, **options: GrainBatches(ed.DataLoader(data, 4, 48, epochs=1, **options)),
    ):
        iterator = iter(data_loader(make(dataset)))
        for _ in range(3):
            next(iterator)
        state = iterator.get_state()
        elsewhere = iter(data_loader(make(copied)))
        elsewhere.set_state(state)
        assert np.array_equal(next(elsewhere)["input_ids"], next(iterator)["input_ids"])
        for other in (make(dataset, dtype="int32"), make(dataset, columns=["labels"])):
            with pytest.raises(ValueError, match="repr"):
                iter(data_loader(other)).set_state(state)
    loader = ed.DataLoader(dataset, 4, 48, epochs=1)
    shown = repr(GrainBatches(loader))
    assert len(shown) < 200
    assert str(dataset.path) not in shown
    others = [
        ed.DataLoader(dataset, *sizes, epochs=1, **options)
        for sizes, options in [
            ((8, 48), {}),
            ((4, 47), {}),
            ((4, 48), {"seed": 1}),
            ((4, 48), {"shuffle": False}),
        ]
    ]
    assert shown not in map(repr, map(GrainBatches, others))
    assert len({*map(repr, map(GrainBatches, others))}) == 4
    moved = place_of(loader.state_dict() | {"samples": 4}, loader.sequence)
    assert repr(GrainBatches(loader, moved)) != shown
    # A host may take the place of another.
    parts = [ed.DataLoader(dataset, 4, 48, epochs=1, shard_index=i, shard_count=2) for i in (0, 1)]
    assert [repr(GrainBatches(part)) for part in parts] == [shown, shown]


@pytest.mark.parametrize("make", [one, mixed, scheduled, first_exhausted])
def test_batches_by_number(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_places, "_CHUNK", 9)
    expected = rows(make())
    source = GrainBatches(make())
    assert len(source) == len(expected)
    numbers = np.random.default_rng(0).integers(0, len(expected), 40).tolist()
    assert rows(source[number] for number in numbers) == [expected[number] for number in numbers]
    assert rows(source[number] for number in reversed(range(len(source)))) == expected[::-1]
    for bad in (-1, len(expected)):
        with pytest.raises(IndexError, match=f"batch {bad} of {len(expected)}"):
            source[bad]
    again = pickle.loads(pickle.dumps(source))
    assert rows([again[len(again) - 1]]) == expected[-1:]


def test_batches_from_a_place_on() -> None:
    loader = mixed()
    state = json.loads(json.dumps(after(loader, 3)))
    source = GrainBatches(loader, place_of(state, loader.sequence))
    assert len(source) == len(loader) - 3
    assert rows(source) == rows(pickle.loads(pickle.dumps(source))) == rows(mixed())[3:]


def after(loader: ed.DataLoader, count: int) -> Any:
    batches = iter(loader)
    for _ in range(count):
        next(batches)
    return batches.state_dict()


def test_a_loader_without_an_end() -> None:
    source = GrainBatches(one(epochs=None))
    assert len(source) == 2**60 <= sys.maxsize
    assert rows(islice(source, 30)) == rows(islice(one(epochs=None), 30))
    last = source[2**60 - 1]["input_ids"]
    assert last.shape == (4, 3)
    far = GrainBatches(mixed(epochs=None))
    # Ten samples are a period of these weights.
    assert sorted(far[5 * 10**15]["input_ids"][:, 0] >= 100) == [False, False, False, True]
    ds = grain.MapDataset.source(source).slice(slice(2, 5))
    assert rows(ds) == rows(islice(one(epochs=None), 5))[2:]
