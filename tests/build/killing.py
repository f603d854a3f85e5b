"""A build in a process of its own, killed again and again until it is complete."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import easydata as ed

from .support import environment, shards

PROGRAM = [sys.executable, "-c", "from easydata.cli import main; raise SystemExit(main())"]
OPTIONS = ["--tokenizer", "bytes", "--part-size", "4kB", "--shard-size", "20kB", "--workers", "2"]


def start(*arguments: str | Path, new_session: bool = False) -> subprocess.Popen[bytes]:
    """The command line in a new process. Its workers hold its standard error open too."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=new_session,
    )


def kill_after_new_names(process: subprocess.Popen[bytes], out: Path, count: int) -> bool:
    """Kill the build when it has made `count` files; False if it ended before that.

    Returns when no worker is left: `communicate` waits until all have closed standard error.
    """
    seen = names(out)
    new: set[str] = set()
    while process.poll() is None:
        new |= names(out) - seen
        if len(new) >= count:
            process.kill()
            process.communicate(timeout=120)
            return process.returncode < 0
        wait(process, 0.001)
    process.communicate(timeout=120)
    return False


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Give the process time, or less if it ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def names(folder: Path) -> set[str]:
    """Paths of all files below a folder that is being written to."""
    try:
        return {str(path) for path in folder.rglob("*")}
    except FileNotFoundError:  # a folder went away while it was listed
        return set()


def build_with_kills(
    command: Sequence[str | Path],
    out: Path,
    *,
    kills: int,
    seed: int,
    whole: dict[str, bytes],
    old: dict[str, bytes] | None = None,
) -> int:
    """Run `command` until it completes, killed up to `kills` times; how often it was.

    After each kill, and at the end, what can be opened is nothing, or `old`, or `whole`.
    """
    chance = random.Random(seed)
    done = 0
    for _ in range(kills):
        # Few at times, so that the first steps are hit too; all files together are about 60.
        count = int(2 ** chance.uniform(0, 5))
        if not kill_after_new_names(start(*command), out, count):
            break
        done += 1
        check_visible(out, whole, old)
    process = start(*command)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages.decode()
    assert shards(out) == whole
    left = [path for path in out.rglob(".*") if path.name.startswith((".build", ".tmp"))]
    assert left == []
    check_visible(out, whole, None)
    return done


def check_visible(out: Path, whole: dict[str, bytes], old: dict[str, bytes] | None) -> None:
    """Nothing can be opened, or all of one dataset."""
    try:
        dataset = ed.open_dataset(out, verify="open")
    except ed.NotADatasetError:
        assert old is None, "the dataset that was there is gone"
        return
    names_of_shards = [dataset.ledger.shard_name(i) for i in range(dataset.ledger.num_shards)]
    found = {name: (out / name).read_bytes() for name in names_of_shards}
    assert found in (whole, old)
