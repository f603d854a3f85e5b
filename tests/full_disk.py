"""A disk that is full, made by limiting how large a file may grow."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(max_bytes: int) -> Iterator[None]:
    """No file can grow beyond some bytes, this process' standard output included.

    So it must not be in force when a test ends: pytest then says so on its own output, which may
    be a file that is larger than that.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
