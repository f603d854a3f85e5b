"""Several processes on one folder: nothing torn, nothing lost, nothing computed twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.cache.disk import DiskCache
from tests.cache.crowd import PROCESSES, finish, overlap, programs
from tests.cache.elsewhere import PATIENCE_SECONDS, Elsewhere
from tests.interrupts import unmeasured

# Puts numbers for ever, and tells of each when it is there: 4 bytes to a pipe.
ENDLESS = """
import os, sys
from easydata.cache.disk import DiskCache
from easydata.cache.log import growing
from easydata.errors import StorageError

growing._CAPACITIES = (64, 64)  # many segments, and so many merges
cache = DiskCache(sys.argv[1])
for number in range(int(sys.argv[2]), 10**9):
    if number % 50 == 17:
        cache.put_many({f"{number}": [number], "many": number})
    elif number % 97 == 5:
        cache.compact()
        cache.put(f"{number}", [number])
    else:
        cache.put(f"{number}", [number])
    cache.put("newest", number)
    cache.put(f"gone {number}", 1)
    cache.invalidate(f"gone {number}")
    os.write(1, number.to_bytes(4, "little"))
"""

# Threads ask for one cold key; each computation is a line in a file.
COLD = """
import os, sys, threading
from pathlib import Path
from easydata.cache.tree import TreeCacheManager

folder, threads = Path(sys.argv[1]), int(sys.argv[2])
cache = TreeCacheManager(folder / "cache")
log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
both = threading.Barrier(threads)
found = []

def compute():
    os.write(log, b"computed\\n")
    return {"ids": list(range(1000))}

def ask():
    both.wait()
    found.append(cache.get_or_compute("cold", compute))

everyone = [threading.Thread(target=ask) for _ in range(threads)]
print("ready", flush=True)
sys.stdin.readline()
for thread in everyone:
    thread.start()
for thread in everyone:
    thread.join()
assert found == [{"ids": list(range(1000))}] * threads
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def start() -> Iterator[Callable[..., Elsewhere]]:
    started: list[Elsewhere] = []

    def start(*args: Any) -> Elsewhere:
        started.append(Elsewhere(*args))
        return started[-1]

    yield start
    for other in started:
        other.kill()


def test_overlapping_keys(folder: Path) -> None:
    overlap(folder, 3000)


class TestKills:
    def test_what_was_put_is_there(self, folder: Path) -> None:
        """A writer is killed at any moment, also in the middle of merging."""
        chance = random.Random(4)
        first, returned = 0, set[int]()
        undeleted: list[str] = []
        for round_ in range(30):
            process = subprocess.Popen(
                [sys.executable, "-c", ENDLESS, str(folder), str(first)],
                stdout=subprocess.PIPE,
                env=unmeasured(),
            )
            assert process.stdout is not None
            wanted = 4 * chance.randrange(1, 200)
            seen = process.stdout.read(wanted)
            # Not just when it has told something.
            for _ in range(chance.randrange(20_000)):
                pass
            process.kill()
            seen += process.stdout.read()
            process.stdout.close()
            process.wait()
            whole = len(seen) // 4 * 4
            numbers = np.frombuffer(seen[:whole], "<u4").tolist()
            assert len(numbers) >= wanted // 4
            returned.update(numbers)
            first = numbers[-1] + 10
            with DiskCache(folder, readonly=round_ % 2 == 0) as cache:
                undeleted = self.check(cache, returned, numbers[-1], undeleted)
        with DiskCache(folder) as cache:
            cache.compact()
            assert self.check(cache, returned, numbers[-1], undeleted) == undeleted
            assert cache.verify() == []
        assert not list(folder.glob(".tmp-*"))

    def check(
        self, cache: DiskCache, returned: set[int], last: int, undeleted: list[str]
    ) -> list[str]:
        """What writers had no time to delete: what it was before, and one more at most."""
        found = cache.get_many([str(number) for number in sorted(returned)])
        assert {int(key) for key in found} == returned
        assert all(value == [int(key)] for key, (value, _) in found.items())
        newest = cache.get("newest")
        assert newest is not None
        # It may have put one more, and been killed before it could tell.
        assert newest[0] in (last, last + 1)
        gone = cache.keys("gone")
        assert set(gone) - {f"gone {last + 1}"} == set(undeleted) - {f"gone {last + 1}"}
        return gone

    def test_merging_goes_on_after_whoever_did_it_died(
        self, folder: Path, start: Callable[..., Elsewhere]
    ) -> None:
        other = start(DiskCache, folder)
        for number in range(1000):
            other.call("put", f"k{number}", number)
        os.kill(other.pid, signal.SIGSTOP)
        with DiskCache(folder) as cache:
            cache.put("own", 1)
            cache.compact()  # not what the other one still appends to
            assert len(cache) == 1001
        other.kill()
        cache = DiskCache(folder)
        cache.compact()
        assert len(cache) == 1001
        assert not list(folder.glob("log-*"))


class TestSingleFlight:
    def test_one_of_32_threads_in_4_processes_computes(self, tmp_path: Path) -> None:
        finish(programs(COLD, *([tmp_path, 8] for _ in range(PROCESSES))))
        assert (tmp_path / "log").read_text() == "computed\n"

    def test_the_place_of_one_that_was_killed_is_taken(
        self, tmp_path: Path, start: Callable[..., Elsewhere]
    ) -> None:
        holder = start(Computing, tmp_path / "cache", tmp_path / "holds")
        holder.start("for_ever")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (tmp_path / "holds").exists():
            assert time.monotonic() < deadline
        waiting = [start(Computing, tmp_path / "cache", tmp_path / "log") for _ in range(2)]
        for other in waiting:
            other.start("at_once")
        holder.kill()
        assert [other.result() for other in waiting] == ["value", "value"]
        assert (tmp_path / "log").read_text() == "computed\n"


class Computing:
    """A cache and two things to compute for one key."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.cache = DiskCache(folder)
        self.log = log

    def at_once(self) -> str:
        def compute() -> str:
            with self.log.open("a") as file:
                file.write("computed\n")
            return "value"

        found: str = self.cache.get_or_compute("key", compute)
        return found

    def for_ever(self) -> None:
        def compute() -> None:
            self.log.touch()
            signal.pause()

        self.cache.get_or_compute("key", compute)
