"""Programs that use one cache folder at the same time, and what they leave there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from easydata.cache.disk import DiskCache

__all__ = ["PROCESSES", "check", "finish", "overlap", "programs", "value_for"]

PROCESSES = 4

# Puts values that say whose they are, reads those of others, and tells of each put when it has
# returned: arguments are the folder, its number, and how many keys there are.
OVERLAP = """
import sys
from pathlib import Path
from easydata.cache.disk import DiskCache
from tests.cache.crowd import check, value_for

folder, me, num_keys = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = DiskCache(folder)
print("ready", flush=True)
sys.stdin.readline()
for step in range(num_keys):
    own, other = (step * 7919 + me) % num_keys, (step * 104729 + 3 * me) % num_keys
    value = value_for(own, me, step)
    if step % 50 == 0:
        cache.put_many({str(own): value, "last of " + str(me): step})
    else:
        cache.put(str(own), value)
    found = cache.get(str(own))
    assert found is not None, f"{own} is lost"
    check(own, found[0])
    found = cache.get(str(other))
    if found is not None:
        check(other, found[0])
if me % 2:
    cache.close()
"""


def value_for(key: int, writer: int, step: int) -> dict[str, Any]:
    """What one writer puts for a key: long enough to be torn, and its parts say so if it is."""
    return {
        "key": key,
        "writer": writer,
        "step": step,
        "ids": np.full(20 + step % 50, key * 7 + writer * 1_000_003 + step, np.int64),
    }


def check(key: int, value: Any) -> None:
    """Refuse what nobody can have put for a key."""
    expected = value_for(key, value["writer"], value["step"])
    assert value["key"] == key
    assert list(value) == list(expected)
    assert np.array_equal(value["ids"], expected["ids"])


def programs(text: str, *args: list[Any]) -> list[subprocess.Popen[str]]:
    """Processes that have opened the cache and wait for one another."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", text, *map(str, own)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in args
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return started


def finish(started: list[subprocess.Popen[str]]) -> None:
    """Let all go on at once; each ends well."""
    try:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in started:
            assert process.wait(600) == 0
    finally:
        for process in started:
            process.kill()
            process.communicate()


def overlap(folder: Path, num_keys: int) -> None:
    """Let 4 processes write and read the same keys, and look at what is left."""
    finish(programs(OVERLAP, *([folder, me, num_keys] for me in range(PROCESSES))))
    steps = range(num_keys)
    # Of each key the last put of one of its writers counts.
    last: dict[int, set[tuple[int, int]]] = {}
    for me in range(PROCESSES):
        own = {(step * 7919 + me) % num_keys: (me, step) for step in steps}
        for key, writing in own.items():
            last.setdefault(key, set()).add(writing)
    for _ in range(2):
        with DiskCache(folder) as cache:
            assert cache.verify() == []
            assert len(cache) == len(last) + PROCESSES
            for key, writings in last.items():
                found = cache.get(str(key))
                assert found is not None, key
                check(key, found[0])
                assert (found[0]["writer"], found[0]["step"]) in writings
            cache.compact()
