"""The cost of `import easydata` over that of the packages it stands on."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Bar, Options, Report, Spread

_STATEMENTS = ("import numpy, pyarrow", "import easydata", "import datasets")
_CODE = "import time; s = time.perf_counter(); {}; print(time.perf_counter() - s)"


def run(options: Options) -> Report:
    report = Report(
        "what does `import easydata` cost over `import numpy, pyarrow`?",
        [
            "a fresh process for each import, without the start of the interpreter; "
            "in turn, after one round that is not counted",
        ],
    )
    seconds: dict[str, list[float]] = {statement: [] for statement in _STATEMENTS}
    for counts in options.rounds(15):
        for statement in _STATEMENTS:
            found = _measure(statement)
            if counts:
                seconds[statement].append(found)
    spreads = {name: Spread.of([1000 * s for s in found]) for name, found in seconds.items()}
    base = spreads[_STATEMENTS[0]].median
    for statement, spread in spreads.items():
        report.rows.append({"statement": statement, "ms": spread, "ratio": spread.median / base})
    ratio = spreads["import easydata"].median / base
    report.bars.append(Bar("easydata / (numpy, pyarrow)", ratio, 1.3, False, "issue 2"))
    return report


def _measure(statement: str) -> float:
    command = [sys.executable, "-c", _CODE.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
