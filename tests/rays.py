"""A small Ray for tests that start none themselves."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import ray


@contextlib.contextmanager
def small_ray() -> Iterator[None]:
    """Ray on this machine, with two cores, a GPU that is only said to be there, and a tool."""
    with warnings.catch_warnings():
        # Ray starts its processes with a fork, of which JAX warns where a test before imported it.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        _start()
    yield
    ray.shutdown()


def _start() -> None:
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=1,
        resources={"tool": 1},
        object_store_memory=200_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
