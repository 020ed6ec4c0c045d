"""Parses and formats Go's durations (``1h30m``, ``5m0s``, ``45.6ms``).

The grammar and the error texts are those of Go's ``time`` package, because clients print them.
Durations are whole nanoseconds in a signed 64-bit range. Unlike in Go, their text has a limit.
"""

from __future__ import annotations

import re
from fractions import Fraction

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC: Go accepts both spellings
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
_MAX_NS = 2**63 - 1
_LONGEST = 256
_PART = re.compile(r"([0-9]*(?:\.[0-9]*)?)([^.0-9]*)")


def parse(text: str) -> int:
    """Nanoseconds of a Go duration.

    :raises ValueError: with Go's text, e.g. ``time: missing unit in duration "300"``; or the text
        is longer than any real duration.
    """
    if len(text) > _LONGEST:
        raise ValueError(f'time: invalid duration "{text[:40]}…"')
    quoted = f'"{text}"'
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text.startswith(("-", "+")) else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"time: invalid duration {quoted}")
    total = Fraction(0)
    while rest:
        part = _PART.match(rest)
        digits, unit = part.groups() if part else ("", "")
        if digits in {"", "."}:
            raise ValueError(f"time: invalid duration {quoted}")
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted}")
        if unit not in _UNIT_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration {quoted}')
        rest = rest[len(digits) + len(unit) :]
        total += Fraction(f"0{digits}0" if "." in digits else digits) * _UNIT_NS[unit]
        if total > _MAX_NS + 1:
            raise ValueError(f"time: invalid duration {quoted}")
    nanoseconds = sign * int(total)
    if nanoseconds > _MAX_NS:
        raise ValueError(f"time: invalid duration {quoted}")
    return nanoseconds


def show(nanoseconds: int) -> str:
    """``nanoseconds`` as Go prints them: ``0s``, ``1.5µs``, ``45.6ms``, ``1.2345s``, ``5m0s``."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    seconds, below = divmod(rest, _UNIT_NS["s"])
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds * _UNIT_NS['s'] + below, _UNIT_NS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(value: int, size: int) -> str:
    whole, fraction = divmod(value, size)
    if not fraction:
        return str(whole)
    digits = len(str(size)) - 1
    return f"{whole}.{fraction:0{digits}d}".rstrip("0")
