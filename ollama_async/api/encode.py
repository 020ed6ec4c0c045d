"""Responses as bytes: whole objects, and the one line per token that has to be cheap.

Times are RFC 3339 with nanoseconds, trailing zeros trimmed, as Go prints them. Text is escaped by
msgspec; Go also escapes ``<``, ``>`` and ``&``, which means the same to every JSON reader.
"""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone

import msgspec

_to_json = msgspec.json.Encoder().encode
_FOREVER_NS = 2**63 - 1


def to_json(value: object) -> bytes:
    """One compact JSON value, without a line end."""
    return _to_json(value)


def to_line(value: object) -> bytes:
    """One NDJSON line."""
    return _to_json(value) + b"\n"


def utc(nanoseconds: int) -> str:
    """``nanoseconds`` since 1970 as ``2025-01-02T03:04:05.678901234Z``."""
    seconds, below = divmod(nanoseconds, 1_000_000_000)
    t = time.gmtime(seconds)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}"
        f"T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}{_fraction(below)}Z"
    )


def now() -> str:
    """The present moment for ``created_at``."""
    return utc(time.time_ns())


def local(seconds: float) -> str:
    """``seconds`` since 1970 with the offset of the local zone, for ``modified_at``.

    ``inf`` is as far ahead as Go's durations reach (292 years): clients show it as "Forever".
    """
    if math.isinf(seconds):
        seconds = time.time() + _FOREVER_NS / 1e9
    whole = math.floor(seconds)
    moment = datetime.fromtimestamp(0, tz=timezone.utc) + timedelta(seconds=whole)
    try:
        offset = time.localtime(whole).tm_gmtoff
    except (OverflowError, OSError):
        offset = 0
    moment = moment.astimezone(timezone(timedelta(seconds=offset)))
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S") + _fraction(round((seconds - whole) * 1e9))
    if not offset:
        return stamp + "Z"
    minutes = abs(offset) // 60
    return f"{stamp}{'+' if offset > 0 else '-'}{minutes // 60:02d}:{minutes % 60:02d}"


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""


class Lines:
    """NDJSON lines of one answer that carry text and nothing else, about 0.5 µs each.

    The time of a line is exact to the millisecond: within one, the first line's time is reused.
    """

    def __init__(self, head: bytes, middle: bytes, tail: bytes) -> None:
        self._head = head
        self._middle = middle
        self._tail = tail
        self._millisecond = -1
        self._before_text = b""

    @classmethod
    def generate(cls, model: str) -> Lines:
        """Lines of ``/api/generate``: the text is ``response``."""
        head = b'{"model":' + _to_json(model) + b',"created_at":"'
        return cls(head, b'","response":', b',"done":false}\n')

    @classmethod
    def chat(cls, model: str) -> Lines:
        """Lines of ``/api/chat``: the text is ``message.content``."""
        head = b'{"model":' + _to_json(model) + b',"created_at":"'
        middle = b'","message":{"role":"assistant","content":'
        return cls(head, middle, b'},"done":false}\n')

    def line(self, text: str) -> bytes:
        """One whole line, with its line end."""
        nanoseconds = time.time_ns()
        millisecond = nanoseconds // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._before_text = self._head + utc(nanoseconds).encode() + self._middle
        return self._before_text + _to_json(text) + self._tail
