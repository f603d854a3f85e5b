"""Properties that are worked out once."""

from __future__ import annotations

import subprocess
import sys
import threading

from easydata._lazy import cached_property


class Counts:
    def __init__(self) -> None:
        self.calls = 0

    @cached_property
    def number(self) -> int:
        """How often it was worked out."""
        self.calls += 1
        return self.calls


def test_it_is_worked_out_once_for_each_instance() -> None:
    first, second = Counts(), Counts()
    assert (first.number, first.number, second.number) == (1, 1, 1)
    assert (first.calls, second.calls) == (1, 1)
    del first.number
    assert first.number == 2
    assert Counts.__dict__["number"].__doc__ == "How often it was worked out."
    assert isinstance(Counts.number, cached_property)


def test_threads_that_work_it_out_at_once_get_the_same() -> None:
    both = threading.Barrier(2)

    class Slow:
        @cached_property
        def value(self) -> object:
            both.wait(60)
            return object()

    slow = Slow()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert found[0] is found[1] is slow.value


FORK = """
import os, signal, threading
from easydata._lazy import cached_property

begun, end = threading.Event(), threading.Event()
parent = os.getpid()

class Slow:
    @cached_property
    def value(self):
        if os.getpid() == parent:
            begun.set()
            end.wait(30)
        return 7

slow = Slow()
thread = threading.Thread(target=lambda: slow.value)
thread.start()
begun.wait(30)
child = os.fork()
if not child:
    signal.alarm(20)
    os._exit(0 if (slow.value, Slow().value) == (7, 7) else 1)
assert os.waitpid(child, 0)[1] == 0
end.set()
thread.join()
"""


def test_a_child_that_is_forked_meanwhile_does_not_wait() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
