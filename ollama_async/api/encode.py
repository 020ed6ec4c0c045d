"""Responses as bytes: whole objects, and the one line per token that has to be cheap.

Times are RFC 3339 with nanoseconds, trailing zeros trimmed, as Go prints them. Text is escaped by
msgspec; Go also escapes ``<``, ``>`` and ``&``, which means the same to every JSON reader.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

import msgspec

_to_json = msgspec.json.Encoder().encode
_FOREVER_S = math.floor(time.time() + 2**63 / 1e9)  # the same moment whenever it is asked for
_YEAR_9999_S = 253_370_764_800


def to_json(value: object) -> bytes:
    """One compact JSON value, without a line end."""
    return _to_json(value)


def to_line(value: object) -> bytes:
    """One NDJSON line."""
    return _to_json(value) + b"\n"


def utc(nanoseconds: int) -> str:
    """``nanoseconds`` since 1970 as ``2025-01-02T03:04:05.678901234Z``."""
    seconds, below = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}{_fraction(below)}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def now() -> str:
    """The present moment for ``created_at``."""
    return utc(time.time_ns())


def local(seconds: float) -> str:
    """``seconds`` since 1970 with the offset of the local zone, for ``modified_at``.

    ``inf`` is as far ahead as Go's durations reach (292 years): clients show it as "Forever". What
    lies further off, as the times of damaged files may, is brought to the years 1970 to 9998.
    """
    if math.isinf(seconds):
        seconds = _FOREVER_S
    seconds = min(max(seconds, 0), _YEAR_9999_S)
    whole = math.floor(seconds)
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(seconds=whole)
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


class _Clock:
    """The time of token lines, exact to the millisecond: within one, the first reading stands."""

    def __init__(self) -> None:
        self._millisecond = -1
        self._stamp = b""

    def stamp(self) -> bytes:
        nanoseconds = time.time_ns()
        millisecond = nanoseconds // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._stamp = utc(nanoseconds).encode()
        return self._stamp


_stamp = _Clock().stamp


class Lines:
    """NDJSON lines of one answer that carry one text and nothing else, about 0.5 µs each."""

    def __init__(self, model: str, before_text: bytes, after_text: bytes) -> None:
        self._head = b'{"model":' + _to_json(model) + b',"created_at":"'
        self._before_text = before_text
        self._after_text = after_text

    @classmethod
    def generate(cls, model: str) -> Lines:
        """Lines of ``/api/generate``: the text is ``response``."""
        return cls(model, b'","response":', b',"done":false}\n')

    @classmethod
    def chat(cls, model: str) -> Lines:
        """Lines of ``/api/chat``: the text is ``message.content``."""
        before = b'","message":{"role":"assistant","content":'
        return cls(model, before, b'},"done":false}\n')

    @classmethod
    def generate_thinking(cls, model: str) -> Lines:
        """The text is ``thinking``."""
        return cls(model, b'","response":"","thinking":', b',"done":false}\n')

    @classmethod
    def chat_thinking(cls, model: str) -> Lines:
        """The text is ``message.thinking``."""
        before = b'","message":{"role":"assistant","content":"","thinking":'
        return cls(model, before, b'},"done":false}\n')

    def line(self, text: str) -> bytes:
        """One whole line, with its line end."""
        return b"".join((self._head, _stamp(), self._before_text, _to_json(text), self._after_text))
