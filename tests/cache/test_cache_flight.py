"""SingleFlight: one computation among threads and processes, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from easydata.cache import flight
from easydata.cache.flight import SingleFlight
from tests.interrupts import unmeasured

PATIENCE_SECONDS = 60  # for a test that fails; none that passes waits for it

# Keys are FILE.NAME. Each argument A>B>C is a thread that computes A, waits inside until a line
# arrives (if it needs nothing and others do: until the next line), and asks for B and C. A value
# is stored in a file, a computation is a line in `log`.
PROGRAM = """
import os, signal, sys, threading, zlib
from pathlib import Path
from easydata.cache.flight import SingleFlight

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what runs with "&"
folder = Path(sys.argv[1])
go, go_last = threading.Event(), threading.Event()
flights = {name: SingleFlight(folder / f"{name}.lock") for name in "fg"}

def say(text, to=1):
    os.write(to, f"{text}\\n".encode())

log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def get(key, needs=(), inside=lambda: None):
    value = folder / f"{key}.value"

    def look():
        return (value.read_text(),) if value.exists() else None

    def compute():
        say(key, log)
        say(f"computes {key}")
        inside()
        for need in needs:
            get(need)
        temporary = folder / f"{key}.{os.getpid()}.{threading.get_ident()}"
        temporary.write_text(f"value of {key}")
        temporary.rename(value)
        return f"value of {key}"

    return flights[key[0]].run(zlib.crc32(key.encode()), key, look, compute)

def ask(key, *needs):
    say(f"asks {key}")
    assert get(key, needs, go.wait if needs else go_last.wait) == f"value of {key}"
    say(f"has {key}")

def main():
    threads = [threading.Thread(target=ask, args=spec.split(">")) for spec in sys.argv[2:]]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    go.set()
    if len({">" in spec for spec in sys.argv[2:]}) == 2:
        sys.stdin.readline()
    go_last.set()
    for thread in threads:
        thread.join()
"""


class Program:
    """A process that runs PROGRAM and then `main`."""

    def __init__(self, folder: Path, *args: str, main: str = "main()", **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + main, str(folder), *args],
            **options,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put("END")

    def until(self, *expected: str) -> None:
        """Read until each of these lines has come."""
        missing = Counter(expected)
        while +missing:
            line = self._lines.get(timeout=PATIENCE_SECONDS)
            assert line != "END", missing
            missing[line] -= 1

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        assert self.process.wait(PATIENCE_SECONDS) == 0

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._reader.join()
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def start(*args: str, **options: Any) -> Program:
        programs.append(Program(tmp_path, *args, **options))
        return programs[-1]

    yield start
    for program in programs:
        program.end()


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def rows(folder: Path) -> list[tuple[int, ...]]:
    data = (folder / "f.lock").read_bytes()
    return list(struct.iter_unpack("<4Q", data[: len(data) // 32 * 32]))


def byte(key: str) -> int:
    return zlib.crc32(key.encode())


def is_free(path: Path, at: int) -> bool:
    """As another process sees it."""
    program = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(at)], check=False, capture_output=True
    )
    assert done.returncode == 0 or b"BlockingIOError" in done.stderr
    return done.returncode == 0


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 1000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("nothing happened")


class Threads:
    """Runs functions in threads and keeps what they return or raise."""

    def __init__(self, *functions: Callable[[], Any]) -> None:
        self.results: list[Any] = [None] * len(functions)
        self._threads = [
            threading.Thread(target=self._run, args=item, daemon=True)
            for item in enumerate(functions)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, index: int, function: Callable[[], Any]) -> None:
        try:
            self.results[index] = function()
        except BaseException as error:
            self.results[index] = error

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        return self.results


def nothing() -> None:
    return None


def unexpected() -> Any:
    raise AssertionError("not to be called")


@pytest.fixture(params=["memory", "file"])
def single(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SingleFlight]:
    yield SingleFlight(tmp_path / "lock" if request.param == "file" else None)
    process = flight._process
    assert (process.flights, process.waiting) == ({}, {})


class TestOneThread:
    def test_found_is_not_computed_and_none_can_be_found(self, single: SingleFlight) -> None:
        assert single.run(1, "a", lambda: ("found",), unexpected) == "found"
        assert single.run(1, "a", lambda: (None,), unexpected) is None

    def test_not_found_is_computed_and_none_is_a_value(self, single: SingleFlight) -> None:
        assert single.run(1, "a", nothing, lambda: "computed") == "computed"
        assert single.run(1, "a", nothing, lambda: None) is None

    def test_nothing_is_kept(self, single: SingleFlight) -> None:
        counter = iter(range(3))
        assert [single.run(1, "a", nothing, lambda: next(counter)) for _ in range(3)] == [0, 1, 2]

    def test_an_exception_is_not_kept(self, single: SingleFlight) -> None:
        with pytest.raises(ZeroDivisionError):
            single.run(1, "a", nothing, lambda: 1 // 0)
        with pytest.raises(AssertionError, match="not to be called"):
            single.run(1, "a", unexpected, lambda: 1)
        assert single.run(1, "a", nothing, lambda: 2) == 2

    def test_a_computation_that_asks_for_its_own_key(self, single: SingleFlight) -> None:
        def compute(depth: int) -> int:
            if depth == 3:
                return 0
            return 1 + single.run(1, "a", nothing, lambda: compute(depth + 1))

        assert single.run(1, "a", nothing, lambda: compute(0)) == 3

    def test_through_another_key(self, single: SingleFlight) -> None:
        def ask(key: str, inside: Callable[[], str]) -> str:
            return single.run(1, key, nothing, lambda: key + inside())

        assert ask("a", lambda: ask("b", lambda: ask("a", lambda: ask("b", str)))) == "abab"

    def test_any_hash(self, single: SingleFlight) -> None:
        for key_hash in (0, -1, 2**62 - 1, 2**62, 2**200, -(2**64)):
            assert single.run(key_hash, "a", nothing, lambda: 1) == 1


class TestThreads:
    def test_all_get_the_object_that_one_computed(self, single: SingleFlight) -> None:
        looked, computed = [], []

        def look() -> None:
            looked.append(1)

        def compute() -> object:
            computed.append(1)
            wait_until(lambda: len(flight._process.waiting) == 7)
            return object()

        results = Threads(*[lambda: single.run(1, "a", look, compute)] * 8).join()
        assert (len(looked), len(computed)) == (1, 1)
        assert isinstance(results[0], object)
        assert all(result is results[0] for result in results)

    def test_all_get_the_exception_of_one(self, single: SingleFlight) -> None:
        def compute() -> None:
            wait_until(lambda: len(flight._process.waiting) == 7)
            raise LookupError

        results = Threads(*[lambda: single.run(1, "a", nothing, compute)] * 8).join()
        assert isinstance(results[0], LookupError)
        assert all(result is results[0] for result in results)

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_reaches_its_own_thread_only(
        self, single: SingleFlight, stop: type[BaseException]
    ) -> None:
        computed = []

        def compute() -> str:
            computed.append(1)
            if len(computed) == 1:
                wait_until(lambda: len(flight._process.waiting) == 3)
                raise stop
            return "value"

        results = Threads(*[lambda: single.run(1, "a", nothing, compute)] * 4).join()
        assert sorted(map(str, results)) == ["", "value", "value", "value"]
        # Those that waited became one flight, unless the new one had landed before they woke.
        assert 2 <= len(computed) <= 4

    def test_other_keys_do_not_wait_even_with_the_same_hash(self, single: SingleFlight) -> None:
        both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
        results = Threads(
            lambda: single.run(1, "a", nothing, both.wait),
            lambda: single.run(1, "b", nothing, both.wait),
        ).join()
        assert sorted(results) == [0, 1]

    def test_objects_of_one_file_are_one_and_others_are_not(self, tmp_path: Path) -> None:
        def overlap(one: SingleFlight, other: SingleFlight) -> int:
            computed = []

            def compute() -> None:
                computed.append(1)
                wait_until(lambda: len(flight._process.waiting) + len(computed) == 2)

            Threads(*(lambda s=s: s.run(1, "a", nothing, compute) for s in (one, other))).join()
            return len(computed)

        (tmp_path / "link").symlink_to(tmp_path / "lock")
        lock = SingleFlight(tmp_path / "lock")
        assert overlap(lock, SingleFlight(tmp_path / "lock")) == 1
        assert overlap(lock, SingleFlight(tmp_path / "link")) == 1
        assert overlap(lock, SingleFlight(tmp_path / "other")) == 2
        assert overlap(lock, SingleFlight(None)) == 2
        assert overlap(SingleFlight(None), SingleFlight(None)) == 2

    @pytest.mark.parametrize("size", [2, 3, 5])
    def test_a_circle_of_nested_keys(self, single: SingleFlight, size: int) -> None:
        everyone = threading.Barrier(size, timeout=PATIENCE_SECONDS)
        computed = []

        def ask(index: int) -> int:
            def inner() -> int:
                computed.append((index + 1) % size)
                return 1

            def outer() -> int:
                computed.append(index)
                everyone.wait()
                return single.run(index + 1, str((index + 1) % size), nothing, inner)

            return single.run(index, str(index), nothing, outer)

        results = Threads(*(lambda i=i: ask(i) for i in range(size))).join()
        assert results == [1] * size
        # One went on without waiting; the others got what they waited for.
        assert len(computed) == size + 1

    def test_a_circle_through_two_objects(self, tmp_path: Path) -> None:
        singles = SingleFlight(None), SingleFlight(tmp_path / "lock")
        both = threading.Barrier(2, timeout=PATIENCE_SECONDS)

        def ask(index: int) -> str:
            def outer() -> str:
                both.wait()
                return singles[1 - index].run(1, "a", nothing, lambda: "inner")

            return singles[index].run(1, "a", nothing, outer)

        assert Threads(lambda: ask(0), lambda: ask(1)).join() == ["inner", "inner"]

    def test_who_waited_for_what_has_landed_waits_no_more(self) -> None:
        """Between the landing and the next step of a thread that waited, others must not err."""
        process = flight._Process()
        shared, outer, other = flight._Flight(1), flight._Flight(2), flight._Flight(1)
        lock = flight._LockFile((3, 4), [-1])
        outer.lock = (lock, 5)
        assert process.join((0, "shared"), shared) is None
        assert process.join((0, "outer"), outer) is None
        assert process.join((0, "shared"), flight._Flight(2)) is shared
        assert process.join((0, "outer"), other) is other
        assert process.stuck_behind(1) == {((3, 4), 5)}
        process.land((0, "shared"), shared)
        assert process.stuck_behind(1) == set()
        assert process.join((0, "outer"), other) is outer


class TestProcesses:
    def test_eight_threads_of_four_processes_compute_once(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        programs = [start(*["f.k"] * 8) for _ in range(4)]
        for program in programs:
            program.until(*["asks f.k"] * 8)
        for program in programs:
            program.go()
        for program in programs:
            program.until(*["has f.k"] * 8)
            program.finish()
        assert log(tmp_path) == ["f.k"]
        assert rows(tmp_path) == []

    def test_a_killed_holder_is_replaced(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        holder, waiter = start("f.k"), None
        holder.until("computes f.k")
        waiter = start("f.k")
        waiter.until("asks f.k")
        holder.process.send_signal(signal.SIGKILL)
        waiter.until("computes f.k")
        waiter.go()
        waiter.finish()
        assert log(tmp_path) == ["f.k", "f.k"]

    def test_after_an_exception_another_process_computes(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        fails = (
            "def fail():\n"
            "    sys.stdin.readline()\n"
            "    raise LookupError\n"
            "try:\n"
            "    get('f.k', inside=fail)\n"
            "except LookupError:\n"
            "    say('failed')\n"
        )
        first = start(main=fails)
        first.until("computes f.k")
        second = start("f.k")
        second.until("asks f.k")
        first.go()
        first.until("failed")
        second.until("computes f.k")
        second.go()
        second.finish()
        assert log(tmp_path) == ["f.k", "f.k"]

    @pytest.mark.parametrize(
        ("specs", "computations"),
        [
            ([["f.a>f.b"], ["f.b>f.a"]], 3),
            ([["f.a>f.b"], ["f.b>f.c"], ["f.c>f.a"]], 4),
            ([["f.a>f.b", "f.b>f.c"], ["f.c>f.a"]], 4),  # partly inside a process
            ([["f.a>f.b", "f.c>f.d"], ["f.b>f.c", "f.d>f.a"]], 5),
            ([["f.a>g.a"], ["g.a>f.a"]], 3),  # two files
            ([["f.a>g.a", "g.a>f.b"], ["f.b>g.b", "g.b>f.a"]], None),
        ],
    )
    def test_a_circle_of_nested_keys(
        self,
        start: Callable[..., Program],
        tmp_path: Path,
        specs: list[list[str]],
        computations: int | None,
    ) -> None:
        programs = [start(*spec) for spec in specs]
        for program, spec in zip(programs, specs, strict=True):
            program.until(*(f"computes {item.split('>')[0]}" for item in spec))
        for program in programs:
            program.go()
        for program in programs:
            program.finish()
        assert computations is None or len(log(tmp_path)) == computations
        assert rows(tmp_path) == []

    def test_crossed_waits_of_threads_are_no_circle(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        """The kernel takes this for a deadlock; see the docstring of the module."""
        programs = start("f.a", "f.c>f.b"), start("f.b", "f.d>f.a")
        programs[0].until("computes f.a", "computes f.c")
        programs[1].until("computes f.b", "computes f.d")
        for program in programs:
            program.go()
        wait_until(lambda: len(rows(tmp_path)) == 2)
        for program in programs:
            program.go()
        for program in programs:
            program.finish()
        assert sorted(log(tmp_path)) == ["f.a", "f.b", "f.c", "f.d"]
        assert rows(tmp_path) == []

    def test_many_nested_keys_are_computed_once_each(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        """Each key needs two smaller ones, so that there is no circle."""
        main = (
            "import random\n"
            "def deep(n):\n"
            "    rng = random.Random(n)\n"
            "    needs = {rng.randrange(n) for _ in range(2)} if n else ()\n"
            "    get(f'f.{n}', inside=lambda: [deep(need) for need in needs])\n"
            "def work(seed):\n"
            "    for n in random.Random(seed).sample(range(20), 20):\n"
            "        deep(n)\n"
            "seeds = [sys.argv[2] + name for name in 'abcd']\n"
            "threads = [threading.Thread(target=work, args=[seed]) for seed in seeds]\n"
            "sys.stdin.readline()\n"
            "for thread in threads: thread.start()\n"
            "for thread in threads: thread.join()\n"
        )
        programs = [start(str(seed), main=main) for seed in range(3)]
        for program in programs:
            program.go()
        for program in programs:
            program.finish()
        assert sorted(log(tmp_path)) == sorted(f"f.{n}" for n in range(20))
        assert rows(tmp_path) == []

    def test_ctrl_c_ends_a_wait_for_a_process(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        holder = start("f.k")
        holder.until("computes f.k")
        waits = (
            "try:\n    say('asks f.k')\n    get('f.k')\nexcept KeyboardInterrupt:\n    say('out')"
        )
        waiter = start(main=waits, env=unmeasured())
        waiter.until("asks f.k")
        waiter.process.send_signal(signal.SIGINT)
        waiter.until("out")
        waiter.finish()
        assert log(tmp_path) == ["f.k"]

    def test_ctrl_c_ends_a_wait_for_a_thread(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        waits = (
            "thread = threading.Thread(target=get, args=['f.k', (), go.wait])\n"
            "thread.start()\n"
            "while not (folder / 'log').read_text(): pass\n"
            "try:\n"
            "    say('asks f.k')\n"
            "    get('f.k')\n"
            "except KeyboardInterrupt:\n"
            "    say('out')\n"
            "go.set()\n"
            "thread.join()\n"
        )
        waiter = start(main=waits, env=unmeasured())
        waiter.until("asks f.k")
        waiter.process.send_signal(signal.SIGINT)
        waiter.until("out")
        waiter.finish()
        assert log(tmp_path) == ["f.k"]

    def test_an_interrupted_nested_wait_leaves_no_row(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        holder = start("f.b")
        holder.until("computes f.b")
        waits = (
            "try:\n    get('f.a', ['f.b'])\nexcept KeyboardInterrupt:\n    say('out')\n"
            "sys.stdin.readline()"
        )
        waiter = start(main=waits, env=unmeasured())
        wait_until(lambda: len(rows(tmp_path)) == 1)
        waiter.process.send_signal(signal.SIGINT)
        waiter.until("out")
        assert rows(tmp_path) == []


class TestRows:
    def test_those_of_the_dead_and_torn_ones_do_not_count(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        a, b = byte("f.a"), byte("f.b")
        # Were these true, whoever holds a and wants b would wait in a circle.
        dead = [(5, 1, b, a), (2**63, 1, b, a), (2**61 - 1, 1, b, a)]
        data = b"".join(struct.pack("<4Q", *row) for row in dead)
        (tmp_path / "f.lock").write_bytes(data + data[:20])
        holder = start("f.b")
        holder.until("computes f.b")
        nested = start("f.a>f.b")
        nested.until("computes f.a")
        nested.go()
        wait_until(lambda: [row[2:] for row in rows(tmp_path)] == [(a, b)])
        holder.go()
        nested.finish()
        assert sorted(log(tmp_path)) == ["f.a", "f.b"]

    def test_that_of_a_killed_process_does_not_count(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        holder = start("f.b")
        holder.until("computes f.b")
        killed = start("f.a>f.b")
        killed.until("computes f.a")
        killed.go()
        wait_until(lambda: len(rows(tmp_path)) == 1)
        (left,) = rows(tmp_path)
        killed.process.send_signal(signal.SIGKILL)
        nested = start("f.a>f.b")
        nested.until("computes f.a")
        nested.go()
        wait_until(lambda: len(rows(tmp_path)) == 1 and rows(tmp_path) != [left])
        holder.go()
        nested.finish()
        assert sorted(log(tmp_path)) == ["f.a", "f.a", "f.b"]
        assert rows(tmp_path) == []

    def test_one_goes_in_the_step_that_locks(
        self, start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A row that outlived the wait would show others a circle that is none."""
        holder = start("f.b")
        holder.until("computes f.b")
        left: list[dict[int, Any]] = []
        withdraw = flight._LockFile._withdraw

        def look_and_withdraw(self: flight._LockFile, thread: int) -> bool:
            left.append(dict(self._rows))
            return withdraw(self, thread)

        monkeypatch.setattr(flight._LockFile, "_withdraw", look_and_withdraw)
        single = SingleFlight(tmp_path / "f.lock")
        single.run(0, "f.open", nothing, nothing)
        # Not `rows`: it would open the file, and to close it drops the locks of this process.
        status = (tmp_path / "f.lock").stat()
        file = flight._process.files[status.st_dev, status.st_ino]
        threads = Threads(
            lambda: single.run(
                byte("f.a"), "f.a", nothing, lambda: single.run(byte("f.b"), "f.b", nothing, str)
            )
        )
        wait_until(lambda: bool(file._rows))
        holder.go()
        assert threads.join() == [""]
        assert left == [{}, {}, {}]


class TestFork:
    def test_a_child_does_not_keep_the_lock_of_its_dead_parent(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        forks = (
            "def fork():\n"
            "    if os.fork() == 0:\n"
            "        say('child')\n"
            "        sys.stdin.readline()\n"
            "        say('child is still here')\n"
            "        os._exit(0)\n"
            "    threading.Event().wait()\n"
            "get('f.k', inside=fork)\n"
        )
        holder = start(main=forks)
        holder.until("computes f.k", "child")
        waiter = start("f.k")
        waiter.until("asks f.k")
        holder.process.send_signal(signal.SIGKILL)
        waiter.until("computes f.k")
        holder.go()
        holder.until("child is still here")
        waiter.go()
        waiter.finish()

    def test_a_child_waits_for_its_parent(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        forks = (
            "child = None\n"
            "def fork():\n"
            "    global child\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        say('child asks')\n"
            "        assert get('f.k') == 'value of f.k'\n"
            "        say('child has')\n"
            "        os._exit(0)\n"
            "    sys.stdin.readline()\n"
            "get('f.k', inside=fork)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        program = start(main=forks)
        program.until("child asks")
        program.go()
        program.until("child has")
        program.finish()
        assert log(tmp_path) == ["f.k"]

    def test_a_child_that_returns_from_the_computation_of_its_parent(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        forks = (
            "child = None\n"
            "def fork():\n"
            "    global child\n"
            "    child = os.fork()\n"
            "get('f.k', inside=fork)\n"
            "if child == 0:\n"
            "    get('f.l', ['f.m'])\n"
            "    os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        program = start(main=forks)
        program.finish()
        assert sorted(log(tmp_path)) == ["f.k", "f.l", "f.m"]

    def test_a_child_of_a_process_with_waiting_threads(
        self, start: Callable[..., Program], tmp_path: Path
    ) -> None:
        forks = (
            "def inside():\n"
            "    say('ready')\n"
            "    go.wait()\n"
            "threads = [threading.Thread(target=get, args=['f.k', (), inside]) for _ in range(4)]\n"
            "for thread in threads: thread.start()\n"
            "sys.stdin.readline()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    say('child asks')\n"
            "    get('f.l')\n"
            "    assert get('f.k') == 'value of f.k'\n"
            "    os._exit(0)\n"
            "sys.stdin.readline()\n"
            "go.set()\n"
            "for thread in threads: thread.join()\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        program = start(main=forks)
        program.until("ready")
        program.go()
        program.until("child asks", "computes f.l")
        program.go()
        program.finish()
        assert sorted(log(tmp_path)) == ["f.k", "f.l"]


class TestDescriptors:
    def test_the_last_thread_at_a_byte_unlocks_it(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        single = SingleFlight(path)
        inside, leave = threading.Event(), threading.Event()

        def slow() -> None:
            inside.set()
            leave.wait(PATIENCE_SECONDS)

        threads = Threads(lambda: single.run(7, "slow", nothing, slow))
        inside.wait()
        single.run(7, "fast", nothing, nothing)
        assert not is_free(path, 7)
        assert is_free(path, 8)
        leave.set()
        threads.join()
        assert is_free(path, 7)

    def test_an_object_that_goes_does_not_unlock_for_the_others(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"

        def come_and_go() -> None:
            for _ in range(2):
                SingleFlight(path).run(8, "other", nothing, nothing)
                gc.collect()
            assert not is_free(path, 7)

        SingleFlight(path).run(7, "a", nothing, come_and_go)

    def test_a_second_descriptor_is_not_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "lock"

        def appear_between() -> None:
            def missing(self: Path, **_: Any) -> os.stat_result:
                raise FileNotFoundError

            with monkeypatch.context() as patch:
                patch.setattr(Path, "stat", missing)
                SingleFlight(path).run(8, "other", nothing, nothing)
            SingleFlight(path).run(8, "other", nothing, nothing)
            assert not is_free(path, 7)

        SingleFlight(path).run(7, "a", nothing, appear_between)

    def test_a_file_without_users_is_closed(self, tmp_path: Path) -> None:
        single = SingleFlight(tmp_path / "one")
        single.run(1, "a", nothing, nothing)
        status = (tmp_path / "one").stat()
        identity = (status.st_dev, status.st_ino)
        (descriptor,) = flight._process.files[identity].descriptors
        del single
        gc.collect()
        for name in ("two", "three"):  # the first may get the number of the one that was closed
            SingleFlight(tmp_path / name).run(1, "a", nothing, nothing)
        assert identity not in flight._process.files
        with contextlib.suppress(OSError):
            assert os.fstat(descriptor).st_ino != status.st_ino

    def test_a_file_that_was_removed_is_made_again(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        single = SingleFlight(path)

        def remove() -> None:
            path.unlink()
            single.run(1, "a", nothing, lambda: locked.append(not is_free(path, 1)))

        locked: list[bool] = []
        single.run(2, "b", nothing, remove)
        assert locked == [True]
        assert is_free(path, 1)

    def test_nothing_is_opened_before_it_is_needed(self, tmp_path: Path) -> None:
        SingleFlight(tmp_path / "missing" / "lock")
        SingleFlight(tmp_path / "lock")
        assert list(tmp_path.iterdir()) == []


class TestWithoutLocks:
    def runs_once_and_warns_once(self, single: SingleFlight, reason: str) -> None:
        computed = []

        def compute() -> str:
            computed.append(1)
            wait_until(lambda: len(flight._process.waiting) == 3)
            return "value"

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                threads = Threads(*[lambda: single.run(1, "a", nothing, compute)] * 4)
                assert threads.join() == ["value"] * 4
        assert len(computed) == 2
        (warning,) = caught
        assert warning.category is RuntimeWarning
        assert reason in str(warning.message)

    def test_a_file_system_without_locks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lockf(*_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "lockf", lockf)
        self.runs_once_and_warns_once(SingleFlight(tmp_path / "lock"), "No locks available")

    def test_a_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flight, "fcntl", None)
        self.runs_once_and_warns_once(SingleFlight(tmp_path / "lock"), "no record locks")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_cannot_be_made(self, tmp_path: Path) -> None:
        path = tmp_path / "missing" / "lock"
        self.runs_once_and_warns_once(SingleFlight(path), f"Cannot lock {path} (No such file")

    def test_without_a_file_nothing_is_said(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert SingleFlight(None).run(1, "a", nothing, lambda: 1) == 1

    def test_rows_that_cannot_be_written(
        self, tmp_path: Path, start: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The nested key is computed twice, but nothing hangs."""
        holder = start("f.b")
        holder.until("computes f.b")

        def pwrite(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", pwrite)
        single = SingleFlight(tmp_path / "f.lock")
        with pytest.warns(RuntimeWarning, match="No space left"):
            value = single.run(
                byte("f.a"), "f.a", nothing, lambda: single.run(byte("f.b"), "f.b", nothing, str)
            )
        assert value == ""
        assert is_free(tmp_path / "f.lock", byte("f.a"))
        holder.go()
        holder.finish()
