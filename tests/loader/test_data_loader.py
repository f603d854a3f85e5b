from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.located_tokens import LocatedTokens
from easydata.loader.mixing import Mixture
from easydata.loader.rows import Pieces
from easydata.loader.samples import ConcatSamples
from tests.loader.sources import Numbers, load

TEXTS = [f"Satz {i}. " * (i * 7 % 23) for i in range(200)]


class Stream:
    """A `TokenSource` that shares no code with `TokenDataset`: token i is i."""

    def __init__(self, num_tokens: int) -> None:
        self._ids = np.arange(num_tokens, dtype=np.uint32)

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._ids.dtype

    def locate(self, starts: npt.NDArray[np.int64], lengths: Any) -> Pieces:
        lengths = np.broadcast_to(lengths, starts.shape)
        addresses = [self._ids[start:].ctypes.data for start in starts.tolist()]
        return Pieces(np.array(addresses, np.int64), lengths * 4, None, self._ids)


@pytest.fixture(scope="module", params=["none", "zstd", "gzip"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return ed.build(
        [{"text": text} for text in TEXTS],
        tokenizer="bytes",
        out=tmp_path_factory.mktemp("loader") / "out",
        compression=request.param,
        part_size=2048,
        shard_size="8kB",
    )


@pytest.fixture(scope="module")
def stream() -> npt.NDArray[np.uint16]:
    ids = [[*text.encode(), 256] for text in TEXTS]
    return np.array(sum(ids, []), np.uint16)


def sample_numbers(batch: dict[str, npt.NDArray[Any]], seq_len: int) -> list[int]:
    """Of a batch from `Stream`; checks that each row is that sample."""
    ids = batch["input_ids"].astype(np.int64)
    numbers = ids[:, 0] // seq_len
    assert np.array_equal(ids, numbers[:, None] * seq_len + np.arange(seq_len))
    return numbers.tolist()


@settings(max_examples=200)
@given(
    num_tokens=st.integers(1, 120),
    batch_size=st.integers(1, 12),
    seq_len=st.integers(1, 9),
    shuffle=st.booleans(),
    epochs=st.integers(1, 4),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
def test_batches(
    num_tokens: int,
    batch_size: int,
    seq_len: int,
    *,
    shuffle: bool,
    epochs: int,
    drop_last: bool,
    seed: int,
) -> None:
    samples = num_tokens // seq_len
    options: dict[str, Any] = {
        "shuffle": shuffle,
        "epochs": epochs,
        "drop_last": drop_last,
        "seed": seed,
    }
    if not samples or (drop_last and samples * epochs < batch_size):
        with pytest.raises(UsageError, match="choose a s"):
            load(Stream(num_tokens), batch_size, seq_len, **options)
        return
    loader = load(Stream(num_tokens), batch_size, seq_len, **options)
    assert loader.num_samples == samples
    assert loader.tokens_left_out == num_tokens % seq_len
    batches = [sample_numbers(batch, seq_len) for batch in loader]
    assert [sample_numbers(batch, seq_len) for batch in loader] == batches
    assert len(loader) == len(batches)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    visited = sum(batches, [])
    whole = samples * epochs
    assert len(visited) == (whole - whole % batch_size if drop_last else whole)
    for epoch in range(len(visited) // samples):
        part = visited[epoch * samples : (epoch + 1) * samples]
        assert sorted(part) == list(range(samples))
        if not shuffle:
            assert part == list(range(samples))
    rest = visited[len(visited) // samples * samples :]
    assert len(set(rest)) == len(rest)


def test_more_samples_than_are_ordered_at_once() -> None:
    loader = load(Stream(100_000), 300, 2, shuffle=True, drop_last=False)
    visited = sum((sample_numbers(batch, 2) for batch in loader), [])
    assert sorted(visited) == list(range(50_000))
    assert visited[:1000] != sorted(visited[:1000])


def test_seeds_and_epochs_have_their_own_order() -> None:
    def visit(seed: int) -> list[int]:
        loader = load(Stream(200), 10, 2, shuffle=True, seed=seed, epochs=2)
        return sum((sample_numbers(batch, 2) for batch in loader), [])

    first = visit(0)
    assert first[:100] != first[100:]
    assert visit(1) != first
    assert visit(0) == first


def test_for_ever() -> None:
    loader = load(Stream(20), 3, 2, shuffle=True, epochs=None)
    batches = [sample_numbers(batch, 2) for batch in itertools.islice(loader, 100)]
    visited = sum(batches, [])
    assert all(sorted(visited[i : i + 10]) == list(range(10)) for i in range(0, 300, 10))
    with pytest.raises(TypeError, match="epochs=None has no length"):
        len(loader)
    # More than all samples in one batch is no contradiction then.
    wide = load(Stream(4), 10, 2, epochs=None)
    assert sample_numbers(next(iter(wide)), 2) == [0, 1] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number from 1 up"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"seq_len": -1}, "seq_len is -1"),
        ({"seq_len": "8"}, "seq_len is '8'"),
        ({"seq_len": 101}, "seq_len is 101, but there are only 100 tokens"),
        ({"batch_size": 26}, "batch_size is 26, but there are only 25 samples of 4 tokens"),
        ({"epochs": 0}, "epochs is 0; give 1 or more, or None"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(Stream(100), **{"batch_size": 2, "seq_len": 4, **changes})


def test_over_a_dataset(dataset: ed.TokenDataset, stream: npt.NDArray[np.uint16]) -> None:
    for seq_len in (1, 16, 61, 1000):
        samples = stream[: len(stream) // seq_len * seq_len].reshape(-1, seq_len)
        loader = load(dataset, 7, seq_len, drop_last=False)
        found = [batch["input_ids"] for batch in loader]
        assert all(batch.dtype == np.uint16 for batch in found)
        assert np.array_equal(np.concatenate(found), samples)
        shuffled = load(dataset, 7, seq_len, shuffle=True, seed=3, epochs=2, drop_last=False)
        both = np.concatenate([batch["input_ids"] for batch in shuffled])
        for part in (both[: len(samples)], both[len(samples) :]):
            assert sorted(map(tuple, part.tolist())) == sorted(map(tuple, samples.tolist()))


def test_the_stream_does_not_depend_on_seq_len(dataset: ed.TokenDataset) -> None:
    whole = dataset.num_tokens // 8 * 8
    streams = [
        np.concatenate(
            [batch["input_ids"].ravel() for batch in load(dataset, 4, n, drop_last=False)]
        )
        for n in (2, 4, 8)
    ]
    assert all(np.array_equal(ids[:whole], dataset.tokens(0, whole)) for ids in streams)


def test_contiguous_batches_are_views_of_the_file(tmp_path: Path) -> None:
    dataset = ed.build([{"text": "x" * 9999}], tokenizer="bytes", out=tmp_path / "out")
    base = dataset.tokens(0, dataset.num_tokens)
    for number, batch in enumerate(load(dataset, 4, 100)):
        ids = batch["input_ids"]
        assert ids.ctypes.data == base.ctypes.data + number * 4 * 100 * 2
        assert not ids.flags.writeable
        assert not ids.flags.owndata
    assert number == 24
    for batch in load(dataset, 4, 100, shuffle=True):
        assert batch["input_ids"].flags.writeable
        assert not np.shares_memory(batch["input_ids"], base)


def test_small_batches_in_order_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [{"text": chr(97 + i % 26) * 3000} for i in range(40)]
    dataset = ed.build(texts, tokenizer="bytes", out=tmp_path / "out", part_size="20kB")
    firsts = dataset.ledger.first_tokens
    assert len(firsts) > 4
    calls = []
    real = LocatedTokens.read

    def counting(located: LocatedTokens, start: int, stop: int) -> Any:
        calls.append(stop - start)
        return real(located, start, stop)

    monkeypatch.setattr(LocatedTokens, "read", counting)
    loader = load(dataset, 4, 16, columns=["labels"], drop_last=False)
    stream = dataset.tokens(0, dataset.num_tokens)
    views = 0
    for number, batch in enumerate(loader):
        start, stop = number * 64, min(number * 64 + 64, dataset.num_tokens // 16 * 16)
        assert np.array_equal(batch["input_ids"].ravel(), stream[start:stop])
        assert np.array_equal(batch["labels"][:, :-1], batch["input_ids"][:, 1:])
        is_inside = not ((firsts > start) & (firsts < stop)).any()
        assert batch["input_ids"].flags.writeable != is_inside
        views += is_inside
    assert loader.stats.views == views > len(firsts)
    # Nothing is in the way where all lies in one place.
    whole = load(ArrayTokens(stream), 4, 16, drop_last=False)
    calls.clear()
    assert len(list(whole)) > 1800
    assert len(calls) < 20


def test_only_what_is_not_contiguous_is_copied() -> None:
    loader = load(Stream(30), 2, 5)
    assert all(not batch["input_ids"].flags.writeable for batch in loader)
    assert loader.stats.views == 3
    loader = load(Stream(30), 4, 5, epochs=2)  # samples 4, 5, 0, 1 are one batch
    assert [batch["input_ids"].flags.writeable for batch in loader] == [False, True, False]
    assert loader.stats.views == 2


def rows(loader: ed.DataLoader) -> list[list[int]]:
    """The first token of each row, batch after batch."""
    return [batch["input_ids"][:, 0].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_reading_ahead_changes_nothing(workers: int, *, shuffle: bool) -> None:
    options: dict[str, Any] = {"shuffle": shuffle, "epochs": 2, "drop_last": False, "seed": 5}
    loader = load(
        Stream(1000), 7, 4, prefetch=3 * workers, prefetch_workers=max(workers, 1), **options
    )
    expected = rows(load(Stream(1000), 7, 4, **options))
    assert rows(loader) == rows(loader) == expected


def prefetching() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("easydata-prefetch")]


def test_who_stops_early_leaves_no_threads() -> None:
    loader = load(Stream(1000), 2, 4, epochs=None, prefetch=4, prefetch_workers=2)
    for number, _ in enumerate(loader):
        assert len(prefetching()) == 2
        if number == 5:
            break
    assert not prefetching()
    assert loader.stats.batches == 6


def test_an_error_of_the_source_reaches_the_reader() -> None:
    class Broken(Numbers):
        def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
            if 4 in samples:
                raise OSError("the disk is gone")
            return super().read(samples)

    batches = iter(load(Broken(10), 2, prefetch=4, prefetch_workers=3))
    assert next(batches)["input_ids"][:, 0].tolist() == [0, 1]
    assert next(batches)["input_ids"][:, 0].tolist() == [2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not prefetching()


def test_samples_of_any_source() -> None:
    loader = load(Numbers(10, seq_len=5), 4, drop_last=False)
    assert (loader.seq_len, loader.num_samples, len(loader)) == (5, 10, 3)
    assert loader.tokens_left_out == 0
    assert rows(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    padded = ConcatSamples(Stream(11), 4, pad_token_id=0)
    found = list(load(padded, 3, 4))
    assert [list(batch) for batch in found] == [["input_ids", "loss_mask"]]
    assert found[0]["input_ids"][2].tolist() == [8, 9, 10, 0]
    assert found[0]["loss_mask"][2].tolist() == [True, True, True, False]


def test_shuffling_in_windows() -> None:
    loader = load(Numbers(1000), 10, shuffle=True, shuffle_buffer_size=40, epochs=2)
    visited = sum(rows(loader), [])
    for epoch in (visited[:1000], visited[1000:]):
        for start in range(0, 1000, 40):
            part = epoch[start : start + 40]
            assert sorted(part) == list(range(start, start + 40))
            assert part != sorted(part)
    offsets = [tuple(n % 40 for n in visited[i : i + 40]) for i in range(0, 2000, 40)]
    assert len(set(offsets)) == 50  # each window has an order of its own
    wide = load(Numbers(1000), 10, shuffle=True, shuffle_buffer_size=1000, seed=7)
    assert rows(wide) == rows(load(Numbers(1000), 10, shuffle=True, seed=7))


def mixed(**options: Any) -> Mixture:
    return Mixture({"a": Numbers(30), "b": Numbers(20, base=1000)}, shuffle=False, **options)


def test_weights_change_at_exactly_the_right_batch() -> None:
    mixture = mixed(schedule=[(3, [1, 0]), (5, [0.5, 0.5]), (8, [0, 1])], batch_size=4)
    loader = load(mixture, 4, epochs=None)
    from_b = [sum(n >= 1000 for n in batch) for batch in itertools.islice(rows_of(loader), 12)]
    assert from_b == [0] * 5 + [2] * 3 + [4] * 4


def rows_of(loader: ed.DataLoader) -> Any:
    return (batch["input_ids"][:, 0].tolist() for batch in loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mixture(workers: int) -> None:
    mixture = mixed(weights=[0.8, 0.2])
    loader = load(
        mixture,
        8,
        drop_last=False,
        epochs=2,
        prefetch=2 * workers,
        prefetch_workers=max(workers, 1),
    )
    assert (loader.num_samples, len(loader), loader.seq_len) == (50, 13, 3)
    found = rows(loader)
    assert list(map(len, found)) == [8] * 12 + [4]
    assert [n for n in sum(found, []) if n < 1000] == [n % 30 for n in range(80)]
    assert [n for n in sum(found, []) if n >= 1000] == list(range(1000, 1020))
    assert vars_of(loader) == (13, 100, 300, {"a": 80, "b": 20})
    next(batches := iter(loader))
    assert vars_of(loader) == (1, 8, 24, {"a": 7, "b": 1})
    next(batches)
    assert vars_of(loader) == (2, 16, 48, {"a": 13, "b": 3})


def vars_of(loader: ed.DataLoader) -> tuple[Any, ...]:
    stats = loader.stats
    return stats.batches, stats.samples, stats.tokens, stats.samples_by_source


def test_a_mixture_without_end() -> None:
    loader = load(mixed(), 100, epochs=None, prefetch=4)
    from_b = [sum(n >= 1000 for n in batch) for batch in itertools.islice(rows_of(loader), 400)]
    assert from_b == [40] * 400
    with pytest.raises(TypeError, match="no length"):
        len(loader)


@pytest.mark.parametrize(("strategy", "samples"), [("first_exhausted", 41), ("all_exhausted", 59)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_mixture_that_says_where_it_ends(strategy: str, samples: int, *, drop_last: bool) -> None:
    mixture = mixed(weights=[0.5, 0.5], stop_strategy=strategy)
    loader = load(mixture, 7, drop_last=drop_last)
    found = rows(loader)
    assert loader.num_samples == samples
    assert len(loader) == len(found)
    assert len(sum(found, [])) == (samples - samples % 7 if drop_last else samples)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Stream(100), {"seq_len": None}, "seq_len is None, but a stream of tokens needs it"),
        (Numbers(9), {"seq_len": 4}, "seq_len is 4, but the samples have 3 tokens"),
        (Numbers(9), {"shuffle_buffer_size": 4}, "shuffle_buffer_size is 4, but shuffle is False"),
        (Numbers(9), {"shuffle": True, "shuffle_buffer_size": 0}, "shuffle_buffer_size is 0"),
        (Numbers(9), {"prefetch_workers": -1}, "prefetch_workers is -1"),
        (Numbers(9), {"prefetch_workers": 2}, "prefetch_workers is 2, but prefetch is 0"),
        (Numbers(9), {"drop_last": "no"}, "drop_last is 'no'; it must be True or False"),
        (Numbers(9), {"batch_size": 10**12, "epochs": None}, "more than this machine's memory"),
        (Numbers(9), {"prefetch": -1}, "prefetch is -1"),
        (Numbers(9), {"batch_size": 10}, "batch_size is 10, but there are only 9 samples of 3"),
        (mixed(), {"shuffle": False}, "a mixture shuffles its sources itself"),
        (mixed(), {"seed": 1}, "a mixture shuffles its sources itself"),
        (mixed(), {"pack": "greedy"}, "holds samples of 3 tokens already; leave pack"),
        (Numbers(9), {"pack": "greedy"}, "holds samples of 3 tokens already; leave pack"),
        (Numbers(9), {"pad_token_id": 0}, "holds samples of 3 tokens already; leave pack"),
        (mixed(), {"stop_strategy": "all_exhausted"}, "stop_strategy is for several sources"),
        (Numbers(9), {"stop_strategy": "all_exhausted"}, "stop_strategy is for several sources"),
        (mixed(), {"shuffle_buffer_size": 9}, "a mixture shuffles its sources itself"),
        (
            mixed(stop_strategy="all_exhausted"),
            {"epochs": 2},
            "epochs is 2, but stop_strategy='all",
        ),
        (mixed(), {"batch_size": 51}, "only 50 samples of 3 tokens"),
        (
            mixed(weights=[0.5, 0.5], stop_strategy="first_exhausted"),
            {"batch_size": 42},
            "batch_size is 42, but there are only 41 samples of 3 tokens",
        ),
    ],
)
def test_wrong_combinations(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(source, **{"batch_size": 2, **options})


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_error_of_one_of_many_small_batches_comes_in_its_turn(*, shuffle: bool) -> None:
    tokens = np.zeros(64 * 4 * 40, np.int32)
    tokens[64 * 4 * 10 + 5] = 70_000  # no uint16
    plain = ed.DataLoader(ArrayTokens(tokens), 4, 64, shuffle=shuffle, seed=3, epochs=1)
    bad = [number for number, batch in enumerate(plain) if batch["input_ids"].max() > 65_535]
    batches = iter(
        ed.DataLoader(
            ArrayTokens(tokens), 4, 64, shuffle=shuffle, seed=3, epochs=1, dtype=np.uint16
        )
    )
    for _ in range(bad[0]):
        assert next(batches)["input_ids"].ctypes.data % 64 == 0
    for _ in range(2):
        with pytest.raises(UsageError, match="there is a token 70000"):
            next(batches)


def test_truth_values_of_numpy() -> None:
    for shuffle in (True, False):
        loader = ed.DataLoader(Numbers(20), 2, shuffle=np.bool_(shuffle), epochs=1)  # type: ignore[arg-type]
        assert loader.shuffle is shuffle
        assert rows(loader) == rows(load(Numbers(20), 2, shuffle=shuffle))
        several = ed.DataLoader({"a": Numbers(20)}, 2, shuffle=np.bool_(shuffle))  # type: ignore[arg-type]
        assert json.loads(json.dumps(several.state_dict())) == several.state_dict()


def test_the_counts_of_an_iterator_that_was_sent_elsewhere() -> None:
    batches = iter(load(mixed(weights=[0.5, 0.5]), 4))
    for _ in range(3):
        next(batches)
    batches.load_state_dict(batches.state_dict())
    next(batches)
    assert batches.stats.samples == sum(batches.stats.samples_by_source.values()) == 16
