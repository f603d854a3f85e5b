from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import UsageError

TEXTS = [f"Satz {i}. " * (i * 7 % 23) for i in range(200)]


class Stream:
    """A `TokenSource` that shares no code with `TokenDataset`: token i is i."""

    def __init__(self, num_tokens: int) -> None:
        self._ids = np.arange(num_tokens, dtype=np.uint32)
        self.gathered = 0

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._ids.dtype

    def tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        assert 0 <= start <= stop <= len(self._ids)
        return self._ids[start:stop]

    def gather(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        self.gathered += 1
        return np.array([self._ids[start : start + length] for start in starts.tolist()])


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


@settings(max_examples=200, deadline=None)
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
            ed.DataLoader(Stream(num_tokens), batch_size, seq_len, **options)
        return
    loader = ed.DataLoader(Stream(num_tokens), batch_size, seq_len, **options)
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
    loader = ed.DataLoader(Stream(100_000), 300, 2, shuffle=True, drop_last=False)
    visited = sum((sample_numbers(batch, 2) for batch in loader), [])
    assert sorted(visited) == list(range(50_000))
    assert visited[:1000] != sorted(visited[:1000])


def test_seeds_and_epochs_have_their_own_order() -> None:
    def visit(seed: int) -> list[int]:
        loader = ed.DataLoader(Stream(200), 10, 2, shuffle=True, seed=seed, epochs=2)
        return sum((sample_numbers(batch, 2) for batch in loader), [])

    first = visit(0)
    assert first[:100] != first[100:]
    assert visit(1) != first
    assert visit(0) == first


def test_for_ever() -> None:
    loader = ed.DataLoader(Stream(20), 3, 2, shuffle=True, epochs=None)
    batches = [sample_numbers(batch, 2) for batch in itertools.islice(loader, 100)]
    visited = sum(batches, [])
    assert all(sorted(visited[i : i + 10]) == list(range(10)) for i in range(0, 300, 10))
    with pytest.raises(TypeError, match="epochs=None has no length"):
        len(loader)
    # More than all samples in one batch is no contradiction then.
    wide = ed.DataLoader(Stream(4), 10, 2, epochs=None)
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
        ed.DataLoader(Stream(100), **{"batch_size": 2, "seq_len": 4, **changes})


def test_over_a_dataset(dataset: ed.TokenDataset, stream: npt.NDArray[np.uint16]) -> None:
    for seq_len in (1, 16, 61, 1000):
        samples = stream[: len(stream) // seq_len * seq_len].reshape(-1, seq_len)
        loader = dataset.loader(7, seq_len, drop_last=False)
        found = [batch["input_ids"] for batch in loader]
        assert all(batch.dtype == np.uint16 for batch in found)
        assert np.array_equal(np.concatenate(found), samples)
        shuffled = dataset.loader(7, seq_len, shuffle=True, seed=3, epochs=2, drop_last=False)
        both = np.concatenate([batch["input_ids"] for batch in shuffled])
        for part in (both[: len(samples)], both[len(samples) :]):
            assert sorted(map(tuple, part.tolist())) == sorted(map(tuple, samples.tolist()))


def test_the_stream_does_not_depend_on_seq_len(dataset: ed.TokenDataset) -> None:
    whole = dataset.num_tokens // 8 * 8
    streams = [
        np.concatenate(
            [batch["input_ids"].ravel() for batch in dataset.loader(4, n, drop_last=False)]
        )
        for n in (2, 4, 8)
    ]
    assert all(np.array_equal(ids[:whole], dataset.tokens(0, whole)) for ids in streams)


def test_contiguous_batches_are_views_of_the_file(tmp_path: Path) -> None:
    dataset = ed.build([{"text": "x" * 9999}], tokenizer="bytes", out=tmp_path / "out")
    base = dataset.tokens(0, dataset.num_tokens)
    for number, batch in enumerate(dataset.loader(4, 100)):
        ids = batch["input_ids"]
        assert ids.ctypes.data == base.ctypes.data + number * 4 * 100 * 2
        assert not ids.flags.writeable
        assert not ids.flags.owndata
    assert number == 24
    for batch in dataset.loader(4, 100, shuffle=True):
        assert batch["input_ids"].flags.writeable
        assert not np.shares_memory(batch["input_ids"], base)


def test_only_what_is_not_contiguous_is_gathered() -> None:
    source = Stream(30)
    list(ed.DataLoader(source, 2, 5, epochs=1))
    assert source.gathered == 0
    list(ed.DataLoader(source, 4, 5, epochs=2))  # samples 4, 5, 0, 1 are one batch
    assert source.gathered == 1
