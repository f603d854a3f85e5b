"""What an actor of a Ray cluster does for a `RayEngine`."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from easydata.errors import WorkerError

__all__ = ["RayWorker"]


class RayWorker:
    """One process that runs one task at a time."""

    def __init__(self, path: Sequence[str], modules: Sequence[str]) -> None:
        """Prepare the process.

        Args:
            path: where the driver finds modules; folders that are not there do no harm.
            modules: what to import first.
        """
        import pyarrow as pa

        sys.path += [folder for folder in path if folder not in sys.path]
        # One thread for each task: more would only compete with the other tasks.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        pa.set_cpu_count(1)
        for module in modules:
            importlib.import_module(module)
        self._loaded: Any = None
        self._function: Any = None

    def ready(self) -> None:
        """Give the sign that the process runs."""

    def run(self, reference: Sequence[Any], task: bytes) -> bytes:
        """Run one task.

        Args:
            reference: to the pickled function. In a list, as Ray would send its bytes with every
                task if it stood alone; a process that takes a dead one's place gets it again.
            task: pickled.

        Returns:
            Pickled: whether it succeeded, and the result or the exception.
        """
        import ray

        dumps = ray.cloudpickle.dumps
        try:
            if reference[0] != self._loaded:
                self._function = _load(ray.get(reference[0]))
                self._loaded = reference[0]
            return bytes(dumps((True, self._function(pickle.loads(task)))))
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver raises it
            error.add_note(f"In a Ray worker:\n{traceback.format_exc()}")
            try:
                reply = bytes(dumps((False, error)))
                pickle.loads(reply)
            except Exception:  # noqa: BLE001 - some exceptions do not survive a pickle
                text = f"{type(error).__name__}: {error}"
                return bytes(dumps((False, WorkerError(f"A Ray worker failed: {text}"))))
            return reply


def _load(payload: bytes) -> Callable[[Any], Any]:
    try:
        function: Callable[[Any], Any] = pickle.loads(payload)
    except (AttributeError, ImportError) as error:
        raise WorkerError(
            f"A Ray worker cannot load what it shall run: {error}. Install it on every node of "
            "the cluster, or initialise Ray yourself with a runtime_env that brings it."
        ) from error
    return function
