"""The command line: `easydata build`, `info`, `head`, `verify`; `ls`, `get`, `stats`, `gc`."""

from easydata.cli.main import main

__all__ = ["main"]
