"""What benchmarks/loader.py measures of easydata alone."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import easydata as ed
from benchmarks.common import Bar, Options, Spread
from easydata.loader import rows
from easydata.loader.packing_plan import Strategy, plan_packing
from easydata.loader.rows import Pieces

__all__ = ["Views", "above_the_gather", "all_arrays", "decoding", "plan_bars", "seek_bars", "views"]

_ISSUE = "issue 5"
_BATCH, _SEQ_LEN = 32, 2048
_DECODE_BATCH = 256
_ARRAYS = ["segment_ids", "positions", "labels", "loss_mask"]
_KEPT_BYTES = 256 << 20


def above_the_gather(ds: ed.TokenDataset, options: Options) -> Bar:
    """What a shuffled batch costs one thread above copying its rows: the epoch's time without that
    in Arrow's `take`, which a clock is put around. Of the rounds the fastest counts: what disturbs
    one only adds to it.
    """
    gather, take_options = rows._take()  # noqa: SLF001 - it is the copy without all else
    copying = 0.0

    class TimedTake:
        @staticmethod
        def call(*arguments: Any) -> Any:
            nonlocal copying
            begin = time.perf_counter()
            copied = gather.call(*arguments)
            copying += time.perf_counter() - begin
            return copied

    def timed_take() -> tuple[Any, Any]:
        return TimedTake, take_options

    above: list[float] = []
    threads = pa.cpu_count()
    pa.set_cpu_count(1)
    try:
        with mock.patch.object(rows, "_take", timed_take):
            for counts in options.rounds(20):
                copying, batches = 0.0, 0
                start = time.perf_counter()
                for batch in ed.DataLoader(ds, _BATCH, _SEQ_LEN, shuffle=True, epochs=1):
                    batches += 1
                    del batch
                seconds = time.perf_counter() - start
                if not copying:
                    raise RuntimeError("The loader copies shuffled rows otherwise than by _take.")
                if counts:
                    above.append((seconds - copying) / batches * 1e6)
    finally:
        pa.set_cpu_count(threads)
    what = f"{_BATCH}×{_SEQ_LEN} shuffled, µs of a batch of one thread above copying its rows"
    return Bar(what, min(above), 8.0, False, _ISSUE)


class Views(NamedTuple):
    """How batches in order lie.

    Attributes:
        batches: how many there are.
        mapped: how many begin in a map of a shard; by the addresses, not by what the loader says.
        inside: how many lie in one record batch.
        microseconds: for each batch, to be handed out.
    """

    batches: int
    mapped: int
    inside: int
    microseconds: Spread


def views(ds: ed.TokenDataset, batch_size: int, options: Options) -> Views:
    """Batches in order are handed out without a copy, so they take a time and have no rate."""

    def batches() -> Iterable[Any]:
        return ed.DataLoader(ds, batch_size, _SEQ_LEN, shuffle=False, epochs=1)

    found: list[float] = []
    for counts in options.rounds(9):
        number = 0
        start = time.perf_counter()
        for batch in batches():
            number += 1
            del batch
        if counts:
            found.append((time.perf_counter() - start) / number * 1e6)
    addresses = np.array([batch["input_ids"].ctypes.data for batch in batches()])
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    folder = str(ds.path.resolve())
    ranges = [
        [int(end, 16) for end in fields[0].split("-")]
        for fields in maps
        if fields[-1].startswith(folder) and fields[-1].endswith(".arrow")
    ]
    mapped = sum(any(low <= one < high for low, high in ranges) for one in addresses.tolist())
    starts = np.arange(number) * batch_size * _SEQ_LEN
    ends = ds.ledger.first_tokens.searchsorted(
        [starts, starts + batch_size * _SEQ_LEN - 1], "right"
    )
    return Views(number, mapped, int((ends[0] == ends[1]).sum()), Spread.of(found))


def all_arrays(ds: ed.TokenDataset, batch_size: int, options: Options) -> dict[str, Spread]:
    """Tokens a second of packed batches with every array that training takes, and of NumPy copying
    the arrays of such batches, which lie in memory, into arrays that are there, by one thread.
    """
    loader = ed.DataLoader(
        ds, batch_size, _SEQ_LEN, pack="best_fit", columns=_ARRAYS, pad_token_id=0, epochs=None
    )
    batches = iter(loader)
    batch_bytes = sum(array.nbytes for array in next(batches).values())
    kept = [next(batches) for _ in range(options.pick(_KEPT_BYTES, 1) // batch_bytes + 1)]
    into = {name: np.empty_like(array) for name, array in kept[0].items()}

    def load() -> None:
        for batch in islice(batches, len(kept)):
            del batch

    def copy() -> None:
        for batch in kept:
            for name, array in batch.items():
                np.copyto(into[name], array)

    tokens = sum(batch["input_ids"].size for batch in kept)
    rates: dict[str, list[float]] = {"easydata": [], "NumPy": []}
    for counts in options.rounds(9):
        for name, side in (("easydata", load), ("NumPy", copy)):
            start = time.perf_counter()
            side()
            if counts:
                rates[name].append(tokens / (time.perf_counter() - start))
    return {name: Spread.of(found) for name, found in rates.items()}


def decoding(path: Path, options: Options) -> dict[str, Spread]:
    """Tokens a second of an epoch in blocks, opened anew, and of Arrow's decoding of all shards."""
    shards = sorted(path.glob("data-*.arrow"))
    num_tokens = ed.open_dataset(path).num_tokens

    def load() -> int:
        tokens = 0
        ds = ed.open_dataset(path)
        for batch in ed.DataLoader(ds, _DECODE_BATCH, _SEQ_LEN, shuffle="block", epochs=1):
            tokens += batch["input_ids"].size
            del batch
        return tokens

    def decode() -> int:
        for shard in shards:
            with pa.memory_map(str(shard)) as file:
                table = pa.ipc.open_stream(file).read_all()
                del table
        return num_tokens

    rates: dict[str, list[float]] = {"easydata": [], "Arrow": []}
    for counts in options.rounds(5):
        for name, side in (("easydata", load), ("Arrow", decode)):
            start = time.perf_counter()
            tokens = side()
            if counts:
                rates[name].append(tokens / (time.perf_counter() - start))
    return {name: Spread.of(found) for name, found in rates.items()}


class _SimulatedTokens:
    """A stream as long as one likes: the same million tokens over and over."""

    dtype = np.dtype(np.uint16)
    fingerprint = "simulated"

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self._tokens = np.arange(1 << 20, dtype=self.dtype)

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        sizes = np.broadcast_to(np.multiply(lengths, self.dtype.itemsize), starts.shape)
        offsets = starts % (len(self._tokens) // 2) * self.dtype.itemsize
        return Pieces(self._tokens.ctypes.data + offsets, sizes, None, self._tokens)


def seek_bars(options: Options) -> list[Bar]:
    """Going on after so many samples of 8 tokens, from a state to the first batch."""

    def seek(num_tokens: int, sample: int, *, shuffle: bool) -> None:
        source = _SimulatedTokens(num_tokens)
        state = ed.DataLoader(source, _BATCH, 8, shuffle=shuffle).state_dict()
        loader = ed.DataLoader(source, _BATCH, 8, shuffle=shuffle)
        loader.load_state_dict({**state, "samples": sample})
        next(iter(loader))

    def peak_bytes(num_tokens: int) -> int:
        tracemalloc.start()
        seek(num_tokens, num_tokens // 10, shuffle=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    bars = []
    for shuffle in (True, False):
        seconds = []
        for _ in range(options.pick(9, 1)):
            start = time.perf_counter()
            seek(10**12, 10**11, shuffle=shuffle)
            seconds.append(time.perf_counter() - start)
        order = "shuffled" if shuffle else "in order"
        what = f"from a state to sample 10^11 of 10^12 simulated tokens, {order}, ms"
        bars.append(Bar(what, 1000 * float(np.median(seconds)), 10.0, False, _ISSUE))
    peak_bytes(10**9)
    grown = peak_bytes(10**12) / peak_bytes(10**9)
    bars.append(Bar("memory of that for 10^12 tokens / 10^9", grown, 1.1, False, _ISSUE))
    return bars


def plan_bars(options: Options) -> list[Bar]:
    """The plan of ten million documents with log-normal lengths around 600 tokens."""
    count = options.pick(10_000_000, 10_000)
    drawn = np.random.default_rng(0).lognormal(5.9, 1.0, count)
    lengths = drawn.astype(np.int64) + 1
    bars = []
    for strategy in get_args(Strategy):
        start = time.perf_counter()
        plan = plan_packing(lengths, _SEQ_LEN, strategy)
        seconds = time.perf_counter() - start
        if plan.num_tokens != lengths.sum():
            raise RuntimeError(f"the {strategy} plan has {plan.num_tokens} tokens")
        what = f"the {strategy} plan of {count:,} documents, s"
        bars.append(Bar(what, seconds, 30.0, False, _ISSUE))
    return bars
