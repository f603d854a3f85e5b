"""What a process needs that a test interrupts."""

from __future__ import annotations

import os


def unmeasured() -> dict[str, str]:
    """The environment without what starts coverage in a new process.

    Coverage takes a lock of its own whenever a program enters another file. A Ctrl-C just then
    leaves the lock taken, and the program waits for ever at the next such moment.
    """
    return {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
