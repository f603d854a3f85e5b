"""The parts of benchmarks/keyed.py that run in processes of their own."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keyed_cases import SIDES, check, token_dicts

__all__ = ["fill", "open_and_get", "operations_per_second", "small_value"]

_TOKENS = 8
_PROCESSES = 4
_MOST_SECONDS = 600  # to wait for each other: longer if one has failed


def small_value(number: int) -> dict[str, Any]:
    """Eight tokens."""
    return {"input_ids": np.arange(number, number + _TOKENS).astype(np.uint16)}


def fill(path: str, entries: int, batch: int) -> float:
    """Put so many small values; seconds for each, with sealing at the end."""
    from easydata.cache.disk import DiskCache

    seconds = 0.0
    with DiskCache(path) as cache:
        for first in range(0, entries, batch):
            some = {f"key-{n}": small_value(n) for n in range(first, min(first + batch, entries))}
            start = time.perf_counter()
            cache.put_many(some)
            seconds += time.perf_counter() - start
        start = time.perf_counter()
    return (seconds + time.perf_counter() - start) / entries


def open_and_get(path: str, number: int) -> dict[str, Any]:
    """Milliseconds for both, in this process, with everything imported."""
    from easydata.cache.disk import DiskCache

    start = time.perf_counter()
    cache = DiskCache(path)
    found = cache.get(f"key-{number}")
    milliseconds = 1000 * (time.perf_counter() - start)
    if found is None or not np.array_equal(found[0]["input_ids"], small_value(number)["input_ids"]):
        raise RuntimeError(f"key-{number} gave another value than was put.")
    return {"ms": milliseconds, "entries": len(cache)}


def operations_per_second(side: str, folder: Path, entries: int, operations: int) -> float:
    """Of four processes that put and get random ones of the same keys, half of them puts.

    Args:
        side: which of `SIDES`.
        folder: a new one.
        entries: how many keys there are; all are put before.
        operations: of each process.
    """
    handle = SIDES[side].open(folder)
    for key, value in token_dicts(entries).items():
        handle.put(key, value)
    handle.close()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(_PROCESSES, timeout=_MOST_SECONDS)
    times = context.SimpleQueue()
    processes = [
        context.Process(
            target=_put_and_get, args=(side, folder, entries, operations, seed, barrier, times)
        )
        for seed in range(_PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"A process that used {side} failed; see its messages above.")
    starts, ends = zip(*(times.get() for _ in processes), strict=True)
    seconds: float = max(ends) - min(starts)
    return _PROCESSES * operations / seconds


def _put_and_get(
    side: str, folder: Path, entries: int, operations: int, seed: int, barrier: Any, times: Any
) -> None:
    """One process: it sends when it began and when it was done, by the clock of all of them."""
    values = token_dicts(entries)
    keys = list(values)
    handle = SIDES[side].open(folder)
    put, get, value_of = handle.put, handle.get, SIDES[side].value
    rng = random.Random(seed)
    plan = [(rng.choice(keys), rng.random() < 0.5) for _ in range(operations)]
    missed = 0
    barrier.wait()
    start = time.monotonic()
    for key, is_put in plan:
        if is_put:
            put(key, values[key])
        elif get(key) is None:
            missed += 1
    end = time.monotonic()
    barrier.wait()
    if missed:
        raise RuntimeError(f"{side} did not find {missed} keys that were there.")
    check(values, lambda key: value_of(get(key)))
    handle.close()
    times.put((start, end))
