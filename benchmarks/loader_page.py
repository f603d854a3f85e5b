"""The page docs/loader-speed.md and its chart, from the figures of benchmarks/loader.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Bar, Report, machine, show
from benchmarks.loader_sides import LIMIT, SHAPES, Figures
from benchmarks.peer_programs.reading import Shape

__all__ = ["write_chart", "write_page"]

_PANELS = [Shape(256, 2048, is_shuffled=True), Shape(256, 2048, is_shuffled=False)]
# Grey enough to be read on white and on black alike.
_INK, _EASYDATA, _LIMIT, _OTHERS = "#7a7f87", "#2f81d6", "#a5abb3", "#c98a3a"

_INTRODUCTION = """\
# How fast the loader is

`python -m benchmarks loader` measures it, and writes this page; before it,
`python -m benchmarks.peers` installs the other loaders. What easydata does in all of the tables:

```python
import easydata as ed

ds = ed.build("corpus/*.jsonl.zst", tokenizer="tokenizer.json", out="cache/corpus")
for batch in ed.DataLoader(ds, batch_size=4, seq_len=64, shuffle=True, epochs=1):
    batch["input_ids"]
```

![Tokens a second of each loader](loader-speed.svg)
"""


def write_page(path: Path, report: Report, sides: Sequence[Figures]) -> None:
    """Write the tables: ratios to the limit, how each loader was driven, the bars."""
    measured = [side for side in sides if side.rates]
    about = machine()
    packages = ", ".join(f"{name} {about[name]}" for name in ("numpy", "pyarrow"))
    lines = [
        _INTRODUCTION,
        f"{about['cpu']}, {about['cores']} cores; Python {about['python']}, {packages}.",
        "",
        *(f"* {condition[0].upper()}{condition[1:]}." for condition in _about_all(report, sides)),
        "",
        "## Share of the limit",
        "",
        "Tokens a second, divided by those of NumPy copying rows out of a memory map.",
        "",
        *_table(
            ["loader", *(shape.label for shape in SHAPES), "first batch, ms", "MB"],
            [_cells(side) for side in measured],
        ),
        "",
        "The limit itself, in G tokens/s: "
        + ", ".join(
            f"{shape.label} {rate.median / 1e9:.2g}" for shape, rate in measured[0].rates.items()
        )
        + ".",
        "",
        "## How each is driven",
        "",
        *_table(["loader", "how"], [[side.name, side.how] for side in sides]),
        "",
        "## easydata alone",
        "",
        *_table(
            ["batches", "what", "G tokens/s", "ratio"],
            [
                [show(row[name]) for name in ("batches", "what", "G tokens/s", "ratio")]
                for row in report.rows
                if row["batches"] not in {shape.label for shape in SHAPES}
            ],
        ),
        "",
        "## Bars",
        "",
        *_table(["what", "bar", "measured", ""], [_bar_cells(bar) for bar in report.bars]),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_chart(path: Path, sides: Iterable[Figures]) -> None:
    """Draw tokens a second as bars; of equal figures, the file is the same."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = [side for side in sides if side.rates]
    shown.sort(key=lambda side: side.rates[_PANELS[0]].median)
    colors = [_color(side.name) for side in shown]
    style: dict[Any, str] = {
        "svg.hashsalt": "easydata",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
    }
    ink: dict[Any, str] = {f"{name}.color": _INK for name in ("text", "xtick", "ytick")}
    with mpl.rc_context({**style, **ink, "axes.edgecolor": _INK, "axes.labelcolor": _INK}):
        figure = Figure(figsize=(10, 1.2 + 0.3 * len(shown)), layout="constrained")
        axes = figure.subplots(1, len(_PANELS), sharey=True)
        for shape, panel in zip(_PANELS, axes, strict=True):
            rates = [side.rates[shape].median / 1e9 for side in shown]
            bars = panel.barh([side.name for side in shown], rates, color=colors, height=0.7)
            panel.bar_label(bars, [f"{rate:.2g}" for rate in rates], padding=3, fontsize=9)
            panel.set_xscale("log")
            panel.set_xlim(min(rates) / 2, max(rates) * 3)
            panel.set_xlabel("G tokens/s, logarithmic")
            panel.set_title(shape.label, color=_INK, fontsize=11)
            panel.spines[["top", "right"]].set_visible(False)
            panel.patch.set_alpha(0)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _color(name: str) -> str:
    if name == LIMIT:
        return _LIMIT
    return _EASYDATA if name.startswith("easydata") else _OTHERS


def _about_all(report: Report, sides: Sequence[Figures]) -> list[str]:
    """The conditions that are not about one loader."""
    return report.conditions[: len(report.conditions) - len(sides)]


def _cells(side: Figures) -> list[str]:
    times = [show(round(ms.median, 1)) for ms in side.first_ms.values()]
    return [
        side.name,
        *(f"{side.shares[shape]:.2g}" for shape in SHAPES),
        " / ".join(times) or "–",
        "–" if side.megabytes is None else f"{side.megabytes:.0f}",
    ]


def _bar_cells(bar: Bar) -> list[str]:
    sign = "≥" if bar.at_least else "≤"
    verdict = "" if bar.is_met else "missed"
    return [bar.what, f"{sign} {show(bar.bound)}", show(bar.value), verdict]


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    lines = [names, ["---"] * len(names), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
