from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from types import FrameType
from typing import Any

import pytest

from easydata.errors import UsageError
from easydata.loader import prefetch
from easydata.loader.prefetch import Prefetcher


def threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("easydata-prefetch")}


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    assert not threads()
    yield
    assert not threads()


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("buffer_size", [1, 2, 7])
def test_results_come_in_order(workers: int, buffer_size: int) -> None:
    ahead = Prefetcher(lambda n: n * n, range(500), workers=workers, buffer_size=buffer_size)
    assert list(ahead) == [n * n for n in range(500)]
    assert list(ahead) == []


def test_a_slow_result_is_waited_for() -> None:
    second = threading.Event()

    def function(n: int) -> int:
        if n == 1:
            second.set()
        elif n == 0:
            assert second.wait(60)  # so two threads work at once, and the second is done first
        return n

    assert list(Prefetcher(function, range(4), workers=2, buffer_size=2)) == [0, 1, 2, 3]


class Watched:
    """An endless iterator that tells how many items were taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.worked = 0
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[int]:
        for n in count():
            self.taken = n + 1
            yield n

    def function(self, n: int) -> int:
        with self._changed:
            self.worked += 1
            self._changed.notify_all()
        return n

    def wait_for(self, worked: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.worked >= worked, 60)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_no_more_than_the_buffer_is_read_ahead(workers: int) -> None:
    watched = Watched()
    ahead = Prefetcher(watched.function, watched, workers=workers, buffer_size=3)
    watched.wait_for(3)
    assert next(ahead) == 0
    assert next(ahead) == 1
    watched.wait_for(5)  # it goes on as far as there is room without being asked
    ahead.close()  # waits for all that was begun
    assert watched.taken == watched.worked == 5
    assert list(ahead) == []
    ahead.close()


def test_all_workers_work() -> None:
    together = threading.Barrier(4, timeout=60)
    ahead = Prefetcher(lambda _: together.wait(), range(8), workers=4, buffer_size=4)
    assert sorted(ahead) == [0, 0, 1, 1, 2, 2, 3, 3]


def break_at_three(n: int) -> int:
    if n == 3:
        raise KeyError("three")
    return n


def items_that_break() -> Iterator[int]:
    yield from range(3)
    raise KeyError("three")


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("where", ["function", "items"])
def test_an_error_comes_at_its_turn(workers: int, where: str) -> None:
    if where == "function":
        ahead = Prefetcher(break_at_three, count(), workers=workers, buffer_size=6)
    else:
        ahead = Prefetcher(lambda n: n, items_that_break(), workers=workers, buffer_size=6)
    assert list(islice(ahead, 3)) == [0, 1, 2]
    with pytest.raises(KeyError, match="three") as caught:
        next(ahead)
    frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert frames[-1] == ("break_at_three" if where == "function" else "items_that_break")
    assert not threads()
    assert list(ahead) == []


def test_stop_iteration_of_the_function_is_no_end() -> None:
    ahead = Prefetcher(lambda _: next(iter(())), range(3), workers=1, buffer_size=1)
    with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
        next(ahead)
    assert isinstance(caught.value.__cause__, StopIteration)


@pytest.mark.parametrize("error", [StopIteration, KeyError])
def test_items_are_not_asked_for_more_after_their_end(error: type[Exception]) -> None:
    asked = count()

    class Items(Iterator[int]):
        def __next__(self) -> int:
            next(asked)
            raise error

    ahead = Prefetcher(abs, Items(), workers=3, buffer_size=6)
    with pytest.raises(error):
        next(ahead)
    assert next(asked) == 1


def test_the_threads_end_with_the_iterator() -> None:
    ahead = Prefetcher(lambda n: n, count(), workers=3, buffer_size=3)
    assert next(ahead) == 0
    assert len(threads()) == 3
    del ahead
    assert not threads()
    cycle: list[Any] = [Prefetcher(lambda n: n, count(), workers=3, buffer_size=3)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert not threads()


def test_no_result_is_held_on_to() -> None:
    class Result:
        alive = 0

        def __init__(self) -> None:
            Result.alive += 1

        def __del__(self) -> None:
            Result.alive -= 1

    ahead = Prefetcher(lambda _: Result(), range(50), workers=1, buffer_size=2)
    for result in ahead:
        assert Result.alive <= 4  # two that wait, one that is read, one that is made
        del result
    assert Result.alive == 0


@pytest.mark.parametrize("end", ["items", "error of the items", "error of the function"])
def test_nothing_is_held_on_to_after_the_end(end: str) -> None:
    class Source:
        def __iter__(self) -> Iterator[int]:
            yield from range(3)
            if end == "error of the items":
                raise KeyError("three")

        def function(self, n: int) -> int:
            if n == 2 and end == "error of the function":
                raise KeyError("three")
            return n

    gc.collect()
    gc.disable()
    try:
        source = Source()
        ahead = Prefetcher(source.function, source, workers=2, buffer_size=2)
        with suppress(KeyError):
            list(ahead)
        held = weakref.ref(source)
        del source, ahead
        assert held() is None
    finally:
        gc.enable()


class Result:
    """What can be referred to weakly."""


@pytest.mark.parametrize("is_first_late", [False, True])
def test_close_lets_go_of_what_was_read_ahead(is_first_late: bool) -> None:
    made: list[weakref.ref[Result]] = []
    first, all_made = threading.Event(), threading.Event()

    def function(n: int) -> Result:
        if n == 0 and is_first_late:
            assert first.wait(60)  # so that the others wait for their turn
        result = Result()
        made.append(weakref.ref(result))
        if n == 3:
            first.set()
        if len(made) == 4 + is_first_late:
            all_made.set()
        return result

    ahead = Prefetcher(function, count(), workers=2, buffer_size=4)
    if is_first_late:
        next(ahead)
    assert all_made.wait(60)
    ahead.close()
    assert [result() for result in made] == [None] * len(made)


def test_close_while_a_reader_waits() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def function(_: int) -> None:
        begun.set()
        assert goes_on.wait(60)

    ahead = Prefetcher(function, count(), workers=1, buffer_size=1)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(ahead), daemon=True)
    closer = threading.Thread(target=ahead.close, daemon=True)
    assert begun.wait(60)
    reader.start()
    closer.start()
    deadline = time.monotonic() + 60
    while not ahead._shared._closed:  # or the reader takes what comes before
        assert time.monotonic() < deadline
        time.sleep(0.001)
    goes_on.set()
    for thread in (closer, reader):
        thread.join(60)
        assert not thread.is_alive()
    assert found == []


def test_a_reader_whose_turn_nobody_takes_is_woken() -> None:
    shared = prefetch._Shared(abs, iter([1]), 1)  # without threads

    def read() -> None:
        with pytest.raises(StopIteration):
            shared.next()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    shared.close()
    shared.clear()
    reader.join(60)
    assert not reader.is_alive()


def closing(ahead: Prefetcher[Any], line: int) -> Callable[..., Any]:
    """For `sys.settrace`: another thread closes it when its reader comes to a line of `next`."""

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code is not prefetch._Shared.next.__code__:
            return None
        if event == "line" and frame.f_lineno == line:
            other = threading.Thread(target=ahead.close)
            other.start()
            other.join(60)
        return trace

    return trace


def test_close_by_another_thread_at_any_moment() -> None:
    code = prefetch._Shared.next.__code__
    for line in {line for _, _, line in code.co_lines() if line}:
        ahead = Prefetcher(abs, count(), workers=1, buffer_size=1)
        before = sys.gettrace()  # perhaps that of what measures coverage
        sys.settrace(closing(ahead, line))
        try:
            found = list(islice(ahead, 3))
        finally:
            sys.settrace(before)
        assert found == [0, 1, 2][: len(found)]
        ahead.close()


@pytest.mark.parametrize("name", ["workers", "buffer_size"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_wrong_arguments(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"prefetch_{name} is {value}; it must be"):
        Prefetcher(abs, [1], **{"workers": 1, "buffer_size": 1, name: value})


def run(script: str, environment: dict[str, str] | None = None) -> str:
    lines = (
        "import itertools, os, sys, threading",
        "from easydata.errors import UsageError",
        "from easydata.loader.prefetch import Prefetcher",
        script,
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("end", ["", "sys.exit()", "del ahead", "ahead.self = ahead"])
def test_the_interpreter_exits(end: str) -> None:
    script = (
        "ahead = Prefetcher(abs, itertools.count(), workers=3, buffer_size=3)\n"
        "print(next(ahead), next(ahead))\n"
    )
    assert run(script + end) == "0 1\n"


def test_an_interrupt_comes_out_as_such_wherever_it_strikes() -> None:
    script = """
import random, signal

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
sys.setswitchinterval(1e-5)
chance = random.Random(7)
for _ in range(800):
    ahead = Prefetcher(abs, itertools.count(), workers=2, buffer_size=2)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.004 * chance.random())
        for expected, found in enumerate(ahead):
            assert found == expected
    except KeyboardInterrupt:
        ahead.close()
    assert list(ahead) == []
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(60)
print(threading.active_count())
"""
    # What measures coverage has locks of its own, which an interrupt would leave held.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    assert run(script, bare) == "1\n"


def test_after_a_fork_the_child_is_told() -> None:
    script = """
ahead = Prefetcher(abs, itertools.count(), workers=2, buffer_size=2)
print(next(ahead), flush=True)
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    print(next(ahead))
else:
    try:
        next(ahead)
    except UsageError as error:
        print(error, flush=True)
"""
    assert (
        run(script) == "0\nreading ahead does not survive a fork; iterate anew in the child.\n1\n"
    )
