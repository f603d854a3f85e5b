"""Where work runs. Engines know nothing of what they run."""

from easydata.engine.base import Engine, SerialEngine
from easydata.engine.portable import is_portable
from easydata.engine.processes import ProcessEngine
from easydata.engine.ray_engine import RayEngine

__all__ = ["Engine", "ProcessEngine", "RayEngine", "SerialEngine", "is_portable"]
