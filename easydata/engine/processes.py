"""Worker processes on this machine.

Workers are started as programs of their own (`python -m easydata.engine.worker`), not with
`multiprocessing`, because that gives three promises for free:

* The user's script is never run again in a worker, so it needs no `if __name__ == "__main__"`.
* No fork: threads of JAX, Arrow or a tokenizer in this process cannot deadlock a child.
* A worker reads its tasks from a pipe, and the pipe ends when this process does, however it
  dies; there are no semaphores or shared memory to leak.

Tasks and results travel as pickles between these processes, which run the same code for the
same user. Nothing that is stored is ever unpickled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from easydata.engine.frames import read_frame, write_frame
from easydata.engine.portable import pack_function
from easydata.errors import WorkerError

__all__ = ["ProcessEngine"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_AHEAD = 3  # for each slot: one in work and two waiting hide the pauses of this process
# Threads of one process share its tokenizer, and with it the processor's cache: two threads
# tokenize a tenth faster than two processes on the two halves of a core. But they also share
# Python's lock, which each holds for a twentieth of its time.
_MAX_THREADS = 4


class ProcessEngine:
    """Runs a number of tasks at a time in worker processes."""

    def __init__(self, slots: int, modules: Sequence[str] = ()) -> None:
        """Start nothing yet: processes start with the first tasks, or with `start`.

        Args:
            slots: how many tasks to run at a time.
            modules: names of what a process imports as soon as it starts.
        """
        self._slots = slots
        self._modules = modules
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Start the processes that any function needs: they import while this one prepares."""
        for _ in range(-(-self._slots // _MAX_THREADS)):
            self._workers.append(_Worker(self._modules))

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
    ) -> Iterator[Result]:
        """See `Engine.map`. The function and the tasks must be picklable.

        Raises:
            UsageError: the function refers to code that a worker cannot import.
            WorkerError: a worker process died, or could not load the function.
        """
        payload = pack_function(function)
        if any(worker.threads for worker in self._workers):
            # A worker serves one function. What an earlier map left in work ends with its workers.
            self._kill_workers()
        max_threads = _MAX_THREADS if getattr(function, "releases_gil", False) else 1
        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._least_busy(payload, max_threads).submit(task))
            if len(waiting) >= self._slots * _TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._kill_workers()

    def _least_busy(self, function: bytes, max_threads: int) -> _Worker:
        """A worker with an idle thread, started if there is none; or the one with least to do."""
        serving = [worker for worker in self._workers if worker.threads]
        free_slots = self._slots - sum(worker.threads for worker in serving)
        best = min(serving, key=lambda worker: worker.load, default=None)
        if best is None or (best.load >= 1 and free_slots):
            best = next((worker for worker in self._workers if not worker.threads), None)
            if best is None:
                best = _Worker(self._modules)
                self._workers.append(best)
            processes_left = -(-free_slots // max_threads)
            best.serve(function, -(-free_slots // processes_left))
        return best

    def _kill_workers(self) -> None:
        while self._workers:
            self._workers.pop().kill()


class _Worker:
    """One worker process and the two pipes to it.

    Attributes:
        threads: how many tasks it runs at a time; 0 before it serves a function.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        """Start the process.

        Args:
            modules: what it imports first.
        """
        self.threads = 0
        self._outbox: queue.SimpleQueue[tuple[int, object] | None] = queue.SimpleQueue()
        self._unfinished: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._death: WorkerError | None = None
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            # One thread for each task: more would only compete with the other tasks.
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "easydata.engine.worker", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # Ctrl-C reaches every process of a terminal's group; this one decides what it means.
            start_new_session=True,
        )
        # A pipe takes 64 kB until the process reads: who writes may wait, and so may who reads.
        self._porters = [
            threading.Thread(target=target, name="easydata-worker", daemon=True)
            for target in (self._send, self._receive)
        ]
        for porter in self._porters:
            porter.start()

    @property
    def load(self) -> float:
        """Unfinished tasks for each thread."""
        return len(self._unfinished) / self.threads

    def serve(self, function: bytes, threads: int) -> None:
        """Say what later tasks are given to, pickled, and how many to run at a time."""
        self.threads = threads
        self._outbox.put((0, (threads, function)))

    def submit(self, task: object) -> Future[Any]:
        """Run one task when a thread is free; its exception is that of the future."""
        future: Future[Any] = Future()
        with self._lock:
            if self._death is not None:
                future.set_exception(self._death)
                return future
            number = next(self._numbers)
            self._unfinished[number] = future
        self._outbox.put((number, task))
        return future

    def kill(self) -> None:
        """End the process now; safe to call at any time."""
        self._process.kill()
        self._outbox.put(None)
        for porter in self._porters:
            porter.join()
        with contextlib.suppress(OSError):  # what the worker did not take any more
            self._stdin.close()
        self._stdout.close()

    def _send(self) -> None:
        """Send what comes to the outbox, until `kill` or the process ends."""
        while (message := self._outbox.get()) is not None:
            number, value = message
            try:
                payload = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the task's
                self._settle(number, succeeded=False, value=error)
                continue
            with contextlib.suppress(OSError):  # the process died: `_receive` sees that too
                write_frame(self._stdin, number, payload)

    def _receive(self) -> None:
        """Settle futures until the process ends, then all that are left."""
        while (frame := read_frame(self._stdout)) is not None:
            number, reply = frame
            try:
                succeeded, value = pickle.loads(reply)
            except Exception as error:  # noqa: BLE001 - as above
                succeeded, value = False, error
            self._settle(number, succeeded=succeeded, value=value)
        code = self._process.wait()
        with self._lock:
            self._death = _death(code)
            lost = list(self._unfinished.values())
        for future in lost:
            future.set_exception(self._death)

    def _settle(self, number: int, *, succeeded: bool, value: Any) -> None:
        with self._lock:
            future = self._unfinished.pop(number)
        if succeeded:
            future.set_result(value)
        else:
            future.set_exception(value)

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout


def _death(code: int) -> WorkerError:
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        remedy = "If memory ran out, use fewer workers. "
    else:
        how, remedy = f"ended with exit code {code}", "See its messages above. "
    return WorkerError(
        f"A worker process {how}. {remedy}Run again to continue from the finished parts."
    )
