"""Threads that stand by, for pieces of one work."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
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
        assert self.begun.wait(60)

    def _wait(self) -> None:
        self.begun.set()
        assert self.end.wait(60)

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
        assert done.wait(60)
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
        assert begun.wait(60)
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
busy = Call(lambda: (begun.set(), end.wait(60)))
assert begun.wait(60)
queued = Call(lambda: "made")
child = os.fork()
assert queued.result() == "made"
end.set()
assert busy.result()[1]  # in the child, where the thread that had begun is not, too
begun = threading.Event()
call = Call(begun.set)
assert begun.wait(60)
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
    assert later.wait(60)
    assert kept.result() is None
    assert begun == [0]


@pytest.mark.usefixtures("cores")
def test_what_is_no_error_is_raised_here_and_the_call_may_be_made_again() -> None:
    calls: list[int] = []

    def function() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "made"

    with Busy():
        call = Call(function)
        with pytest.raises(KeyboardInterrupt):
            call.make()
        assert not call.is_under_way
        assert call.result() == "made"
        assert call.result() == "made"
    assert len(calls) == 2


@pytest.mark.usefixtures("cores")
def test_whatever_is_raised_on_another_thread_comes_with_the_result() -> None:
    begun = threading.Event()

    def function() -> None:
        begun.set()
        sys.exit(3)

    call = Call(function)
    assert begun.wait(60)
    with pytest.raises(SystemExit):
        call.result()
    later = threading.Event()
    kept = Call(later.set)  # by the same thread
    assert later.wait(60)
    assert kept.result() is None


@pytest.mark.usefixtures("cores")
def test_a_call_that_nobody_holds_any_more_is_not_made() -> None:
    calls: list[int] = []
    with Busy():
        Call(lambda: calls.append(1))
    later = threading.Event()
    kept = Call(later.set)
    assert later.wait(60)
    assert kept.result() is None
    assert calls == []


@pytest.mark.usefixtures("cores")
def test_a_result_that_nobody_wants_any_more_is_let_go() -> None:
    made, gone = threading.Event(), threading.Event()

    def function() -> set[int]:
        found = {1}
        weakref.finalize(found, gone.set)
        made.set()
        return found

    call = Call(function)
    assert made.wait(60)  # so the thread has made it, and waits for other calls
    assert call.result() == {1}
    assert not gone.is_set()
    del call
    assert gone.wait(60)


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls: list[int] = []
    with arrow_threads(3):
        monkeypatch.setattr(threading.Thread, "start", start)
        call = Call(lambda: calls.append(7))
        assert call.result() is None
    monkeypatch.undo()
    with arrow_threads(2):
        assert Call(lambda: 8).result() == 8
    assert calls == [7]


def test_as_many_threads_as_arrow_has() -> None:
    for count in (2, 4, 2, 7):
        with arrow_threads(count):
            here = threading.Barrier(min(count, 4))
            calls = [Call(here.wait) for _ in range(min(count, 4) - 1)]
            here.wait(60)  # all are under way at once
            for call in calls:
                call.result()


def test_the_interpreter_exits_after_a_call_that_is_under_way() -> None:
    program = """
import threading, time
from easydata._threads import Call
import pyarrow
pyarrow.set_cpu_count(2)
begun = threading.Event()
def function():
    begun.set()
    time.sleep(0.5)  # meanwhile the program ends
    print("done", flush=True)
call = Call(function)
begun.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
