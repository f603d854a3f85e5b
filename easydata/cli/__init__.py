"""The command line: `easydata build`, `info`, `head`, `verify`."""

from easydata.cli.main import main

__all__ = ["main"]
