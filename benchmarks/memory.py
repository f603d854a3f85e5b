"""The memory that building and reading take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.common import Bar, Options, Report
from benchmarks.fresh import result_of, start_fresh

_WORKERS = 2
_SECONDS_BETWEEN = 0.01


def build_dataset(source: str, tokenizer: str, out: str) -> dict[str, Any]:
    import easydata as ed

    imported = anonymous_bytes(os.getpid())
    ds = ed.build(source, tokenizer=tokenizer, out=out, workers=_WORKERS)
    return {"imported": imported, "tokens": ds.num_tokens, "read": 0}


def read_dataset(path: str) -> dict[str, Any]:
    """Reads every token twice: shuffled, and in order."""
    import easydata as ed

    imported = anonymous_bytes(os.getpid())
    ds = ed.open_dataset(path)
    tokens = 0
    for shuffle in (True, False):
        for batch in ds.loader(32, 2048, shuffle=shuffle, epochs=1, drop_last=False):
            # A sum touches every token, as a view alone does not.
            tokens += batch["input_ids"].size + 0 * int(batch["input_ids"].sum())
            del batch
    return {"imported": imported, "tokens": ds.num_tokens, "read": tokens}


def run(options: Options) -> Report:
    if not Path("/proc/self/status").exists():
        sys.exit("The memory benchmark reads /proc, which this system does not have.")
    megabytes = options.pick(1000, 3)
    source = corpus.jsonl(options, megabytes)
    tokenizer = corpus.tokenizer(options)
    out = options.scratch / "memory-out"
    built, build_peaks = _watch(start_fresh(build_dataset, str(source), str(tokenizer), str(out)))
    read, read_peaks = _watch(start_fresh(read_dataset, str(out)))
    shutil.rmtree(out)
    report = Report(
        f"how much memory does it take to build {megabytes} MB of JSONL and to read the result?",
        [
            f"anonymous memory (RssAnon of /proc), sampled every {1000 * _SECONDS_BETWEEN:.0f} ms: "
            "shorter peaks may be missed; mapped files are not in it",
            f"{built['tokens']:,} tokens; the reader reads them shuffled and in order",
        ],
    )
    workers = list(build_peaks["children"].values())
    rows = [
        ("build, main process", build_peaks["parent"], built["imported"]),
        *((f"build, worker process {i}", peak, 0) for i, peak in enumerate(workers, start=1)),
        ("read", read_peaks["parent"], read["imported"]),
    ]
    for name, peak, imported in rows:
        row = {"process": name, "peak MB": peak / 1e6, "above imports": (peak - imported) / 1e6}
        report.rows.append(row if imported else {**row, "above imports": "–"})
    above = (read_peaks["parent"] - read["imported"]) / 1e6
    most = max(workers, default=0) / 1e6
    report.bars = [
        Bar("worker process (holds both workers), MB", most, 512.0, False, "issue 2"),
        Bar("main process of a build, MB", build_peaks["parent"] / 1e6, 512.0, False, "issue 2"),
        Bar("reading above the imports, MB", above, 64.0, False, "issue 2"),
    ]
    return report


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that is backed by no file; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _watch(process: subprocess.Popen[str]) -> tuple[Any, dict[str, Any]]:
    """The result of a process, and the peaks of it and of every process that it started."""
    parent = 0
    children: dict[int, int] = {}
    while process.poll() is None:
        parent = max(parent, anonymous_bytes(process.pid))
        for pid in descendants(process.pid):
            children[pid] = max(children.get(pid, 0), anonymous_bytes(pid))
        time.sleep(_SECONDS_BETWEEN)
    return result_of(process), {"parent": parent, "children": children}


def descendants(ancestor: int) -> list[int]:
    """Processes below `ancestor` that run another command than it: no half-started copies."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The command's name is in parentheses and may hold spaces.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    found, front = [], [ancestor]
    while front:
        front = [pid for pid, parent in parents.items() if parent in front]
        found += front
    command = _command(ancestor)
    return [pid for pid in found if _command(pid) not in (command, b"")]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
