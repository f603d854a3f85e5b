"""Where work runs. Engines know nothing of what they run."""

from easydata.engine.base import Engine, SerialEngine
from easydata.engine.portable import is_portable
from easydata.engine.processes import ProcessEngine

__all__ = ["Engine", "ProcessEngine", "SerialEngine", "is_portable"]
