"""The program of a worker process: a function comes in, then tasks; results go out.

Not to be imported by anything but tests: `processes` starts it with `python -m`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from easydata.engine.frames import read_frame, write_frame
from easydata.errors import WorkerError

__all__ = ["serve"]


def serve(tasks: BinaryIO, results: BinaryIO) -> None:
    """Run tasks until the pipe ends. The first message is the function."""
    payload = read_frame(tasks)
    if payload is None:
        return
    try:
        function: Callable[[Any], Any] = pickle.loads(payload)
    except (AttributeError, ImportError) as error:
        message = (
            f"A worker process cannot load what it shall run: {error}. "
            "Move the tokenizer's function to a module that can be imported, or use workers=1."
        )

        def function(_task: object) -> object:
            raise WorkerError(message)

    while (payload := read_frame(tasks)) is not None:
        write_frame(results, _outcome(function, payload))


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
    """Serve the pipes that this process was started with."""
    results = os.fdopen(os.dup(1), "wb")
    # Whatever the tokenizer prints must not end up between the results.
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    import pyarrow as pa

    pa.set_cpu_count(1)
    with contextlib.suppress(BrokenPipeError):
        serve(sys.stdin.buffer, results)


if __name__ == "__main__":
    main()
