"""Loaders of many kinds over tokens that tell where they come from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.loader.packing_plan import Strategy

STRATEGIES = list(get_args(Strategy))
PAD = 65_000
SEQ_LEN = 4
ORDERS: dict[str, dict[str, Any]] = {
    "all": {"shuffle": True, "seed": 3},
    "as they come": {"shuffle": False},
    "block": {"shuffle": "block", "seed": 3},
    "window": {"shuffle": True, "seed": 3, "shuffle_buffer_size": 13},
}
WEIGHTS = [(0, [0.7, 0.2, 0.1]), (90, [0.2, 0.3, 0.5])]
SCHEDULES = ["constant", "step", "linear", "cosine"]
STOPS = ["restart", "first_exhausted", "all_exhausted"]

Arrays = dict[str, npt.NDArray[Any]]


def documents(num_documents: int, *, first: int = 0, seed: int = 0) -> ArrayTokens:
    """Documents of 0 to 9 tokens; token i of all is `first + i`."""
    lengths = np.random.default_rng(seed).integers(0, 10, num_documents)
    return ArrayTokens(np.arange(first, first + lengths.sum(), dtype=np.uint16), lengths)


def packed(strategy: str, order: str, batch_size: int = 3, **options: Any) -> DataLoader:
    """Some 140 samples of 4 tokens, packed and visited in this way."""
    data = documents(120)
    pad = None if strategy == "concat" else PAD
    settings = {**ORDERS[order], **options}
    return DataLoader(data, batch_size, SEQ_LEN, pack=strategy, pad_token_id=pad, **settings)


def mixture(schedule: str, stop: str, order: str = "all") -> Mixture:
    """Three sources of about 430, 300 and 170 samples."""
    sizes = {"a": 400, "b": 280, "c": 160}
    sources = {
        name: pack(documents(size, first=20_000 * number, seed=number), SEQ_LEN, "concat")
        for number, (name, size) in enumerate(sizes.items())
    }
    options: dict[str, Any] = {"stop_strategy": stop, **ORDERS[order]}
    if schedule == "constant":
        return Mixture(sources, weights=WEIGHTS[0][1], **options)
    return Mixture(
        sources, schedule=WEIGHTS, schedule_type=schedule, batch_size=5, block_size=7, **options
    )


def mixed(
    schedule: str, stop: str, order: str = "all", batch_size: int = 3, **options: Any
) -> DataLoader:
    """A loader of `mixture`."""
    return DataLoader(mixture(schedule, stop, order), batch_size, **options)


def content(batch: Arrays) -> list[tuple[str, Any, bytes]]:
    """All that a batch holds, to be compared."""
    return [(name, (array.shape, array.dtype), array.tobytes()) for name, array in batch.items()]


def samples_of(batches: Iterable[Arrays], count: int | None = None) -> list[list[int]]:
    """The token ids of the samples of batches, one after another."""
    return [row for batch in islice(batches, count) for row in batch["input_ids"].tolist()]


def loaders() -> dict[str, Callable[..., DataLoader]]:
    """One of every packing and of every mixture, by name; each takes options of a loader."""
    found: dict[str, Callable[..., DataLoader]] = {}
    orders = list(ORDERS)
    for number, strategy in enumerate(STRATEGIES):
        order = orders[number % len(orders)]
        found[f"{strategy}, {order}"] = _bound(packed, strategy, order)
    for number, (schedule, stop) in enumerate(itertools.product(SCHEDULES, STOPS)):
        order = orders[number % len(orders)]
        found[f"{schedule}, {stop}, {order}"] = _bound(mixed, schedule, stop, order)
    return found


def _bound(make: Callable[..., DataLoader], *names: str) -> Callable[..., DataLoader]:
    return lambda **options: make(*names, **options)
