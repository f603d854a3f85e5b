"""Calls a function in a new Python process, so that nothing is warm that should not be."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.common import ROOT

__all__ = ["call_fresh", "result_of", "start_fresh"]


def start_fresh(
    function: Callable[..., Any], *arguments: Any, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a process that calls `function`; arguments and result must be JSON values."""
    where = [function.__module__, function.__name__, json.dumps(arguments)]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fresh", *where],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
    )


def result_of(process: subprocess.Popen[str]) -> Any:
    """What the function returned."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, process.args))} failed; see its messages above.")
    return json.loads(output.splitlines()[-1])


def call_fresh(
    function: Callable[..., Any], *arguments: Any, env: dict[str, str] | None = None
) -> Any:
    """What `function(*arguments)` returns in a process of its own."""
    return result_of(start_fresh(function, *arguments, env=env))


def _main() -> None:
    module, name, arguments = sys.argv[1:]
    value = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    print(json.dumps(value))


if __name__ == "__main__":
    _main()
