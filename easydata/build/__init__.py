"""Sources → stages → a dataset directory, through an engine."""

from easydata.build.api import build

__all__ = ["build"]
