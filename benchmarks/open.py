"""The time until the first batch, for one shard and for many."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.common import Bar, Options, Report, Spread
from benchmarks.fresh import call_fresh

_BATCH, _SEQ_LEN = 32, 2048


def easydata_first_batch(path: str, *, shuffle: bool) -> dict[str, Any]:
    """Milliseconds, in this process, with everything imported."""
    import easydata as ed

    start = time.perf_counter()
    ds = ed.open_dataset(path)
    batch = next(iter(ds.loader(_BATCH, _SEQ_LEN, shuffle=shuffle)))["input_ids"]
    return {"ms": 1000 * (time.perf_counter() - start), "tokens": batch.size}


def contiguous(path: str) -> dict[str, Any]:
    return easydata_first_batch(path, shuffle=False)


def shuffled(path: str) -> dict[str, Any]:
    return easydata_first_batch(path, shuffle=True)


def datasets_first_rows(path: str) -> dict[str, Any]:
    """The same for `datasets`, whose batches are rows."""
    import datasets
    import numpy  # noqa: F401, ICN001 - what the numpy format needs is an import too

    datasets.disable_progress_bars()
    start = time.perf_counter()
    rows = datasets.load_from_disk(path).with_format("numpy")[:_BATCH]["input_ids"]
    milliseconds = 1000 * (time.perf_counter() - start)
    return {"ms": milliseconds, "tokens": sum(len(row) for row in rows)}


_SIDES = {
    "easydata, contiguous": contiguous,
    "easydata, shuffled": shuffled,
    "datasets, first 32 rows": datasets_first_rows,
}


def run(options: Options) -> Report:
    megabytes = options.pick(64, 0.8)
    paths = _build(options, megabytes)
    shards = {path: len(list(path.glob("data-*.arrow"))) for path in paths}
    report = Report(
        f"how long from a closed dataset to its first {_BATCH}×{_SEQ_LEN} batch?",
        [
            f"{megabytes} MB of text, the same rows in one shard and in many",
            "fresh process for each figure, after imports; page cache warm; nothing checked yet",
            "in turn, after one round that is not counted",
        ],
    )
    found: dict[tuple[str, Path], list[float]] = {}
    tokens: dict[tuple[str, Path], int] = {}
    for counts in options.rounds(15):
        for path in paths:
            for name, function in _SIDES.items():
                result = call_fresh(function, str(path))
                tokens[name, path] = result["tokens"]
                if counts:
                    found.setdefault((name, path), []).append(result["ms"])
    spreads = {key: Spread.of(values) for key, values in found.items()}
    for (name, path), spread in spreads.items():
        count = tokens[name, path]
        report.rows.append({"what": name, "shards": shards[path], "ms": spread, "tokens": count})
    one, many = paths
    for name in list(_SIDES)[:2]:
        first, second = spreads[name, one].median, spreads[name, many].median
        report.bars += [
            Bar(f"{name}, 1 shard, ms", first, 20.0, False, "issue 2"),
            Bar(f"{name}, {shards[many]} shards, ms", second, 20.0, False, "issue 2"),
            Bar(f"{name}, {shards[many]} shards / 1", second / first, 1.5, False, "issue 2"),
        ]
    return report


def _build(options: Options, megabytes: float) -> list[Path]:
    source = corpus.pieces(options, megabytes)
    # With shards of one byte every part is a shard of its own.
    part = int(source.stat().st_size / options.pick(1000, 20))
    return [
        corpus.build(options, "open-one", source),
        corpus.build(options, "open-many", source, part_size=part, shard_size=1),
    ]
