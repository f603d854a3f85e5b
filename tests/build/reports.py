"""`build` as the command line calls it, which also tells what was done."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from easydata import build
from easydata.build.run import BuildReport, run

from .support import SMALL

_DEFAULTS = {
    name: item.default
    for name, item in inspect.signature(build).parameters.items()
    if name not in ("sources", "progress", "overwrite", "dry_run", "engine")
}


def report(sources: Any, out: Path, *, overwrite: bool = False, **options: Any) -> BuildReport:
    """Build small parts with one worker, and say what was done."""
    given = {**_DEFAULTS, **SMALL, "workers": 1, **options, "out": out}
    replace = "always" if overwrite else "never"
    return run(sources, given, progress="none", replace=replace)
