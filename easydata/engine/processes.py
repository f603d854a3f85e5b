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
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from easydata.engine.frames import read_frame, write_frame
from easydata.engine.portable import pack_function
from easydata.errors import WorkerError

__all__ = ["ProcessEngine"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_AHEAD = 3  # for each worker: one in work and two waiting hide the pauses of this process


class ProcessEngine:
    """Runs tasks in worker processes, each of which uses one thread."""

    def __init__(self, workers: int) -> None:
        """Start nothing yet: processes start with the first tasks."""
        self._workers = workers
        self._started: list[_Worker] = []
        self._starting = threading.Lock()
        self._is_closed = False
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="easydata-worker")

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Engine.map`. The function and the tasks must be picklable.

        Raises:
            UsageError: the function refers to code that a worker cannot import.
            WorkerError: a worker process died, or could not load the function.
        """
        payload = pack_function(function)
        # A worker serves one function. What an earlier map left in work ends with its workers.
        self._kill_workers()
        idle: queue.LifoQueue[_Worker] = queue.LifoQueue()

        def run(task: Task) -> Result:
            try:
                worker = idle.get_nowait()
            except queue.Empty:
                # There are never more threads than workers wanted, nor more workers than tasks.
                worker = self._start(payload)
            try:
                result: Result = worker.call(task)
                return result
            finally:
                idle.put(worker)

        waiting: deque[Future[Result]] = deque()
        for task in tasks:
            waiting.append(self._threads.submit(run, task))
            if len(waiting) >= self._workers * _TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Threads that wait for a worker see it die. None may start another one after that: its
        # task might never end.
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._starting:
            self._is_closed = True
        self._kill_workers()
        self._threads.shutdown()

    def _start(self, payload: bytes) -> _Worker:
        with self._starting:
            if self._is_closed:
                raise WorkerError("The work was given up.")
            worker = _Worker(payload)
            self._started.append(worker)
        return worker

    def _kill_workers(self) -> None:
        while self._started:
            self._started.pop().kill()


class _Worker:
    """One worker process and the two pipes to it."""

    def __init__(self, function: bytes) -> None:
        """
        Args:
            function: what later tasks are given to, pickled; sent ahead of the first of them.
        """
        self._unsent: bytes | None = function
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            # One thread for each worker: more would only compete with the other workers.
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "easydata.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # Ctrl-C reaches every process of a terminal's group; this one decides what it means.
            start_new_session=True,
        )

    def call(self, task: object) -> Any:
        """Run one task; its exception is raised here."""
        try:
            if self._unsent is not None:
                write_frame(self._stdin, self._unsent)
                self._unsent = None
            write_frame(self._stdin, pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
            reply = read_frame(self._stdout)
        except (OSError, ValueError) as error:
            raise self._death() from error
        if reply is None:
            raise self._death()
        succeeded, value = pickle.loads(reply)
        if not succeeded:
            raise value
        return value

    def kill(self) -> None:
        """End the process now; safe to call at any time."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what the worker did not take any more
            self._stdin.close()
        self._stdout.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def _death(self) -> WorkerError:
        code = self._process.wait()
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            remedy = "If memory ran out, use fewer workers. "
        else:
            how, remedy = f"ended with exit code {code}", "See its messages above. "
        return WorkerError(
            f"A worker process {how}. {remedy}Run again to continue from the finished parts."
        )
