"""Formats sizes, times, tables and statistics as ``ollama`` prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ollama_async.gocompat import durations

_HOUR_S = 3600
_WEEK_DAYS, _MONTH_DAYS, _YEAR_DAYS = 7, 30, 365
_FOREVER_YEARS = 20
_ZERO_TIME = "0001-01-01T00:00:00Z"


def format_size(count_bytes: int) -> str:
    """``637 MB``, ``1.3 GB``, ``4 GB``: decimal units, one decimal place below ten."""
    if count_bytes < 1000:
        return f"{count_bytes} B"
    unit, scale = next(
        (unit, scale)
        for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3))
        if count_bytes >= scale
    )
    value = count_bytes / scale
    if value >= 10 or value == int(value):
        return f"{int(value)} {unit}"
    return f"{value:.1f} {unit}"


def format_span(seconds: float) -> str:
    """``About a minute``, ``3 weeks``: hours are rounded, other units truncated."""
    whole = int(seconds)
    hours = math.floor(seconds / _HOUR_S + 0.5)
    days = hours // 24
    steps = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (whole < 120, "About a minute"),
        (whole < _HOUR_S, f"{whole // 60} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (days < 14, f"{days} days"),
        (days < 60, f"{days // _WEEK_DAYS} weeks"),
        (days < 730, f"{days // _MONTH_DAYS} months"),
    )
    years = int(seconds / _HOUR_S) // 24 // _YEAR_DAYS
    return next((words for applies, words in steps if applies), f"{years} years")


def format_age(moment: str, now: datetime | None = None) -> str:
    """An RFC 3339 time relative to now: ``2 days ago``, ``4 minutes from now``, ``Forever``."""
    if not moment or moment == _ZERO_TIME:
        return "Never"
    seconds = _seconds_since(moment, now)
    if seconds >= 0:
        return f"{format_span(seconds)} ago"
    if -seconds / _HOUR_S / 24 / _YEAR_DAYS > _FOREVER_YEARS:
        return "Forever"
    return f"{format_span(-seconds)} from now"


def format_expiry(moment: str, now: datetime | None = None) -> str:
    """When a loaded model expires: as :func:`format_age`, but ``Stopping...`` after that time."""
    if moment and moment != _ZERO_TIME and _seconds_since(moment, now) > 0:
        return "Stopping..."
    return format_age(moment, now)


def _seconds_since(moment: str, now: datetime | None) -> float:
    """Seconds from an RFC 3339 time until now; 0 if it is invalid."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return ((now or datetime.now(UTC)) - then).total_seconds()


def format_processor(size_bytes: int, on_gpu_bytes: int) -> str:
    """Where a model is loaded: ``100% GPU``, ``48%/52% CPU/GPU``, ``100% CPU``."""
    if on_gpu_bytes == 0:
        return "100% CPU"
    if on_gpu_bytes == size_bytes:
        return "100% GPU"
    if on_gpu_bytes > size_bytes or size_bytes == 0:
        return "Unknown"
    share = math.floor((size_bytes - on_gpu_bytes) / size_bytes * 100 + 0.5)
    return f"{share}%/{100 - share}% CPU/GPU"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, each followed by four blanks. Rows may differ in length."""
    count = max(map(len, rows), default=0)
    full = [(*row, *("" for _ in range(count - len(row)))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "".join(
        "".join(f"{cell:<{width}}    " for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in full
    )


def format_statistics(last: Mapping[str, Any]) -> str:
    """The statistics of ``--verbose`` from the last object of an answer, without zero values."""

    def whole(name: str) -> int:
        value = last.get(name)
        return value if isinstance(value, int) else 0

    lines = [
        ("total duration:", _duration(whole("total_duration"))),
        ("load duration:", _duration(whole("load_duration"))),
    ]
    for what in ("prompt eval", "eval"):
        field = what.replace(" ", "_")
        count, nanoseconds = whole(f"{field}_count"), whole(f"{field}_duration")
        rate = f"{count / nanoseconds * 1e9:.2f} tokens/s" if nanoseconds > 0 else ""
        lines += [
            (f"{what} count:", f"{count} token(s)" if count > 0 else ""),
            (f"{what} duration:", _duration(nanoseconds)),
            (f"{what} rate:", rate),
        ]
    return "".join(f"{name:<21} {value}\n" for name, value in lines if value)


def _duration(nanoseconds: int) -> str:
    return durations.show(nanoseconds) if nanoseconds > 0 else ""
