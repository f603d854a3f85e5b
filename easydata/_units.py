"""Sizes as people write them, and numbers as people read them."""

from __future__ import annotations

import numbers
import re

from easydata.errors import UsageError

__all__ = ["format_bytes", "format_count", "parse_bytes"]

_FACTORS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


def parse_bytes(size: object, *, name: str) -> int:
    """Bytes in `size`: a number, or text such as "256MB" (powers of 1000) or "64MiB" (1024).

    Raises:
        UsageError: the text is no size, or the size is not positive; the message calls it `name`.

    >>> parse_bytes("256MB", name="shard_size"), parse_bytes("1.5GiB", name="shard_size")
    (256000000, 1610612736)
    """
    if isinstance(size, bool) or not isinstance(size, numbers.Integral | str):
        raise UsageError(f"{name} is {size!r}; give a number of bytes or text such as '256MB'.")
    if not isinstance(size, str):
        value = int(size)
    else:
        match = _PATTERN.fullmatch(size)
        if match is None or (match[3] and not match[2]):
            raise UsageError(f"{name} is {size!r}; give a number of bytes or text such as '256MB'.")
        factors = _BINARY if match[3] else _FACTORS
        value = int(float(match[1]) * factors.get(match[2].lower(), 1))
    if value <= 0:
        raise UsageError(f"{name} is {size!r}; it must be at least 1 byte.")
    return value


def format_bytes(size: float) -> str:
    """A byte count for people, in powers of 1000.

    >>> format_bytes(1_115_394)
    '1.1 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_count(count: float) -> str:
    """A count for people: thousands below a million, then M and G.

    >>> format_count(7473), format_count(21_600_000)
    ('7,473', '21.6 M')
    """
    if abs(count) < 1_000_000:
        return f"{count:,.0f}"
    if abs(count) < 1_000_000_000:
        return f"{count / 1e6:.1f} M"
    return f"{count / 1e9:.2f} G"
