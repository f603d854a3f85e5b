from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import UsageError
from easydata.loader.mixing import Mixture, MixtureRun
from tests.loader.sources import Numbers
from tests.loader.test_samples import Documents

Place = tuple[int, int]


def mixture(*sizes: int, **options: Any) -> Mixture:
    return Mixture(
        {"abcdefgh"[i]: Numbers(size, base=1000 * i) for i, size in enumerate(sizes)}, **options
    )


def places(run: MixtureRun, length: int) -> list[Place]:
    sources, samples = run.take(length)
    assert sources.dtype == np.int32
    assert samples.dtype == np.int64
    return list(zip(sources.tolist(), samples.tolist(), strict=True))


def test_the_blend_of_megatron() -> None:
    mixed = mixture(9, 9, 9, weights=[0.5, 0.25, 0.25], shuffle=False)
    assert places(mixed.start(), 4) == [(0, 0), (1, 0), (2, 0), (0, 1)]


def test_without_weights_every_source_is_visited_in_proportion() -> None:
    for stop_strategy in ("restart", "first_exhausted", "all_exhausted"):
        mixed = mixture(30, 1, 9, stop_strategy=stop_strategy)
        assert mixed.num_samples == 40
        assert sorted(places(mixed.start(), 40)) == [
            (source, sample) for source, size in enumerate((30, 1, 9)) for sample in range(size)
        ]


def test_a_source_that_ends_starts_its_next_epoch_in_another_order() -> None:
    mixed = mixture(20, 50, weights=[0.5, 0.5])
    assert mixed.num_samples == 70
    run = mixed.start()
    first = [sample for source, sample in places(run, 400) if source == 0]
    epochs = [first[i : i + 20] for i in range(0, 200, 20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10
    assert run.counts == {"a": 200, "b": 200}
    in_order = mixture(3, 5, weights=[0.5, 0.5], shuffle=False)
    assert [s for source, s in places(in_order.start(), 16) if source == 0] == [0, 1, 2] * 2 + [
        0,
        1,
    ]


def test_the_order_in_a_source_depends_on_its_name_and_the_seed_alone() -> None:
    def order_in(name: str, mixed: Mixture) -> list[int]:
        number = list(mixed.sources).index(name)
        return [s for source, s in places(mixed.start(), 300) if source == number][:50]

    alone = Mixture({"x": Numbers(100)})
    assert order_in("x", alone) == order_in("x", Mixture({"w": Numbers(70), "x": Numbers(100)}))
    assert order_in("x", alone) != order_in("y", Mixture({"y": Numbers(100)}))
    assert order_in("x", alone) != order_in("x", Mixture({"x": Numbers(100)}, seed=1))


def test_a_window_of_shuffling() -> None:
    mixed = mixture(23, 10, weights=[1, 0], shuffle_buffer_size=5)
    for _ in range(2):
        visited = [sample for _, sample in places(mixed.start(), 23)]
        assert visited != sorted(visited)
        for start in range(0, 23, 5):
            part = visited[start : start + 5]
            assert sorted(part) == list(range(start, min(start + 5, 23)))


def cut(order: list[Place], sizes: list[int], weights: list[int], strategy: str) -> list[Place]:
    """Where a mixture ends, by looking at one sample after another."""
    seen: list[set[int]] = [set() for _ in sizes]
    for n, (source, sample) in enumerate(order):
        if strategy == "first_exhausted" and sample in seen[source]:
            return order[:n]
        seen[source].add(sample)
        if strategy == "all_exhausted" and all(
            len(s) == size for s, size, w in zip(seen, sizes, weights, strict=True) if w
        ):
            return order[: n + 1]
    raise AssertionError("it does not end")


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 10), st.integers(0, 5)), min_size=1, max_size=4).filter(
        lambda drawn: any(weight for _, weight in drawn)
    ),
    st.sampled_from(["first_exhausted", "all_exhausted"]),
    st.booleans(),
    st.data(),
)
def test_stop_strategies_against_an_oracle(
    drawn: list[tuple[int, int]], strategy: str, moving: bool, data: st.DataObject
) -> None:
    sizes, numbers = [size for size, _ in drawn], [number for _, number in drawn]
    weights = [Fraction(number, sum(numbers)) for number in numbers]
    options: dict[str, Any] = {"weights": weights}
    if moving:
        used = sum(map(bool, numbers))
        even = [Fraction(bool(number), used) for number in numbers]
        options = {
            "schedule": [(1, weights), (4, even)],
            "schedule_type": data.draw(st.sampled_from(["step", "linear", "cosine"])),
            "batch_size": 3,
            "block_size": 2,
        }
    endless = mixture(*sizes, **options)
    expected = cut(places(endless.start(), 300), sizes, numbers, strategy)
    mixed = mixture(*sizes, stop_strategy=strategy, **options)
    assert mixed.num_samples == len(expected)
    run = mixed.start()
    found: list[Place] = []
    while len(found) < len(expected):
        chunk = data.draw(st.integers(1, 40))
        found += places(run, chunk)
    assert found == expected
    assert places(run, 5) == []
    visits = [source for source, _ in expected]
    assert list(run.counts.values()) == [visits.count(i) for i in range(len(sizes))]
    assert places(mixed.start(run.counts), 5) == []


@pytest.mark.parametrize("strategy", ["restart", "first_exhausted", "all_exhausted"])
def test_restoring_at_every_sample(strategy: str) -> None:
    mixed = mixture(
        7,
        11,
        5,
        schedule=[(2, [0.5, 0.3, 0.2]), (9, [0.1, 0.1, 0.8])],
        schedule_type="linear",
        batch_size=4,
        block_size=3,
        stop_strategy=strategy,
    )
    whole = places(mixed.start(), 150)
    run = mixed.start()
    for n in range(len(whole)):
        assert places(mixed.start(run.counts), 150 - n) == whole[n:150]
        assert places(run, 1) == [whole[n]]


def test_a_state_of_10_to_the_12_samples() -> None:
    mixed = mixture(7, 100, weights=[0.3, 0.7], shuffle=False)
    run = mixed.start({"a": 3 * 10**11, "b": 7 * 10**11})
    assert places(run, 10) == [
        (source, ((3, 7)[source] * 10**11 + sample) % (7, 100)[source])
        for source, sample in places(mixed.start(), 10)
    ]
    assert run.counts == {"a": 3 * 10**11 + 3, "b": 7 * 10**11 + 7}


def test_a_long_mixture_is_not_gone_through_for_its_length() -> None:
    long = mixture(7 * 10**15, 10**16, weights=[0.7, 0.3], stop_strategy="first_exhausted")
    assert long.num_samples == 10**16
    longer = mixture(7 * 10**15, 10**16, weights=[0.7, 0.3], stop_strategy="all_exhausted")
    assert 0 <= longer.num_samples - 10**17 // 3 <= 3


def test_samples_are_read_from_their_source() -> None:
    sources = {
        "a": Numbers(50),
        "b": Numbers(40, base=1000),
        "c": Numbers(30, base=90_000, dtype=np.uint32),
    }
    mixed = Mixture(sources)
    chosen, samples = mixed.start().take(120)
    batch = mixed.read(chosen, samples)
    assert list(batch) == ["input_ids"]
    assert batch["input_ids"].dtype == np.uint32
    expected = np.array([0, 1000, 90_000])[chosen] + samples
    assert np.array_equal(batch["input_ids"], np.repeat(expected[:, None], 3, axis=1))
    # The type does not depend on which sources a batch has.
    assert mixed.read(np.zeros(2, np.int32), np.arange(2))["input_ids"].dtype == np.uint32


class Masked(Numbers):
    def read(self, samples: Any) -> dict[str, Any]:
        ids = super().read(samples)["input_ids"]
        return {"input_ids": ids, "loss_mask": ids > 3}


def test_sources_that_are_packed_differently() -> None:
    mixed = Mixture({"a": Masked(9), "b": Masked(5)})
    batch = mixed.read(*mixed.start().take(14))
    assert np.array_equal(batch["loss_mask"], batch["input_ids"] > 3)
    other = Mixture({"a": Masked(9), "b": Numbers(5)})
    with pytest.raises(UsageError, match="'a' gives samples with input_ids, loss_mask, but 'b'"):
        other.read(*other.start().take(2))


def test_the_fingerprint_follows_from_all_that_decides() -> None:
    schedule = [(0, [0.5, 0.5]), (9, [0.1, 0.9])]
    changes: list[dict[str, Any]] = [
        {},
        {"weights": [0.5, 0.5]},
        {"seed": 1},
        {"shuffle": False},
        {"shuffle_buffer_size": 4},
        {"stop_strategy": "first_exhausted"},
        {"schedule": schedule, "batch_size": 2},
        {"schedule": schedule, "batch_size": 4},
        {"schedule": schedule, "batch_size": 2, "schedule_type": "linear"},
    ]
    found = [mixture(5, 6, **change).fingerprint for change in changes]
    found += [
        mixture(5, 7).fingerprint,
        Mixture({"a": Numbers(5), "x": Numbers(6, base=1000)}).fingerprint,
    ]
    assert len(set(found)) == len(found)
    assert mixture(5, 6, weights=[Fraction(5, 11), Fraction(6, 11)]).fingerprint == found[0]


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ({}, {}, "at least one source"),
        (
            {"a": Numbers(5), "b": Numbers(5, seq_len=4)},
            {},
            "'a' have 3 tokens, but those of 'b' have 4",
        ),
        ({"a": Numbers(5), "b": Numbers(0)}, {}, "'b' has no samples"),
        ({"a": Numbers(5)}, {"seed": -1}, "seed is -1"),
        ([Numbers(5), Numbers(5)], {}, "sources of a mixture are a list; give a dict of them by"),
        (None, {}, "sources of a mixture are a NoneType"),
        ({"a": Numbers(5), "b": None}, {}, "'b' is a NoneType, which has no samples"),
        ({"a": Mixture({"b": Numbers(5)})}, {}, "'a' is a mixture; mix its sources"),
        ({"a": Documents([5])}, {}, "'a' is a Documents, which has no samples; .* pack it first"),
        ({1: Numbers(5)}, {}, "a source has the name 1; names are text"),
        ({"a": Numbers(5)}, {"seed": 1.5}, r"seed is 1\.5; it must be a whole number from 0 to"),
        ({"a": Numbers(5)}, {"seed": True}, "seed is True"),
        ({"a": Numbers(5)}, {"batch_size": 0}, "batch_size is 0; it must be a whole number from 1"),
        ({"a": Numbers(5)}, {"batch_size": 0, "schedule": [(0, [1])]}, "batch_size is 0"),
        ({"a": Numbers(5)}, {"batch_size": False}, "batch_size is False"),
        ({"a": Numbers(5)}, {"weights": 5}, "the weights are 5; give one for each of 'a'"),
        ({"a": Numbers(5)}, {"stop_strategy": "never"}, "'never'; it must be one of restart"),
        ({"a": Numbers(5)}, {"weights": {"b": 1}}, "weights for 'b', but the sources are 'a'"),
        ({"a": Numbers(5)}, {"weights": [1], "schedule": [(0, [1])]}, "both given"),
        ({"a": Numbers(5)}, {"schedule": [(0, [1])]}, "give batch_size"),
        ({"a": Numbers(5)}, {"schedule_type": "x"}, "schedule type is 'x'"),
        ({"a": Numbers(5)}, {"shuffle": False, "shuffle_buffer_size": 2}, "but shuffle is False"),
        ({"a": Numbers(5)}, {"shuffle_buffer_size": 0}, "shuffle_buffer_size is 0"),
        (
            {"a": Numbers(50), "b": Numbers(5)},
            {
                "schedule": [(0, [0.5, 0.5]), (49, [0, 1])],
                "batch_size": 2,
                "stop_strategy": "all_exhausted",
            },
            "'a' falls to 0 before its 50 samples",
        ),
    ],
)
def test_wrong_arguments(
    sources: Mapping[str, Numbers], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Mixture(sources, **options)


def test_counts_of_another_mixture() -> None:
    with pytest.raises(
        UsageError, match="the counts are of 'a', 'c', but the mixture is of 'a', 'b'"
    ):
        mixture(5, 5).start({"a": 1, "c": 1})
    with pytest.raises(UsageError, match="cannot have had 4 of the first 4 samples"):
        mixture(5, 5).start({"a": 4, "b": 0})
    wrong: list[tuple[Any, str]] = [
        ([1, 1], r"the counts are \[1, 1\]; give how many samples each source has given, by name"),
        ({"a": 1, "b": 1.0}, r"the count of 'b' is 1\.0; it must be a whole number from 0 up"),
        ({"a": "1", "b": 1}, "the count of 'a' is '1'"),
        ({"a": 1, "b": None}, "the count of 'b' is None"),
        ({"a": True, "b": 0}, "the count of 'a' is True"),
        ({"a": -1, "b": 1}, "the count of 'a' is -1"),
    ]
    for counts, message in wrong:
        with pytest.raises(UsageError, match=message):
            mixture(5, 5).start(counts)
    for length in (-1, 1.5):
        with pytest.raises(UsageError, match=f"length is {length}"):
            mixture(5, 5).start().take(length)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64])
def test_numbers_of_other_types(kind: Any) -> None:
    # Their common denominator is near 2^60, so that NumPy's arithmetic would wrap.
    weights = [0.123456789, 0.3333333, 1 - 0.123456789 - 0.3333333]
    mixed = mixture(30, 40, 50, weights=weights, seed=5, shuffle_buffer_size=9)
    run = mixed.start()
    run.take(100)
    stored = {name: kind(count) for name, count in run.counts.items()}
    expected = places(run, 40)
    other = mixture(30, 40, 50, weights=weights, seed=kind(5), shuffle_buffer_size=kind(9))
    again = other.start(stored)
    assert places(again, 40) == expected
    assert again.counts == run.counts
    assert {type(count) for count in again.counts.values()} == {int}
    assert other.fingerprint == mixed.fingerprint


def test_a_source_that_is_not_there() -> None:
    for number in (-1, 2):
        with pytest.raises(IndexError, match=f"source {number} of 2"):
            mixture(5, 5).read(np.array([0, number]), np.zeros(2, np.int64))
