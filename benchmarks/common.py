"""What all benchmarks share: spreads, bars, tables, JSON, and what machine this is."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("easydata", "numpy", "pyarrow", "tokenizers", "datasets")


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        quick: tiny data and few repetitions.
        data: where the corpus and its tokenizer are kept between runs.
        scratch: a folder that is removed at the end of the run.
    """

    quick: bool
    data: Path
    scratch: Path

    def pick(self, full: Any, quick: Any) -> Any:
        """The first value, or with --quick the second."""
        return quick if self.quick else full

    def rounds(self, count: int) -> list[bool]:
        """Which rounds of measurement count: not the first, which warms up; one with --quick."""
        return [True] if self.quick else [False, *[True] * count]


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, the least and the greatest."""

    median: float
    low: float
    high: float
    repetitions: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Bar:
    """A figure with the bound it should keep.

    Attributes:
        what: the figure in words.
        value: the figure.
        bound: the bound.
        at_least: whether the figure should be at least the bound, or else at most.
        origin: who sets the bound.
    """

    what: str
    value: float
    bound: float
    at_least: bool
    origin: str

    @property
    def is_met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass
class Report:
    """The answer of one benchmark.

    Attributes:
        question: what it asks.
        conditions: what the reader must know to believe the figures.
        rows: the table; every row has the same columns.
        bars: figures that have a bound.
    """

    question: str
    conditions: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)


def show(value: Any) -> str:
    """A cell of a table.

    >>> show(Spread(1.5, 1.25, 2.0, 3)), show(12_345), show(0.0625), show("text")
    ('1.5 (1.25–2)', '12,345', '0.0625', 'text')
    """
    if isinstance(value, Spread):
        return f"{show(value.median)} ({show(value.low)}–{show(value.high)})"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_report(name: str, report: Report, *, judged: bool) -> None:
    """Print a report; without `judged` say nothing about bounds kept or missed."""
    print(f"\n{name}: {report.question}")
    for condition in report.conditions:
        print(f"  · {condition}")
    columns = list(report.rows[0])
    cells = [columns, *([show(row[column]) for column in columns] for row in report.rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        first, *others = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  " + "  ".join([first, *others]).rstrip())
    for bar in report.bars:
        sign = "≥" if bar.at_least else "≤"
        verdict = ("kept" if bar.is_met else "MISSED") if judged else "not judged"
        bound = f"{sign} {show(bar.bound)}"
        print(f"  {verdict:<10}  {bar.what}: {show(bar.value)}, bar {bound} ({bar.origin})")


def write_report(
    path: Path, name: str, report: Report, about: dict[str, str], *, quick: bool
) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bars = [{**dataclasses.asdict(bar), "is_met": bar.is_met} for bar in report.bars]
    value = {"name": name, "quick": quick, "machine": about, **dataclasses.asdict(report)}
    path.write_text(json.dumps({**value, "bars": bars}, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, str]:
    """The machine and the versions that the figures belong to."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_name(),
        "cores": str(cores),
        # Other work on the machine spoils figures; whoever reads them must be able to tell.
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
