"""The loaders that benchmarks/loader.py compares: measured one by one, each beside the limit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.common import Options, Spread
from benchmarks.peer_programs import easydata_loader, measure, memmap
from benchmarks.peer_programs.reading import Shape
from benchmarks.peers import OWN, PeerError, call, python_of

__all__ = ["LIMIT", "SHAPES", "Figures", "measure_sides"]

LIMIT = memmap.LIMIT
SHAPES = [
    Shape(32, 2048, is_shuffled=True),
    Shape(256, 2048, is_shuffled=True),
    Shape(64, 512, is_shuffled=True),
    Shape(8, 8192, is_shuffled=True),
    Shape(32, 2048, is_shuffled=False),
    Shape(256, 2048, is_shuffled=False),
]


class _Program(NamedTuple):
    """A module of `peer_programs`, those of its variants that are measured, and where."""

    module: str
    names: list[str]
    environment: str

    @property
    def first_batches(self) -> list[tuple[str, Shape]]:
        """Of which variants and shapes the time to the first batch is measured."""
        shuffled, in_order = SHAPES[0], SHAPES[4]
        if self.module == "easydata_loader":
            # In a new process nothing has been checked, so its variants are the same.
            return [(easydata_loader.FIRST, shuffled), (easydata_loader.FIRST, in_order)]
        return [(name, shuffled) for name in self.names]


_PROGRAMS = [
    _Program(
        "easydata_loader",
        [easydata_loader.CHECKED, easydata_loader.ONE_THREAD, easydata_loader.FIRST],
        OWN,
    ),
    _Program("memmap", ["np.stack of memmap slices"], OWN),
    _Program("hf_datasets", ["datasets, numpy", "datasets, arrow"], OWN),
    _Program("memmap", ["torch.stack of memmap slices"], "peers"),
    _Program("hf_datasets", ["datasets, torch"], "peers"),
    _Program("array_record", ["Grain + ArrayRecord", "ArrayRecord, batch reads"], "peers"),
    _Program("lance_dataset", ["Lance"], "peers"),
    _Program("zarr3", ["TensorStore zarr3", "TensorStore zarr3, cached"], "peers"),
    _Program("litdata_tokens", ["LitData", "LitData, 2 workers"], "peers"),
    _Program(
        "mosaicml_mds",
        [
            "MosaicML Streaming",
            "MosaicML Streaming, 2 workers",
            "MosaicML Streaming, by number",
        ],
        "mosaic",
    ),
]


@dataclass
class Figures:
    """What was found of one way to read.

    Attributes:
        name: as the tables show it.
        how: how it was driven, with the versions; or why there are no figures.
        rates: tokens a second, by shape.
        shares: of the limit, which was measured in turn with it in the same process: the median
            of those of the rounds, by shape.
        first_ms: from a closed dataset to the first batch, by shape.
        megabytes: of anonymous memory above the imports, at most.
    """

    name: str
    how: str
    rates: dict[Shape, Spread] = field(default_factory=dict)
    shares: dict[Shape, float] = field(default_factory=dict)
    first_ms: dict[Shape, Spread] = field(default_factory=dict)
    megabytes: float | None = None


def measure_sides(options: Options, file: Path) -> Iterator[Figures]:
    """The figures of each side; first those of the limit.

    Args:
        options: with --quick, only what needs no other environment.
        file: the tokens, of a dataset "dataset" in the same folder.
    """
    for program in _PROGRAMS:
        python = python_of(program.environment)
        if options.quick and program.environment != OWN:
            python = None
        if python is None:
            why = "not measured with --quick" if options.quick else "not installed"
            yield from (Figures(name, why) for name in program.names)
            continue
        try:
            yield from _measure(program, python, options, file)
        except PeerError as error:
            if program.environment == OWN:
                raise SystemExit(f"{program.module} failed: {error}") from error
            yield from (Figures(name, f"failed: {error}") for name in program.names)


def _measure(program: _Program, python: Path, options: Options, file: Path) -> list[Figures]:
    is_own = program.environment == OWN
    folder = options.scratch / "loader-sides"
    try:
        lengths = sorted({shape.seq_len for shape in SHAPES})
        about = call(python, measure.write, program.module, str(file), str(folder), lengths)
        found = {
            name: Figures(name, f"{about['how'][name]} ({about['versions']})")
            for name in program.names
        }
        limit = Figures(LIMIT, memmap.VARIANTS[LIMIT].how)
        measured = call(
            python,
            measure.rates,
            program.module,
            program.names,
            str(file),
            str(folder),
            SHAPES,
            options.rounds(9 if is_own else 3),
            options.pick(1.0 if is_own else 0.5, 0.02),
        )
        for shape, speeds in zip(SHAPES, measured, strict=True):
            for name, side in {LIMIT: limit, **found}.items():
                side.rates[shape] = Spread.of(speeds[name])
                pairs = zip(speeds[name], speeds[LIMIT], strict=True)
                side.shares[shape] = median(speed / limit_speed for speed, limit_speed in pairs)
        for name, shape in program.first_batches:
            side = found[name]
            firsts = [
                call(python, measure.first_batch, program.module, name, str(folder), shape, 0.3)
                for _ in range(options.pick(9 if is_own else 3, 1))
            ]
            side.first_ms[shape] = Spread.of([first["ms"] for first in firsts])
            most = max(first["MB"] for first in firsts)
            side.megabytes = max(most, side.megabytes or 0.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shown = list(found.values())
    return [limit, *shown] if program.module == "easydata_loader" else shown
