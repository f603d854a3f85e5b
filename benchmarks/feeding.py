"""Whether batches are on the device before a training step asks for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import easydata as ed
from benchmarks import corpus
from benchmarks.common import Bar, Options, Report, Spread
from easydata.loader.prefetch import Prefetcher

_SEQ_LEN = 2048
_AHEAD = "to_jax"
_WIDTH = 512  # of the matrices that a step multiplies


class Feeding(NamedTuple):
    """What some steps of a training run saw: a number each, or of several runs its spread.

    Attributes:
        wait_ms: from asking for a batch until it is on the device; mean of the steps that waited
            for the one before.
        waiting: share of these steps that was so spent.
        ready: share of these steps whose batch was on the device when it was returned.
        lost: share of the time of steps that did not wait for one another, beyond what they take
            with a batch that is always there; may be below 0, by noise.
    """

    wait_ms: Any
    waiting: Any
    ready: Any
    lost: Any


def run(options: Options) -> Report:
    import jax

    device = jax.local_devices()[0]
    path = corpus.build(options, "feeding", corpus.jsonl(options, options.pick(64, 2)))
    size, steps = options.pick(256, 8), options.pick(40, 3)
    loader = ed.DataLoader(ed.open_dataset(path), size, _SEQ_LEN)
    report = Report(
        f"are {size}×{_SEQ_LEN} batches on the device before a training step asks for them?",
        [
            f"device: {device.device_kind}, platform {device.platform!r}, JAX {jax.__version__}",
            f"{steps} steps of matrix products, each with a shuffled batch as int32; in turn, "
            "after one round that is not counted",
            "'wait_ms', 'waiting', 'ready': each step is waited for before the next batch is asked "
            "for; 'lost': none is, as in a training loop that logs now and then",
        ],
    )
    if device.platform == "cpu":
        report.conditions.append(
            "THIS IS THE CPU: nothing is copied to a device, and reading takes its cores from the "
            "steps; the figures say nothing about an accelerator"
        )
    for milliseconds in options.pick((5, 50), (2,)):
        step, taken = _make_step(next(_sides(loader)[_AHEAD]), milliseconds)
        found: dict[str, list[Feeding]] = {}
        for counts in options.rounds(5):
            for name, batches in _sides(loader).items():
                feeding = _measure(batches, step, steps)
                if counts:
                    found.setdefault(name, []).append(feeding)
        spreads = {
            name: Feeding(*(Spread.of(values) for values in zip(*feedings, strict=True)))
            for name, feedings in found.items()
        }
        report.rows += [
            {"step, ms": taken, "what": name, **spread._asdict()}
            for name, spread in spreads.items()
        ]
        waiting, ready = spreads[_AHEAD].waiting.median, spreads[_AHEAD].ready.median
        which = f"steps of {milliseconds} ms"
        report.bars.append(Bar(f"{which}, share spent waiting", waiting, 0.05, False, "ours"))
        report.bars.append(Bar(f"{which}, batches that were ready", ready, 0.95, True, "ours"))
    return report


def _sides(loader: ed.DataLoader) -> dict[str, Iterator[Any]]:
    """Ways to the same token ids on the device, as iterators that were not asked yet."""
    import jax

    return {
        _AHEAD: (b["input_ids"] for b in loader.to_jax(dtype=np.int32)),
        "to_jax, read and put by a thread": Prefetcher(
            lambda b: b["input_ids"], loader.to_jax(dtype=np.int32), workers=1, buffer_size=2
        ),
        "to_jax, prefetch=0": (b["input_ids"] for b in loader.to_jax(dtype=np.int32, prefetch=0)),
        "device_put(ids.astype(int32))": (
            jax.device_put(b["input_ids"].astype(np.int32)) for b in loader
        ),
    }


def _make_step(ids: Any, milliseconds: float) -> tuple[Callable[[Any], Any], float]:
    """A step that takes about so long, and how long it takes."""
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (_WIDTH, _WIDTH)) / _WIDTH**0.5

    @jax.jit
    def multiply(ids: Any, count: Any) -> Any:
        product = jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ matrix), matrix)
        return product.sum() + ids.sum()

    def taken(count: int) -> float:
        multiply(ids, count).block_until_ready()
        start = time.perf_counter()
        for _ in range(5):
            multiply(ids, count).block_until_ready()
        return 200 * (time.perf_counter() - start)

    count = 1
    while (now := taken(count)) < milliseconds / 2:
        count *= 2
    # What one product costs more, beside what every step costs.
    each = (taken(2 * count) - now) / count
    count = max(count + round((milliseconds - now) / max(each, 1e-6)), 1)
    return lambda ids: multiply(ids, count), taken(count)


def _measure(batches: Iterator[Any], step: Callable[[Any], Any], steps: int) -> Feeding:
    ids = next(batches)  # the first of an iteration is made while its step waits
    step(ids).block_until_ready()
    waits, totals, ready = [], [], 0
    for _ in range(steps):
        start = time.perf_counter()
        ids = next(batches)
        ready += ids.is_ready()
        ids.block_until_ready()
        waits.append(time.perf_counter() - start)
        step(ids).block_until_ready()
        totals.append(time.perf_counter() - start)

    start = time.perf_counter()
    for _ in range(steps):
        result = step(ids)
    result.block_until_ready()
    least = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(steps):
        result = step(next(batches))
    result.block_until_ready()
    lost = 1 - least / (time.perf_counter() - start)
    return Feeding(1000 * sum(waits) / steps, sum(waits) / sum(totals), ready / steps, lost)
