"""At every step of a run, another loader goes on where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest

from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader

from .sequences import (
    ORDERS,
    SCHEDULES,
    STOPS,
    STRATEGIES,
    content,
    mixed,
    packed,
    samples_of,
)

STEPS = 200


def restore_at_every_step(make: Callable[[], DataLoader], steps: int = STEPS) -> int:
    """How many steps there were.

    After every one, another loader goes on: for a step at least, now and then to the end. As the
    state after it is equal, too, so is all that follows.
    """
    loader = make()
    states = [loader.state_dict()]
    batches = []
    for batch in islice(loader, steps):
        batches.append(content(batch))
        states.append(loader.state_dict())
    other = make()
    for step, state in enumerate(states):
        other.load_state_dict(json.loads(json.dumps(state)))
        assert other.state_dict() == state
        iterator = iter(other)
        assert other.state_dict() == state
        stop = len(batches) if step % 50 == 0 else min(step + 1, len(batches))
        for number in range(step, stop):
            assert content(next(iterator)) == batches[number]
            assert other.state_dict() == iterator.state_dict() == states[number + 1]
        if stop == len(batches) < steps:
            assert next(iterator, None) is None
            assert other.state_dict() == states[-1]
    return len(batches)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_step_of_every_packing(strategy: str, order: str) -> None:
    assert restore_at_every_step(lambda: packed(strategy, order)) == STEPS


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_of_every_mixture(schedule: str, stop: str) -> None:
    loader = mixed(schedule, stop)
    steps = restore_at_every_step(lambda: mixed(schedule, stop))
    whole = loader.num_samples // loader.batch_size
    assert steps == (STEPS if stop == "restart" else min(STEPS, whole))
    assert steps > 150


@pytest.mark.parametrize("order", ORDERS)
def test_mixtures_in_every_order(order: str) -> None:
    restore_at_every_step(lambda: mixed("cosine", "restart", order), 60)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_end(strategy: str, *, drop_last: bool) -> None:
    def make() -> DataLoader:
        return packed(strategy, "all", 7, epochs=2, drop_last=drop_last)

    loader = make()
    samples = 2 * loader.num_samples
    assert samples % 7
    assert restore_at_every_step(make) == len(loader) == samples // 7 + (not drop_last)
    list(loader)
    assert loader.state_dict()["samples"] == (samples - samples % 7 if drop_last else samples)


# A training run that was stopped must go on in every later release.
GOLDEN = {
    "all": "10 18 9 3 8 14 17 1 19 4 5 11 2 12 7 15 0 6 16 13 14 1 4 8 19",
    "as they come": "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 0 1 2 3 4",
    "block": "14 1 10 7 19 0 11 6 18 16 9 13 4 8 17 5 12 15 3 2 15 14 17 6 2",
    "window": "5 6 10 3 8 1 7 12 9 4 0 11 2 16 13 19 17 18 14 15 10 1 0 9 12",
    "mixed": "1028 1684 20016 24 1384 368 40112 116 20860 1144 1492 1040",
}


def test_golden_sequences() -> None:
    data = ArrayTokens(np.arange(40, dtype=np.uint16), fingerprint="forty")
    found = {
        order: [row[0] // 2 for row in samples_of(DataLoader(data, 5, 2, **options), 5)]
        for order, options in ORDERS.items()
    }
    found["mixed"] = [row[0] for row in samples_of(mixed("linear", "restart"), 4)]
    assert {name: " ".join(map(str, numbers)) for name, numbers in found.items()} == GOLDEN
