"""Batches of streams: the same as of cached data wherever that can be said, and nothing is left."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from easydata.errors import SourceError, UsageError
from easydata.loader import DataLoader
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.pipeline.config import PipelineConfig
from easydata.pipeline.stream_loader import StreamLoader
from easydata.pipeline.stream_packing import Documents

from .streams import Rows, batch_of, joined, numbered, samples_of


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    # JAX has a timer as it starts, which ends some time after it is cancelled.
    left = {one for one in threading.enumerate() if not isinstance(one, threading.Timer)}
    assert left <= before


def config(names="a", *, load: Any = None, **stages: Any) -> PipelineConfig:
    return PipelineConfig(
        datasets=[{"data_files": f"{name}.jsonl", "name": name} for name in names],
        default_tokenizer="bytes",
        load={"batch_size": 4, "drop_last": False, **(load or {})},
        **stages,
    )


def stream(name: str, count: int, *, rows: type[Rows] = Rows, **options: Any):
    """`count` samples of 8 tokens; every token of sample i is ord(name) + 1000 · i."""
    documents = [[ord(name) + 1000 * i] * 8 for i in range(count)]
    return samples_of(rows(documents), **{"strategy": "concat", "pad_token_id": None, **options})


def cached(name: str, count: int, dtype: Any = np.uint32):
    """As `stream`, in memory."""
    ids = np.repeat(ord(name) + 1000 * np.arange(count), 8).astype(dtype)
    return pack(Documents(ids, np.full(count, 8)), 8, "concat")


def visits(batches) -> list[tuple[str, int]]:
    """(stream, number) of each sample."""
    found = [ids[0] for batch in batches for ids in batch["input_ids"].tolist()]
    return [(chr(one % 1000), one // 1000) for one in found]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert list(a) == list(b)
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert (a[name] == b[name]).all()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("prefetch", [False, True])
def test_batches_of_one_stream_are_its_samples_twice(drop_last, prefetch):
    rows = Rows(numbered([3, 9, 20, 1, 7] * 11), dtype=np.uint16)
    samples = samples_of(rows, strategy="best_fit")
    load = {"drop_last": drop_last, "prefetch_enabled": prefetch, "batch_size": 7}
    loader = StreamLoader({"a": samples}, config(load=load))
    batches = list(loader)
    expected = joined(samples)
    count = len(expected["input_ids"])
    assert count % 7
    sizes = [7] * (count // 7) + [count % 7] * (not drop_last)
    assert [len(batch["input_ids"]) for batch in batches] == sizes
    assert joined(batches) == {name: value[: sum(sizes)] for name, value in expected.items()}
    assert {name: array.dtype for name, array in batches[0].items()} == samples.dtypes
    assert (loader.batch_size, loader.seq_len) == (7, 8)
    same(list(loader), batches)
    assert rows.running == 0


def test_one_stream_is_shuffled_as_cached_samples_are_in_the_same_window():
    samples = stream("a", 50, shuffle_packed=True, shuffle_buffer_size=13)
    batches = list(StreamLoader({"a": samples}, config(seed=9)))
    expected = DataLoader(
        cached("a", 50), 4, seed=9, epochs=1, shuffle_buffer_size=13, drop_last=False
    )
    same(batches, list(expected))
    other = list(StreamLoader({"a": samples}, config(seed=10)))
    assert visits(other) != visits(batches)
    assert sorted(visits(other)) == sorted(visits(batches))


MIXES = [
    {"weights": {"a": 0.5, "b": 0.3, "c": 0.2}},
    {"weights": {"a": 0.9, "b": 0.1, "c": 0}},
    {
        "weight_schedule": [
            {"step": 0, "weights": {"a": 1, "b": 0, "c": 0}},
            {"step": 10, "weights": {"a": 0.2, "b": 0.4, "c": 0.4}},
        ],
        "weight_schedule_type": "linear",
        "block_size": 6,
    },
]


@pytest.mark.parametrize("strategy", ["first_exhausted", "all_exhausted"])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seeds", [{}, {"seed": 7}])
def test_a_mixture_is_that_of_cached_samples(strategy, mix, seeds):
    sizes = {"a": 40, "b": 17, "c": 30}
    settings = config("abc", mix={**mix, "stop_strategy": strategy, **seeds}, seed=3)
    streams = {
        name: cached(name, size)
        if name == "b"
        else stream(name, size, shuffle_packed=True, shuffle_buffer_size=1000)
        for name, size in sizes.items()
    }
    points = mix.get("weight_schedule")
    mixture = Mixture(
        {name: cached(name, size) for name, size in sizes.items()},
        weights=mix.get("weights"),
        schedule=points and [(point["step"], point["weights"]) for point in points],
        schedule_type=mix.get("weight_schedule_type", "step"),
        batch_size=4,
        block_size=mix.get("block_size", 1000),
        stop_strategy=strategy,
        seed=seeds.get("seed", 3),
    )
    batches = list(StreamLoader(streams, settings))
    same(batches, list(DataLoader(mixture, 4, epochs=1, drop_last=False)))
    if strategy == "all_exhausted":
        assert {("a", i) for i in range(40)} <= set(visits(batches))


def test_restart_ends_when_every_stream_was_read_once():
    found = {}
    for strategy in ("restart", "all_exhausted"):
        mix = {"weights": {"a": 0.75, "b": 0.25}, "stop_strategy": strategy}
        streams = {"a": stream("a", 10), "b": stream("b", 8)}
        found[strategy] = visits(StreamLoader(streams, config("ab", mix=mix)))
    assert found["restart"] == found["all_exhausted"]
    assert found["restart"][-1] == ("b", 7)
    of_a = [number for name, number in found["restart"] if name == "a"]
    assert of_a == [i % 10 for i in range(len(of_a))]
    assert len(of_a) > 20


def test_a_stream_whose_weight_ends_need_not_be_read_to_its_end():
    points = [{"step": 0, "weights": {"a": 1, "b": 0}}, {"step": 5, "weights": {"a": 0, "b": 1}}]
    for strategy in ("restart", "all_exhausted"):
        mix = {"weight_schedule": points, "stop_strategy": strategy}
        streams = {"a": stream("a", 1000), "b": stream("b", 30)}
        found = visits(StreamLoader(streams, config("ab", mix=mix)))
        assert found == [("a", i) for i in range(20)] + [("b", i) for i in range(30)]


def test_sources_are_interleaved_in_exact_shares_and_the_smallest_common_type():
    mix = {"weights": {"a": 0.6, "b": 0.4}}
    streams = {"a": stream("a", 30), "b": cached("b", 20, np.uint16)}
    settings = config("ab", mix=mix, pack={"shuffle_packed": False})
    batches = list(StreamLoader(streams, settings))
    other = StreamLoader({"b": streams["b"], "a": streams["a"]}, settings)
    for batch in (batches[0], next(iter(other))):
        assert batch["input_ids"].dtype == np.uint32
    found = visits(batches)
    assert len(found) == 50
    for n in range(50):
        assert abs(sum(name == "a" for name, _ in found[:n]) - 0.6 * n) < 1
    assert [i for name, i in found if name == "b"] == list(range(20))


def test_several_streams_need_weights():
    with pytest.raises(UsageError, match=r"size of a stream is not known.*streaming=False"):
        StreamLoader({"a": stream("a", 4), "b": cached("b", 4)}, config("ab"))


MIX = {"weights": {"a": 0.5, "b": 0.5}}


def test_streams_of_other_samples_are_refused():
    with pytest.raises(UsageError, match="no streams"):
        StreamLoader({}, config())
    with pytest.raises(UsageError, match="'a' have 8 tokens, but those of 'b' have 9"):
        StreamLoader(
            {"a": stream("a", 4), "b": stream("b", 9, seq_length=9)}, config("ab", mix=MIX)
        )
    with pytest.raises(UsageError, match="pack all datasets in the same way"):
        StreamLoader(
            {"a": stream("a", 4), "b": stream("b", 9, pad_token_id=0)}, config("ab", mix=MIX)
        )


@pytest.mark.parametrize("prefetch", [False, True])
def test_too_few_samples_are_an_error(prefetch):
    load = {"prefetch_enabled": prefetch}
    with pytest.raises(UsageError, match="'b' has no samples of 8 tokens"):
        list(StreamLoader({"a": stream("a", 4), "b": stream("b", 0)}, config("ab", mix=MIX)))
    with pytest.raises(UsageError, match="'a' has no samples"):
        list(StreamLoader({"a": stream("a", 0)}, config(load=load)))
    with pytest.raises(UsageError, match="batch_size is 4, but there are only 3 samples"):
        list(StreamLoader({"a": stream("a", 3)}, config(load={**load, "drop_last": True})))
    assert len(list(StreamLoader({"a": stream("a", 3)}, config(load=load)))) == 1


class Failing(Rows):
    def all(self):
        yield from super().all()
        raise SourceError("a.jsonl, line 7: no")


@pytest.mark.parametrize("prefetch", [False, True])
def test_an_error_comes_in_its_turn(prefetch):
    rows = Failing([[5] * 8] * 20)
    loader = StreamLoader(
        {"a": samples_of(rows, strategy="concat")}, config(load={"prefetch_enabled": prefetch})
    )
    seen: list[Any] = []
    with pytest.raises(SourceError, match="line 7"):
        seen.extend(loader)
    assert len(seen) == 5
    assert rows.running == 0


@pytest.mark.parametrize("end", ["close", "drop"])
@pytest.mark.parametrize("prefetch", [False, True])
def test_an_abandoned_iteration_ends_its_threads_and_streams(end, prefetch):
    streams = {"a": Rows([[1] * 8] * 400), "b": Rows([[2] * 8] * 400)}
    samples = {name: samples_of(rows, pad_token_id=None) for name, rows in streams.items()}
    load = {"prefetch_enabled": prefetch, "prefetch_workers": 3}
    gc.collect()  # iterators of other tests
    batches = iter(StreamLoader(samples, config("ab", mix=MIX, load=load)))
    next(batches)
    assert any("prefetch" in thread.name for thread in threading.enumerate()) == prefetch
    assert [rows.running for rows in streams.values()] == [1, 1]
    if end == "close":
        batches.close()
        assert next(batches, None) is None
    del batches
    gc.collect()
    assert [rows.running for rows in streams.values()] == [0, 0]
    assert not any("prefetch" in thread.name for thread in threading.enumerate())
    assert all(0 < rows.taken < 20 for rows in streams.values())


class Stuck(Rows):
    """After its rows, empty ones without end: no more window fills."""

    stuck = threading.Event()

    def all(self):
        yield from super().all()
        self.stuck.set()
        while True:
            yield batch_of([[]])


def test_closing_does_not_wait_for_a_window_to_fill():
    rows = Stuck([[1] * 8] * 40)
    samples = samples_of(rows, pad_token_id=None, shuffle_packed=True, shuffle_buffer_size=16)
    batches = iter(StreamLoader({"a": samples}, config()))
    next(batches)
    next(batches)  # room for the thread to go on to what does not fill
    next(batches)
    next(batches)
    next(batches)
    assert rows.stuck.wait(60)
    batches.close()
    assert rows.running == 0


def test_batches_are_put_on_the_device():
    import jax

    load = {"prefetch_to_device": True}
    (batch, *_) = StreamLoader({"a": stream("a", 8)}, config(load=load))
    assert all(isinstance(array, jax.Array) for array in batch.values())
    assert visits([batch]) == [("a", i) for i in range(4)]
