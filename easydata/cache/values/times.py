"""Dates, times and time zones as JSON arrays of their fields."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

from easydata.cache.values.paths import Path, unsupported

__all__ = ["parse_date", "parse_datetime", "parse_time", "parse_timedelta", "time_node"]


def time_node(value: Any, path: Path) -> dict[str, list[Any]]:
    """The node of a date, time, datetime or timedelta (exactly these types).

    Raises:
        UnsupportedValueError: its time zone is neither a `datetime.timezone` nor a `ZoneInfo` that
            can be found again by its key.
    """
    kind = type(value)
    if kind is dt.timedelta:
        return {"timedelta": _delta(value)}
    if kind is dt.date:
        return {"date": [value.year, value.month, value.day]}
    clock = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    clock.append(_zone_node(value.tzinfo, path))
    if kind is dt.time:
        return {"time": clock}
    return {"datetime": [value.year, value.month, value.day, *clock]}


def _delta(value: dt.timedelta) -> list[Any]:
    return [value.days, value.seconds, value.microseconds]


def _zone_node(zone: dt.tzinfo | None, path: Path) -> Any:
    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        if all(text.isascii() for text in name):
            return [*_delta(offset), *name]
    if type(zone) is zoneinfo.ZoneInfo and _is_known(zone.key):
        return zone.key
    raise unsupported(
        path,
        f"has the time zone {zone!r} ({type(zone).__name__}), which cannot be stored. "
        "Use a datetime.timezone, or a zoneinfo.ZoneInfo with a key.",
    )


def _is_known(key: str | None) -> bool:
    try:
        return key is not None and zoneinfo.ZoneInfo(key) is not None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return False


def parse_date(fields: Any) -> dt.date:
    """A date from [year, month, day]."""
    return dt.date(*fields)


def parse_timedelta(fields: Any) -> dt.timedelta:
    """A timedelta from [days, seconds, microseconds]."""
    days, seconds, microseconds = fields
    return dt.timedelta(days, seconds, microseconds)


def parse_time(fields: Any) -> dt.time:
    """A time from [hour, minute, second, microsecond, fold, zone]."""
    hour, minute, second, microsecond, fold, zone = fields
    return dt.time(hour, minute, second, microsecond, _parse_zone(zone), fold=fold)


def parse_datetime(fields: Any) -> dt.datetime:
    """A datetime from [year, month, day, hour, minute, second, microsecond, fold, zone]."""
    *clock, fold, zone = fields
    year, month, day, hour, minute, second, microsecond = clock
    return dt.datetime(
        year, month, day, hour, minute, second, microsecond, _parse_zone(zone), fold=fold
    )


def _parse_zone(zone: Any) -> dt.tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return zoneinfo.ZoneInfo(zone)
    days, seconds, microseconds, *name = zone
    return dt.timezone(dt.timedelta(days, seconds, microseconds), *name)
