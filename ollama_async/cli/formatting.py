"""Numbers and tables as ``ollama`` words them: sizes, times, columns, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ollama_async.gocompat import durations

_HOUR_S = 3600
_DAYS_OF = {"week": 7, "month": 30, "year": 365}
_FAR_AHEAD_YEARS = 20
_ZERO_TIME = "0001-01-01T00:00:00Z"


def size(count_bytes: int) -> str:
    """``637 MB``, ``1.3 GB``, ``4 GB``: decimal units, one decimal below ten."""
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


def span(seconds: float) -> str:
    """``About a minute``, ``3 weeks``: hours are rounded, the rest is cut off."""
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
        (days < 60, f"{days // _DAYS_OF['week']} weeks"),
        (days < 730, f"{days // _DAYS_OF['month']} months"),
    )
    years = int(seconds / _HOUR_S) // 24 // _DAYS_OF["year"]
    return next((words for applies, words in steps if applies), f"{years} years")


def ago(moment: str, now: datetime | None = None) -> str:
    """An RFC 3339 time relative to now: ``2 days ago``, ``4 minutes from now``, ``Forever``."""
    if not moment or moment == _ZERO_TIME:
        return "Never"
    seconds = seconds_since(moment, now)
    if seconds >= 0:
        return f"{span(seconds)} ago"
    if -seconds / _HOUR_S / 24 / 365 > _FAR_AHEAD_YEARS:
        return "Forever"
    return f"{span(-seconds)} from now"


def until(moment: str, now: datetime | None = None) -> str:
    """When a loaded model goes: as :func:`ago`, but ``Stopping...`` once that has passed."""
    if moment and moment != _ZERO_TIME and seconds_since(moment, now) > 0:
        return "Stopping..."
    return ago(moment, now)


def seconds_since(moment: str, now: datetime | None = None) -> float:
    """Seconds from an RFC 3339 time until now; 0 if it cannot be read."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return ((now or datetime.now(UTC)) - then).total_seconds()


def processor(size_bytes: int, on_gpu_bytes: int) -> str:
    """Where a model is: ``100% GPU``, ``48%/52% CPU/GPU``, ``100% CPU``."""
    if on_gpu_bytes == 0:
        return "100% CPU"
    if on_gpu_bytes == size_bytes:
        return "100% GPU"
    if on_gpu_bytes > size_bytes or size_bytes == 0:
        return "Unknown"
    share = math.floor((size_bytes - on_gpu_bytes) / size_bytes * 100 + 0.5)
    return f"{share}%/{100 - share}% CPU/GPU"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns with four blanks behind each; one line per row, header first."""
    return columns([header, *rows])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """As :func:`table`, without a header; rows may be of different lengths."""
    count = max(map(len, rows), default=0)
    full = [(*row, *("" for _ in range(count - len(row)))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "".join(
        "".join(f"{cell:<{width}}    " for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in full
    )


def statistics(last: Mapping[str, Any]) -> str:
    """The block of ``--verbose`` for the last object of an answer; zero values have no line."""

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
