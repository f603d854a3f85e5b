"""The clock of the cache: every module calls `clock.now()`, so that tests can replace it."""

from __future__ import annotations

import math
import numbers
import time
from typing import Any

from easydata.cache.log.layout import NEVER
from easydata.errors import UsageError

__all__ = ["check_expiry", "deadline", "now"]


def now() -> int:
    """Nanoseconds since 1970, UTC."""
    return time.time_ns()


def check_expiry(seconds: Any, *, name: str = "expiry_seconds") -> None:
    """Refuse what is no time to live.

    Raises:
        UsageError: it is neither None nor a finite number above 0; the message calls it `name`.
    """
    if seconds is None:
        return
    is_number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise UsageError(
            f"{name} is {seconds!r}; give a number of seconds above 0, or None for no limit."
        )


def check_age(seconds: Any) -> None:
    """
    Raises:
        UsageError: it is no finite number above 0.
    """
    if seconds is None:
        raise UsageError("seconds is None; give a number of seconds above 0.")
    check_expiry(seconds, name="seconds")


def deadline(stamp: int, seconds: float | None) -> int:
    """When what was written at `stamp` expires: nanoseconds since 1970, or `NEVER`.

    It is expired from that moment on: `deadline(...) <= now()`.
    """
    if seconds is None or seconds >= (NEVER - stamp) / 1e9:
        return NEVER
    return stamp + int(float(seconds) * 1e9)
