"""Threads that stand by, for pieces of one work."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from easydata._threads import Call, in_parts, thread_count
from tests.arrow_threads import arrow_threads


@pytest.fixture
def cores() -> Iterator[None]:
    """One thread stands by."""
    with arrow_threads(2):
        yield


class Busy:
    """Keeps the only thread that stands by."""

    def __enter__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.call = Call(self._wait)
        assert self.begun.wait(10)

    def _wait(self) -> None:
        self.begun.set()
        assert self.end.wait(10)

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.call.result()


@pytest.mark.usefixtures("cores")
class TestCall:
    def test_another_thread_makes_it(self) -> None:
        done = threading.Event()

        def function() -> str:
            done.set()
            return threading.current_thread().name

        call = Call(function)
        assert done.wait(10)
        assert call.result().startswith("easydata")

    def test_one_that_has_not_begun_is_made_by_who_asks(self) -> None:
        with Busy():
            calls = []
            call = Call(lambda: calls.append(threading.current_thread()))
            call.result()
        assert calls == [threading.current_thread()]

    def test_a_cancelled_one_is_not_made(self) -> None:
        made: list[int] = []
        with Busy():
            call = Call(lambda: made.append(1))
            call.cancel()
        Call(lambda: None).result()
        assert not made

    def test_it_is_made_once(self) -> None:
        made: list[int] = []
        busy = Busy()
        with busy:
            call = Call(lambda: made.append(1))
            assert busy.call.is_under_way
            assert not busy.call.make()
            assert not call.is_under_way
            assert call.make()
            assert not call.is_under_way
            assert not call.make()
            assert not call.cancel()
            call.result()
        assert made == [1]

    def test_one_that_fails_here_raises_when_it_is_asked_for(self) -> None:
        with Busy():
            call = Call(lambda: {}["wrong"])
            assert call.make()
            with pytest.raises(KeyError, match="wrong"):
                call.result()

    def test_what_it_raises(self) -> None:
        begun = threading.Event()

        def fail() -> None:
            begun.set()
            raise KeyError("wrong")

        call = Call(fail)
        assert begun.wait(10)
        with pytest.raises(KeyError, match="wrong"):
            call.result()

    def test_calls_may_make_calls(self) -> None:
        def nested(depth: int) -> int:
            return 1 + Call(lambda: nested(depth - 1)).result() if depth else 0

        assert [Call(lambda: nested(20)).result() for _ in range(5)] == [20] * 5

    def test_a_forked_child_has_threads_of_its_own(self) -> None:
        program = """
import os
import threading

from easydata._threads import Call

import pyarrow

pyarrow.set_cpu_count(2)
begun, end = threading.Event(), threading.Event()
busy = Call(lambda: (begun.set(), end.wait(10)))
assert begun.wait(10)
queued = Call(lambda: "made")
child = os.fork()
assert queued.result() == "made"
end.set()
assert busy.result()[1]  # in the child, where the thread that had begun is not, too
begun = threading.Event()
call = Call(begun.set)
assert begun.wait(10)
call.result()
if child:
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    def test_while_the_interpreter_exits(self) -> None:
        program = """
import atexit

from easydata._threads import Call

Call(int).result()
atexit.register(lambda: print(Call(lambda: 7).result()))
"""
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
        )
        assert done.stdout == "7\n"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("least", [1, 2, 7])
def test_parts_are_all_of_the_items(count: int, least: int) -> None:
    with arrow_threads(count):
        assert thread_count() == count
        for items in range(12):
            found: list[list[int]] = []
            in_parts(lambda part: found.append(part.tolist()), np.arange(items), least)  # noqa: B023
            assert sorted(sum(found, [])) == list(range(items))
            assert len(found) <= count
            assert len(found) == 1 or all(len(part) >= least for part in found)


def test_what_a_part_raises() -> None:
    def function(part: np.ndarray) -> None:
        if 9 in part:
            raise ValueError("nine")

    with pytest.raises(ValueError, match="nine"):
        in_parts(function, np.arange(10), 1)


@pytest.mark.usefixtures("cores")
def test_after_an_error_no_other_part_begins() -> None:
    begun: list[int] = []

    def function(part: np.ndarray) -> None:
        begun.append(int(part[0]))
        raise ValueError(f"from {part[0]}")

    with Busy(), pytest.raises(ValueError, match="from 0"):
        in_parts(function, np.arange(10), 1)
    later = threading.Event()
    kept = Call(later.set)
    assert later.wait(10)
    assert kept.result() is None
    assert begun == [0]
