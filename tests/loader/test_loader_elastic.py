"""The same sequence of samples for any number of hosts, any batch size, any length of the data."""

from __future__ import annotations

import itertools
import json
import traceback
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import CorruptShardError, UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader
from easydata.loader.permutation import Permutation
from easydata.loader.rows import Pieces

from .sequences import ORDERS, STRATEGIES, content, loaders, packed, samples_of
from .sources import Numbers

NAMES = list(loaders())
HOSTS = [1, 2, 3, 4, 8]


@pytest.mark.parametrize("name", NAMES)
def test_hosts_share_every_batch(name: str) -> None:
    make = loaders()[name]
    whole = [content(batch) for batch in islice(make(batch_size=24), 12)]
    for count in HOSTS:
        hosts = [
            list(islice(make(batch_size=24, shard_index=i, shard_count=count), 12))
            for i in range(count)
        ]
        for expected, *parts in zip(whole, *hosts, strict=True):
            assert [len(part["input_ids"]) for part in parts] == [24 // count] * count
            joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            assert content(joined) == expected


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_last_batch_of_all_is_not_full(strategy: str, *, drop_last: bool) -> None:
    options: dict[str, Any] = {"epochs": 3, "drop_last": drop_last}
    samples = samples_of(packed(strategy, "all", 1, **options))
    length = len(samples) // 3
    epochs = [sorted(samples[i * length : (i + 1) * length]) for i in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert samples[:length] != samples[length : 2 * length]
    for batch_size, count in ((8, 1), (8, 2), (8, 8), (24, 3), (len(samples) // 4 * 4, 4)):
        hosts = [
            list(packed(strategy, "all", batch_size, shard_index=i, shard_count=count, **options))
            for i in range(count)
        ]
        rest = len(samples) % batch_size
        sizes = [batch_size] * (len(samples) // batch_size) + [rest] * (rest > 0 and not drop_last)
        batches = [samples_of(batches) for batches in zip(*hosts, strict=True)]
        assert [len(batch) for batch in batches] == sizes
        assert list(itertools.chain(*batches)) == samples[: sum(sizes)]
        loader = packed(strategy, "all", batch_size, shard_count=count, **options)
        assert len(loader) == len(sizes)


@settings(max_examples=25)
@given(
    name=st.sampled_from(NAMES),
    runs=st.lists(
        st.tuples(
            st.sampled_from(HOSTS),
            st.integers(1, 4),  # samples of each host in a batch
            st.integers(1, 6),  # batches
            st.sampled_from([0, 0, 3]),  # read ahead
            st.booleans(),
        ),
        min_size=2,
        max_size=5,
    ),
)
def test_other_hosts_and_batch_sizes_midway(
    name: str, runs: list[tuple[int, int, int, int, bool]]
) -> None:
    make = loaders()[name]
    # The shortest of these mixtures ends after 552 samples.
    assume(sum(count * rows * steps for count, rows, steps, *_ in runs) <= 550)
    found: list[list[int]] = []
    state = None
    for count, rows, steps, prefetch, drop_last in runs:
        options = {"batch_size": count * rows, "prefetch": prefetch, "drop_last": drop_last}
        hosts = [make(shard_index=i, shard_count=count, **options) for i in range(count)]
        for host in hosts:
            if state is not None:
                host.load_state_dict(state)
        iterators = [iter(host) for host in hosts]
        for _ in range(steps):
            found += samples_of([next(iterator) for iterator in iterators])
        states = [host.state_dict() for host in hosts]
        assert all(state == states[0] for state in states)
        assert states[0]["samples"] == len(found)
        state = json.loads(json.dumps(states[0]))
        for iterator in iterators:
            iterator.close()
    assert found == samples_of(make(batch_size=1), len(found))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_size_that_is_halved_and_doubled(name: str) -> None:
    make = loaders()[name]
    expected = samples_of(make(batch_size=2), 150)
    found: list[list[int]] = []
    loader = make(batch_size=8)
    for batch_size in (8, 4, 16, 2, 4):
        other = make(batch_size=batch_size)
        other.load_state_dict(loader.state_dict())
        loader = other
        found += samples_of(islice(loader, 5))
    assert found == expected[: len(found)]
    assert len(found) == 170


def test_a_schedule_counts_in_batches() -> None:
    # So with another batch size it is another sequence, and that is said.
    def make(batch_size: int) -> DataLoader:
        data = {"a": Numbers(90), "b": Numbers(80, base=100)}
        points: list[tuple[int, list[float]]] = [(0, [1, 0]), (10, [0.5, 0.5])]
        return DataLoader(data, batch_size, weight_schedule=points)

    with pytest.raises(UsageError, match=r"schedule was '.*' and is '"):
        make(8).load_state_dict(make(4).state_dict())


def test_the_stream_of_tokens_does_not_depend_on_seq_len(tmp_path: Path) -> None:
    texts = [f"Satz {i}. " * (i * 7 % 23) for i in range(600)]
    rows = [{"text": text} for text in texts]
    stream = [token for text in texts for token in (*text.encode(), 256)]
    dataset = ed.build(rows, tokenizer="bytes", out=tmp_path / "out", shard_size="16kB")
    for seq_len in (512, 1024, 2048):
        for batch_size in (1, 7):
            loader = DataLoader(
                dataset, batch_size, seq_len, shuffle=False, epochs=1, drop_last=False
            )
            found = np.concatenate([batch["input_ids"].ravel() for batch in loader])
            assert found.tolist() == stream[: len(found)]
            assert len(stream) - len(found) == loader.tokens_left_out < seq_len


class Endless:
    """A simulated stream of any length: token i is i modulo 65521."""

    dtype = np.dtype(np.uint16)
    fingerprint = "endless"

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self._ids = (np.arange(65_521 + 64) % 65_521).astype(np.uint16)

    def locate(self, starts: npt.NDArray[np.int64], lengths: Any) -> Pieces:
        assert ((starts >= 0) & (starts + lengths <= self.num_tokens)).all()
        sizes = np.broadcast_to(np.multiply(lengths, 2), starts.shape)
        addresses = self._ids.ctypes.data + 2 * (starts % 65_521)
        return Pieces(addresses, sizes, None, self._ids)


@pytest.mark.parametrize("order", ORDERS)
def test_a_seek_far_into_a_huge_stream(order: str) -> None:
    place, seq_len = 10**11, 8
    peaks = []
    for num_tokens in (10**6, 10**12):
        data = Endless(num_tokens)
        tracemalloc.start()
        loader = DataLoader(data, 32, seq_len, **ORDERS[order])
        loader.load_state_dict(loader.state_dict() | {"samples": place})
        iterator = iter(loader)
        for _ in range(20):
            batch = next(iterator)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert iterator.state_dict()["samples"] == place + 20 * 32
    if order == "block":  # up to 65,536 of them
        assert peaks[1] < 6_000_000
    else:
        # Another thread may be locating some thousand samples just then, or not.
        assert peaks[1] < peaks[0] + 1_000_000
    visits = np.arange(place + 19 * 32, place + 20 * 32)
    if order in ("all", "as they come"):
        is_shuffled = order == "all"
        samples = Permutation(10**12 // 8, seed=3, epoch=0)(visits) if is_shuffled else visits
        expected = samples[:, None] * 8 + np.arange(8)
        assert np.array_equal(batch["input_ids"], expected % 65_521)


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("name", [*NAMES[:4], NAMES[7]])
def test_batches_that_are_all_kept_stay_as_they_are(name: str, prefetch: int) -> None:
    kept, contents = [], []
    for batch in islice(loaders()[name](prefetch=prefetch), 150):
        kept.append(batch)
        contents.append(content(batch))
    assert [content(batch) for batch in kept] == contents
    assert [content(batch) for batch in islice(loaders()[name](), 150)] == contents


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_folder_that_is_deleted_while_it_is_read(tmp_path: Path, compression: str) -> None:
    rows = [{"text": f"Satz {i}. " * (i * 7 % 23)} for i in range(300)]
    out = tmp_path / "out"
    options: dict[str, Any] = {"compression": compression, "part_size": 2048}
    dataset = ed.build(rows, tokenizer="bytes", out=out, shard_size="4kB", **options)
    assert dataset.ledger.num_shards > 1
    # With more room, all of it may be decoded ahead before it is deleted.
    loader = DataLoader(ed.open_dataset(out, cache_bytes=4096), 4, 64, shuffle=False)
    iterator = iter(loader)
    kept = [next(iterator)]
    contents = [content(batch) for batch in kept]
    for path in out.rglob("data-*"):
        path.unlink()
    with pytest.raises(CorruptShardError, match=r"Shard .* is missing"):
        list(islice(iterator, 500))
    assert [content(batch) for batch in kept] == contents


class Failing(Numbers):
    """Fails at a certain sample."""

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        if (samples == 17).any():
            self.fail()
        return super().read(samples)

    def fail(self) -> None:
        raise OSError("the disk is gone")


@pytest.mark.parametrize("prefetch", [0, 1, 6])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_an_error_of_a_source_comes_when_it_is_its_turn(prefetch: int, *, is_mixed: bool) -> None:
    data: Any = {"a": Failing(40)} if is_mixed else Failing(40)
    workers = 2 if prefetch else 1
    loader = DataLoader(data, 2, shuffle=False, prefetch=prefetch, prefetch_workers=workers)
    with pytest.raises(OSError, match="the disk is gone") as raised:
        list(loader)
    lines = "".join(traceback.format_tb(raised.value.__traceback__))
    assert "self.fail()" in lines
    assert loader.stats.batches <= 8
    # It was not consumed, and a loader that goes on there gives it, once it can be read.
    assert loader.state_dict()["samples"] == loader.stats.samples
    mended: Any = {"a": Numbers(40)} if is_mixed else Numbers(40)
    other = DataLoader(mended, 2, shuffle=False)
    other.load_state_dict(loader.state_dict())
    assert samples_of(other, 1)[0] == [loader.stats.samples] * 3


@pytest.mark.parametrize("prefetch", [0, 2])
def test_after_an_error_the_epoch_has_not_ended(prefetch: int) -> None:
    iterator = iter(DataLoader(Failing(40), 2, shuffle=False, epochs=1, prefetch=prefetch))
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            list(iterator)


def load(*args: Any, **options: Any) -> DataLoader:
    return DataLoader(*args, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: load(data, 0, 5), "batch_size is 0; it must be a whole number from 1"),
        (lambda data: load(data, -4, 5), "batch_size is -4"),
        (lambda data: load(data, 2.0, 5), "batch_size is 2.0"),
        (lambda data: load(data, 2, 0), "seq_len is 0"),
        (lambda data: load(data, 2, -1), "seq_len is -1"),
        (lambda data: load(data, 2, 101), "seq_len is 101, but there are only 100 tokens"),
        (lambda data: load(data, 2), "seq_len is None"),
        (lambda data: load(data, 21, 5, epochs=1), "batch_size is 21, but .* only 20 samp"),
        (lambda data: load(data, 6, 5, shard_count=4), "6, of all hosts .* shard_count is 4"),
        (lambda data: load(data, 4, 5, shard_index=4, shard_count=4), "shard_index is 4"),
        (lambda data: load(data, 4, 5, shard_index=-1), "shard_index is -1"),
        (lambda data: load(data, 4, 5, shard_count=0), "shard_count is 0"),
        (lambda data: load(data, 4, 5, epochs=0), "epochs is 0; give 1 or more, or None"),
        (lambda data: load(data, 4, 5, seed=-1), "seed is -1"),
        (lambda data: load(data, 4, 5, pack="gready"), "did you mean 'greedy'"),
        (lambda data: load(data, 4, 5, shuffle="blocks"), "shuffle is 'blocks'; choose True"),
        (lambda data: load(data, 4, 5, shuffle=[]), r"shuffle is \[\]"),
        (lambda data: load(data, 4, 5, shuffle_buffer_size=0), "shuffle_buffer_size is 0"),
        (lambda data: load(data, 4, 5, weights=[1]), "weights is for several sources"),
        (
            lambda data: load({"a": data}, 4, 5, weights={"b": 1}),
            "'b', but the sources are 'a'",
        ),
        (lambda data: load({"a": data}, 4, 10**6), "source 'a': seq_len is 1000000"),
        (lambda data: load({}, 4, 5), "at least one source"),
        (lambda data: load([data], 4, 5), "a list is no .*Several datasets are given as a dict"),
        (lambda _: load(np.arange(9), 4, 5), r"a ndarray is no .*ArrayTokens\(array\)"),
        (lambda _: load(Path("cache"), 4, 5), r"is no .*open_dataset\(path\)"),
        (lambda _: load(None, 4, 5), "a NoneType is no source of samples"),
        (lambda _: load(ArrayTokens(np.empty(0, int)), 4, 5), "only 0 tokens"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(ArrayTokens(np.arange(100)))


@pytest.mark.parametrize("options", [{}, {"prefetch": 2}])
def test_a_first_batch_that_has_nothing_for_a_host(options: dict[str, Any]) -> None:
    data = ArrayTokens(np.arange(64 * 5, dtype=np.uint16))
    shapes = []
    for host in (0, 1):
        loader = DataLoader(
            data, 4, 64, shard_index=host, shard_count=2, drop_last=False, epochs=1, **options
        )
        loader.load_state_dict({**loader.state_dict(), "samples": 4})
        shapes.append([batch["input_ids"].shape for batch in loader])
    assert shapes == [[(0, 64)], [(1, 64)]]
