"""The speed of a loader, against copying batches out of a memory map and against other loaders."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import easydata as ed
from benchmarks import corpus, loader_parts
from benchmarks.common import ROOT, Bar, Options, Report, Spread
from benchmarks.loader_page import write_chart, write_page
from benchmarks.loader_sides import SHAPES, Figures, measure_sides
from benchmarks.peer_programs.easydata_loader import CHECKED, FIRST
from benchmarks.peer_programs.reading import EPOCHS, Shape
from easydata._threads import thread_count

_CHUNK = 1 << 22
_CODECS = ("none", "lz4", "zstd")
_DESIGN, _ISSUE = "DESIGN §7", "issue 5"


def run(options: Options) -> Report:
    if not Path("/proc/self/maps").exists():
        sys.exit("The loader benchmark reads /proc, which this system does not have.")
    # Of 250 MB, a third of a first epoch goes before the first batch; real datasets are larger.
    megabytes = options.pick(600, 2)
    source = corpus.jsonl(options, megabytes)
    folder = options.scratch / "loader"
    folder.mkdir()
    path = corpus.build(options, "loader/dataset", source)
    ds = ed.open_dataset(path)
    _write_tokens(ds, folder / "tokens.npy")
    report = Report(
        "how fast are batches read, by which loader?",
        [
            f"{ds.num_tokens:,} tokens {ds.dtype}, {ds.num_tokens * ds.dtype.itemsize / 1e6:,.0f} "
            "MB, the same for all; page cache warm; each batch is dropped before the next",
            "each loader in a process of its own, in turn with the limit, after a round that is "
            "not counted; its ratio is to the limit of its own process; a round is an epoch (of "
            f"the limit and of easydata, checked, {EPOCHS}), or what of it a second allows (of "
            "other loaders half a second)",
            "easydata copies shuffled batches on as many threads as Arrow takes, here "
            f"{thread_count()}, the limit on one",
            "in order, each batch is copied into one buffer, as to a device: without that, who "
            "hands out views would read nothing",
            "first batch: from a closed dataset, fresh process, after imports, 32×2048 shuffled, "
            "of easydata also in order; MB: anonymous memory above the imports while reading them, "
            "that of worker processes included",
        ],
    )
    sides = list(measure_sides(options, folder / "tokens.npy"))
    report.conditions += [f"{side.name}: {side.how}" for side in sides]
    report.rows += [_row(side, shape) for shape in SHAPES for side in sides if side.rates]
    report.bars += _side_bars({side.name: side for side in sides})
    _add_views(report, ds, "documents", options)
    report.bars.append(loader_parts.above_the_gather(ds, options))
    _add_all_arrays(report, ds, options)
    samples = corpus.build(options, "loader/samples", source, seq_len=2048)
    _add_views(report, ed.open_dataset(samples), "samples", options)
    shutil.rmtree(samples)
    for codec in _CODECS:
        if codec != "none":
            path = corpus.build(options, f"loader/{codec}", source, compression=codec)
        _add_decoding(report, codec, loader_parts.decoding(path, options))
        shutil.rmtree(path)
    shutil.rmtree(folder)
    report.bars += loader_parts.seek_bars(options)
    report.bars += loader_parts.plan_bars(options)
    docs = options.pick(ROOT / "docs", options.scratch)
    write_chart(docs / "loader-speed.svg", sides)
    write_page(docs / "loader-speed.md", report, sides)
    return report


def _write_tokens(ds: ed.TokenDataset, file: Path) -> None:
    """All tokens, in a file of their own."""
    out = np.lib.format.open_memmap(file, "w+", ds.dtype, (ds.num_tokens,))
    for start in range(0, ds.num_tokens, _CHUNK):
        stop = min(start + _CHUNK, ds.num_tokens)
        out[start:stop] = ds.tokens(start, stop)
    out.flush()


def _row(side: Figures, shape: Shape) -> dict[str, Any]:
    rate = side.rates[shape]
    is_measured = shape in side.first_ms
    return {
        "batches": shape.label,
        "what": side.name,
        "G tokens/s": _in_billions(rate),
        "ratio": side.shares[shape],
        "first batch, ms": side.first_ms[shape] if is_measured else "–",
        "MB": side.megabytes if is_measured else "–",
    }


def _part_row(batches: str, what: str, rate: Spread | str, ratio: float | str) -> dict[str, Any]:
    shown = rate if isinstance(rate, str) else _in_billions(rate)
    row = {"batches": batches, "what": what, "G tokens/s": shown, "ratio": ratio}
    return {**row, "first batch, ms": "–", "MB": "–"}


def _in_billions(rate: Spread) -> Spread:
    return Spread(rate.median / 1e9, rate.low / 1e9, rate.high / 1e9, rate.repetitions)


def _side_bars(sides: dict[str, Figures]) -> Iterator[Bar]:
    checked, first = sides[CHECKED], sides[FIRST]
    small, large = Shape(32, 2048, is_shuffled=True), Shape(256, 2048, is_shuffled=True)
    for shape, bound in ((small, 0.6), (large, 0.9)):
        yield Bar(f"{shape.label}, checked", checked.shares[shape], bound, True, _DESIGN)
        yield Bar(f"{shape.label}, first epoch", first.shares[shape], 0.6, True, _DESIGN)
    times = checked.shares[small] / sides["datasets, numpy"].shares[small]
    yield Bar(f"{small.label}, checked / datasets, numpy", times, 10.0, True, _ISSUE)
    for shape, ms in first.first_ms.items():
        yield Bar(f"{shape.label}, first batch, ms", ms.median, 30.0, False, _ISSUE)


def _add_views(report: Report, ds: ed.TokenDataset, of: str, options: Options) -> None:
    for batch_size in (32, 256):
        found = loader_parts.views(ds, batch_size, options)
        label = Shape(batch_size, 2048, is_shuffled=False).label
        what = f"{found.mapped} of {found.batches} without a copy"
        took = f"{found.microseconds.median:.1f} µs each"
        report.rows.append(_part_row(f"{label}, of {of}", f"easydata, {what}", took, "–"))
        if found.inside:
            bar = f"{label}, of {of}, share without a copy of those inside a record batch"
            report.bars.append(Bar(bar, found.mapped / found.inside, 1.0, True, _DESIGN))


def _add_all_arrays(report: Report, ds: ed.TokenDataset, options: Options) -> None:
    for batch_size in (32, 256):
        rates = loader_parts.all_arrays(ds, batch_size, options)
        label = f"{Shape(batch_size, 2048, is_shuffled=True).label}, best_fit, all arrays"
        ratio = rates["easydata"].median / rates["NumPy"].median
        report.rows.append(_part_row(label, "easydata, checked", rates["easydata"], ratio))
        report.rows.append(_part_row(label, "NumPy, copying as much", rates["NumPy"], 1.0))


def _add_decoding(report: Report, codec: str, rates: dict[str, Spread]) -> None:
    ratio = rates["easydata"].median / rates["Arrow"].median
    label = f"256×2048 in blocks, {codec}, opened anew"
    if codec == "none":
        # Arrow only maps such files.
        report.rows.append(_part_row(label, "easydata", rates["easydata"], "–"))
        return
    report.rows.append(_part_row(label, "easydata", rates["easydata"], ratio))
    report.rows.append(_part_row(label, "Arrow, read_all of the shards", rates["Arrow"], 1.0))
    if codec == "zstd":
        report.bars.append(Bar(f"{label}, / Arrow's decoding", ratio, 0.6, True, _ISSUE))
