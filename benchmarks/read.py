"""The speed of reading batches, against copying them out of a memory map with NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import easydata as ed
from benchmarks import corpus
from benchmarks.common import Bar, Options, Report, Spread

_SEQ_LEN = 2048
_LIMIT, _WARM, _FIRST = "NumPy, memmap[index]", "easydata, checked", "easydata, first epoch"
_CHUNK = 1 << 22


class Side(NamedTuple):
    """One way to read an epoch: `prepare` is not timed, `read` is and returns its tokens."""

    prepare: Callable[[], Any]
    read: Callable[[Any], int]


def run(options: Options) -> Report:
    megabytes = options.pick(250, 2)
    path = corpus.build(options, "read", corpus.jsonl(options, megabytes))
    samples = _as_memmap(ed.open_dataset(path), options.scratch / "tokens.bin")
    report = Report(
        f"how fast is an epoch of batches of {_SEQ_LEN} tokens?",
        [
            f"{samples.size:,} tokens {samples.dtype}, {samples.nbytes / 1e6:,.0f} MB, page cache "
            "warm; each batch is dropped before the next; in turn, after one round that is not "
            "counted",
            "'checked': every block was compared with its checksum before; 'first epoch': opened "
            "anew, so mapping and checking are in the time",
            "NumPy copies rows of one array in an order made before; datasets reads shuffled "
            "documents of the very same folder, as many tokens in a batch",
        ],
    )
    for size in (32, 256):
        sides = _shuffled_sides(path, samples, size)
        rates = _measure(sides, options.rounds(9))
        limit = rates[_LIMIT].median
        for name, rate in rates.items():
            report.rows.append(
                {
                    "batches": f"{size}×{_SEQ_LEN} shuffled",
                    "what": name,
                    "G tokens/s": rate,
                    "ratio": rate.median / limit,
                }
            )
        warm, first = rates[_WARM].median / limit, rates[_FIRST].median / limit
        origin = "DESIGN §7"
        if size == 256:
            report.bars.append(Bar("256×2048, checked", warm, 0.5, True, "issue 2"))
            report.bars.append(Bar("256×2048, checked", warm, 0.9, True, origin))
        else:
            report.bars.append(Bar("32×2048, checked", warm, 0.6, True, origin))
        report.bars.append(Bar(f"{size}×2048, first epoch", first, 0.6, True, origin))
    for size in (32, 256):
        _add_contiguous(report, path, size, options.rounds(9))
    return report


def _as_memmap(ds: ed.TokenDataset, file: Path) -> npt.NDArray[Any]:
    """The same tokens in a file of their own: dtype[samples, seq_len]."""
    whole = ds.num_tokens // _SEQ_LEN * _SEQ_LEN
    with file.open("wb") as out:
        for start in range(0, whole, _CHUNK):
            out.write(ds.tokens(start, min(start + _CHUNK, whole)).tobytes())
    return np.memmap(file, ds.dtype, "r").reshape(-1, _SEQ_LEN)


def _shuffled_sides(path: Path, samples: npt.NDArray[Any], size: int) -> dict[str, Side]:
    import datasets

    # The round that is not counted checks all its blocks.
    checked = ed.open_dataset(path)
    rows = datasets.load_from_disk(str(path)).with_format("numpy")
    rows_in_batch = max(1, size * _SEQ_LEN * len(rows) // checked.num_tokens)
    orders = np.random.default_rng(0)

    def read_numpy(order: npt.NDArray[np.int64]) -> int:
        tokens = 0
        for start in range(0, len(order) - size + 1, size):
            batch = samples[order[start : start + size]]
            tokens += batch.size
            del batch
        return tokens

    def read_easydata(ds: ed.TokenDataset) -> int:
        tokens = 0
        for batch in ds.loader(size, _SEQ_LEN, shuffle=True):
            tokens += batch["input_ids"].size
            del batch
        return tokens

    def read_datasets(order: npt.NDArray[np.int64]) -> int:
        tokens = 0
        for start in range(0, len(order), rows_in_batch):
            batch = rows[order[start : start + rows_in_batch]]["input_ids"]
            tokens += sum(map(len, batch))
            del batch
        return tokens

    return {
        _LIMIT: Side(lambda: orders.permutation(len(samples)), read_numpy),
        _WARM: Side(lambda: checked, read_easydata),
        _FIRST: Side(lambda: ed.open_dataset(path), read_easydata),
        "datasets, numpy format": Side(lambda: orders.permutation(len(rows)), read_datasets),
    }


def _measure(sides: dict[str, Side], rounds: list[bool]) -> dict[str, Spread]:
    """Thousand millions of tokens a second."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for counts in rounds:
        for name, side in sides.items():
            prepared = side.prepare()
            start = time.perf_counter()
            tokens = side.read(prepared)
            seconds = time.perf_counter() - start
            if counts:
                rates[name].append(tokens / seconds / 1e9)
    return {name: Spread.of(found) for name, found in rates.items()}


def _add_contiguous(report: Report, path: Path, size: int, rounds: list[bool]) -> None:
    """Batches in order are handed out without a copy, so their rate is no rate of bytes."""
    ds = ed.open_dataset(path)
    microseconds: list[float] = []
    for counts in rounds:
        batches = 0
        start = time.perf_counter()
        for batch in ds.loader(size, _SEQ_LEN):
            batches += 1
            del batch
        if counts:
            microseconds.append((time.perf_counter() - start) / batches * 1e6)
    mapped, inside = _count_mapped(ds, size)
    report.rows.append(
        {
            "batches": f"{size}×{_SEQ_LEN} in order",
            "what": f"easydata, {mapped} of {batches} without a copy",
            "G tokens/s": Spread.of([size * _SEQ_LEN / us / 1000 for us in microseconds]),
            "ratio": f"{np.median(microseconds):.1f} µs each",
        }
    )
    if inside:
        what = f"{size}×2048 in order, share without a copy of those inside a record batch"
        report.bars.append(Bar(what, mapped / inside, 1.0, True, "DESIGN §7"))


def _count_mapped(ds: ed.TokenDataset, size: int) -> tuple[int, int]:
    """How many batches lie in a map of a shard, and how many lie inside one record batch."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return 0, 0
    addresses = [
        batch["input_ids"].__array_interface__["data"][0] for batch in ds.loader(size, _SEQ_LEN)
    ]
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in maps.read_text().splitlines()
        if line.endswith(".arrow") and str(ds.path.resolve()) in line
    ]
    mapped = sum(any(low <= one < high for low, high in ranges) for one in addresses)
    starts = np.arange(len(addresses)) * size * _SEQ_LEN
    ends = np.searchsorted(ds.ledger.first_tokens, [starts, starts + size * _SEQ_LEN - 1], "right")
    return mapped, int((ends[0] == ends[1]).sum())
