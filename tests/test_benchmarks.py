"""Every benchmark runs, on tiny data, and what does not depend on the machine is right."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import NAMES
from benchmarks.common import ROOT, Bar, Report, Spread, print_report, show
from benchmarks.keyed_cases import check, token_dicts
from benchmarks.memory import anonymous_bytes, descendants


def run_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The JSON of all benchmarks, from one run."""
    folder = tmp_path_factory.mktemp("reports")
    done = run_benchmarks("--quick", "--json", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"\n{name}: " in done.stdout for name in NAMES)
    assert "MISSED" not in done.stdout  # tiny data on a busy machine is no reason to judge
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


def test_all_benchmarks_report(reports: dict[str, dict[str, Any]]) -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    helpers = {"__init__", "__main__", "common", "corpus", "fresh"}
    helpers |= {"keyed_cases", "keyed_processes"}
    helpers |= {"loader_page", "loader_parts", "loader_sides", "peers"}
    assert scripts - helpers == set(NAMES)
    assert reports.keys() == set(NAMES)
    for name, report in reports.items():
        assert report["name"] == name
        assert report["quick"] is True
        assert {"cpu", "cores", "load", "python", "pyarrow"} <= report["machine"].keys()
        assert report["rows"]
        assert report["bars"]
        assert all(bar["value"] > 0 for bar in report["bars"] if name != "memory")


def test_sizes_do_not_depend_on_the_machine(reports: dict[str, dict[str, Any]]) -> None:
    by_path = [row for row in reports["size"]["rows"] if row["order of rows"] == "by path"]
    rows = {row["codec"]: row for row in by_path}
    assert list(rows) == ["none", "lz4", "zstd", "zstd:9", "gzip"]
    assert len({row["tokens"] for row in rows.values()}) == 1
    bits = {codec: row["bits/token"] for codec, row in rows.items()}
    assert 16 <= bits["none"] < 17
    assert bits["zstd:9"] < bits["zstd"] < bits["lz4"] < 12


def test_both_sides_do_the_same_work(reports: dict[str, dict[str, Any]]) -> None:
    first_batches = [row for row in reports["open"]["rows"] if row["what"].startswith("easydata")]
    assert {row["tokens"] for row in first_batches} == {32 * 2048}
    assert {row["shards"] for row in first_batches} > {1}
    assert max(row["shards"] for row in first_batches) > 5

    sides = {row["what"] for row in reports["build"]["rows"]}
    assert {"easydata.build", "bare loop, batch 1000", "datasets.map + save_to_disk"} <= sides

    loader = reports["loader"]
    assert sum("--quick" in condition for condition in loader["conditions"]) == 12
    sides = [row for row in loader["rows"] if row["batches"].endswith(("shuffled", "in order"))]
    batches = {row["batches"] for row in sides}
    assert len(batches) == 6
    for name in batches:
        assert {row["what"] for row in sides if row["batches"] == name} >= {
            "NumPy, memmap[index]",
            "easydata, checked",
            "easydata, checked, one thread",
            "easydata, first epoch",
            "datasets, numpy",
        }
    assert len(sides) == 7 * len(batches)
    shares = [bar["value"] for bar in loader["bars"] if "without a copy" in bar["what"]]
    assert shares == [1.0] * 4


def test_memory_is_sampled_in_every_process(reports: dict[str, dict[str, Any]]) -> None:
    peaks = {row["process"]: row["peak MB"] for row in reports["memory"]["rows"]}
    assert list(peaks) == ["build, main process", "build, worker process 1", "read"]
    # An interpreter with NumPy and Arrow has more than this, and no process here needs a GB.
    assert all(5 < peak < 1000 for peak in peaks.values())


def test_the_keyed_cache_is_measured_against_its_peers(
    reports: dict[str, dict[str, Any]],
) -> None:
    rows = reports["keyed"]["rows"]
    sides = {
        row["what"]: {other["side"] for other in rows if other["what"] == row["what"]}
        for row in rows
    }
    peers = {"easydata", "diskcache", "joblib.Memory", "a pickle file per key"}
    assert sides["put, arrays"] == sides["get, lists, hot"] == peers
    assert len(sides["get, in memory, hot"]) == 3
    bars = {bar["what"]: bar for bar in reports["keyed"]["bars"]}
    assert len(bars) == 22
    # What lies on the disk does not depend on the machine.
    assert bars["bytes of tables for each entry"]["is_met"]
    assert bars["bytes on disk, zstd, easydata / diskcache"]["is_met"]
    assert bars["files of 1 segments"]["is_met"]


def test_values_that_differ_from_those_put_are_found() -> None:
    values = token_dicts(3)
    assert all(50 <= len(value["input_ids"]) <= 500 for value in values.values())
    check(values, values.__getitem__)
    key = list(values)[1]
    for wrong in (
        {**values[key], "input_ids": values[key]["input_ids"] + np.uint16(1)},
        {**values[key], "input_ids": values[key]["input_ids"].astype(np.int32)},
        {**values[key], "input_ids": values[key]["input_ids"].tolist()},
        {"input_ids": values[key]["input_ids"]},
    ):
        with pytest.raises(RuntimeError, match=key):
            check(values, {**values, key: wrong}.__getitem__)


def test_an_unknown_benchmark_is_named() -> None:
    done = run_benchmarks("speed")
    assert done.returncode == 2
    assert "'speed'" in done.stderr


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [(0.6, True, "kept"), (0.59, True, "MISSED"), (0.6, False, "kept"), (0.61, False, "MISSED")],
)
def test_bars_are_judged(
    value: float, at_least: bool, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Bar("a ratio", value, 0.6, at_least, "somebody")
    report = Report("why?", ["it was warm"], [{"what": "one", "ms": 2.0}], [bar])
    print_report("name", report, judged=True)
    assert f"  {verdict}" in capsys.readouterr().out
    print_report("name", report, judged=False)
    assert verdict not in capsys.readouterr().out


def test_a_spread_is_the_median_with_its_ends() -> None:
    spread = Spread.of([5.0, 1.0, 2.0, 9.0, 3.0])
    assert spread == Spread(3.0, 1.0, 9.0, 5)
    assert show(spread) == "3 (1–9)"


def test_anonymous_memory_is_what_a_process_allocates(tmp_path: Path) -> None:
    size = 64 << 20
    before = anonymous_bytes(os.getpid())
    # Not from the heap, which may have so much to spare from the tests before.
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as block:
        for start in range(0, size, 4096):
            block[start] = 1  # written to, so that it is really there
        grown = anonymous_bytes(os.getpid()) - before
        assert size - (8 << 20) < grown < size + (8 << 20)
        (tmp_path / "file").write_bytes(block)

    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=1) as mapped:
        before = anonymous_bytes(os.getpid())
        assert sum(mapped[::4096]) == size // 4096
        assert anonymous_bytes(os.getpid()) - before < 8 << 20


def test_processes_started_by_others_are_found() -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen(['cat']); print(p.pid, flush=True); p.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        grandchild = int(child.stdout.readline())
        try:
            assert set(descendants(os.getpid())) >= {child.pid, grandchild}
            assert descendants(child.pid) == [grandchild]
            assert descendants(grandchild) == []
        finally:
            child.communicate(b"")
    assert anonymous_bytes(grandchild) == 0
