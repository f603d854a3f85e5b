"""Runs benchmarks by name, prints a table for each, and writes the figures as JSON."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, Options, machine, print_report, write_report

NAMES = ("imports", "size", "open", "loader", "build", "memory", "keyed", "pipeline", "feeding")
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="tiny data; do the scripts run?")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help="folder for NAME.json; by default benchmarks/results, with --quick none",
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(NAMES)}")
    folder = given.json or (None if given.quick else RESULTS)

    about = machine()
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    if given.quick:
        print("--quick: tiny data. These figures say nothing about speed.")
    version = "python-{}.{}.{}".format(*sys.version_info)
    kept = None if given.quick else ROOT / ".demo" / "benchmarks" / version
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
    # Beside what is kept, because a folder for temporary files may lie in memory.
    with tempfile.TemporaryDirectory(prefix="easydata-benchmarks-", dir=kept) as temporary:
        scratch = Path(temporary)
        options = Options(quick=given.quick, data=kept or scratch, scratch=scratch)
        for name in given.names or NAMES:
            start = time.perf_counter()
            report = importlib.import_module(f"benchmarks.{name}").run(options)
            print_report(name, report, judged=not given.quick)
            print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)
            if folder is not None:
                write_report(folder / f"{name}.json", name, report, about, quick=given.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
