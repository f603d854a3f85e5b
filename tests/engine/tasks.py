"""What the tests let worker processes do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any


def double(task: Any) -> Any:
    return task * 2


def length(task: bytes) -> int:
    return len(task)


def busy(task: int) -> tuple[int, int]:
    return task, sum(range(task * 1000))


def fail_at_three(task: int) -> int:
    if task == 3:
        raise KeyError("three")
    return task


class StubbornError(Exception):
    """Has a constructor that its pickle does not know how to call."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def raise_stubborn(task: object) -> None:
    raise StubbornError("will not", "travel")


def own_pid(task: object) -> int:
    return os.getpid()


def kill_self(task: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit_seven(task: object) -> None:
    os._exit(7)


def noisy(task: int) -> int:
    print("from print", flush=True)
    subprocess.run([sys.executable, "-c", "print('from a subprocess')"], check=True)
    os.write(1, b"from the descriptor\n")
    return task


def block_for_ever(mark: Path) -> None:
    mark.touch()
    threading.Event().wait()


def environment_and_threads(task: object) -> tuple[str, str, int]:
    import pyarrow as pa

    return os.environ["TOKENIZERS_PARALLELISM"], os.environ["OMP_NUM_THREADS"], pa.cpu_count()


class Meet:
    """A task that ends when as many of its kind run in one process at the same time."""

    def __init__(self, parties: int, *, releases_gil: bool = True) -> None:
        self.parties = parties
        self.releases_gil = releases_gil

    def __call__(self, task: object) -> int:
        with meeting_lock:
            barrier = meetings.setdefault(self.parties, threading.Barrier(self.parties))
        barrier.wait(timeout=60)
        return os.getpid()


meeting_lock = threading.Lock()
meetings: dict[int, threading.Barrier] = {}


def read_input(task: object) -> bytes:
    program = "import sys; sys.stdout.write(sys.stdin.read())"
    return subprocess.run([sys.executable, "-c", program], stdout=-1, check=True).stdout


def imported(name: str) -> bool:
    return name in sys.modules


def refuse(texts: list[str]) -> list[list[int]]:
    raise ZeroDivisionError("by the tokenizer")


def die_once(texts: list[str]) -> list[list[int]]:
    """Bytes as ids; the first process that sees row 200 is killed."""
    if any(text.startswith("row 200 ") for text in texts):
        marker = Path(os.environ["EASYDATA_TEST_MARKER"])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [list(text.encode()) for text in texts]
