"""Where a pipeline tokenizes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from easydata.engine import Engine

if TYPE_CHECKING:
    from easydata.pipeline.config import RayConfig

__all__ = ["EngineMaker", "engine_maker"]

EngineMaker = Callable[[], AbstractContextManager[Engine]]


def engine_maker(ray: RayConfig) -> EngineMaker | None:
    """What makes the engine that is configured; None for worker processes of this machine.

    Raises:
        MissingDependencyError: Ray is wanted, and is not installed.
    """
    if not ray.enabled:
        return None
    from easydata.engine.ray_engine import RayEngine

    return lambda: RayEngine(
        ray.num_workers,
        resources_per_worker=ray.resources_per_worker,
        use_gpu=ray.use_gpu,
        object_store_memory=ray.object_store_bytes,
    )
