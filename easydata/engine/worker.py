"""The program of a worker process: a function comes in, then tasks; results go out as they come.

Not to be imported by anything but tests: `processes` starts it with `python -m`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from easydata.engine.frames import read_frame, write_frame
from easydata.errors import WorkerError

__all__ = ["serve"]


def serve(tasks: BinaryIO, results: BinaryIO) -> None:
    """Run tasks until the pipe ends. The first message is a number of threads and a function."""
    frame = read_frame(tasks)
    if frame is None:
        return
    threads, payload = pickle.loads(frame[1])
    function = _load(payload)
    lock = threading.Lock()

    def run(number: int, payload: bytes) -> None:
        reply = _outcome(function, payload)
        # Nobody hears what comes after the other side has gone.
        with lock, contextlib.suppress(BrokenPipeError):
            write_frame(results, number, reply)

    with ThreadPoolExecutor(threads) as pool:
        while (frame := read_frame(tasks)) is not None:
            pool.submit(run, *frame)


def _load(payload: bytes) -> Callable[[Any], Any]:
    try:
        function: Callable[[Any], Any] = pickle.loads(payload)
    except (AttributeError, ImportError) as error:
        message = (
            f"A worker process cannot load what it shall run: {error}. "
            "Move the tokenizer's function to a module that can be imported, or use workers=1."
        )

        def function(_task: object) -> object:
            raise WorkerError(message)

    return function


def _outcome(function: Callable[[Any], Any], payload: bytes) -> bytes:
    try:
        return pickle.dumps((True, function(pickle.loads(payload))), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        try:
            reply = pickle.dumps((False, error))
            pickle.loads(reply)
        except Exception:  # noqa: BLE001 - some exceptions do not survive a pickle
            text = f"{type(error).__name__}: {error}"
            return pickle.dumps((False, WorkerError(f"A worker process failed: {text}")))
        return reply


def main() -> None:
    """Import the modules given as arguments, then serve the pipes of this process."""
    # Whatever the tokenizer prints must not end up between the results, and a program that it
    # starts must not read the tasks.
    tasks, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    import pyarrow as pa

    pa.set_cpu_count(1)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    serve(tasks, results)


if __name__ == "__main__":
    main()
