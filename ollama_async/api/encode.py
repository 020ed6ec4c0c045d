"""Encodes responses: JSON values, NDJSON lines, server-sent events, times, and long answers.

Times are RFC 3339 with nanoseconds, trailing zeros trimmed, as Go prints them. Text is escaped by
msgspec; Go also escapes ``<``, ``>`` and ``&``, which means the same to every JSON reader.

A call into C holds the interpreter until it returns, and one that copies a hundred megabytes takes
a tenth of a second. So :class:`LongParts` encodes long answers piece by piece, in a thread, and the
event loop runs in between.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import msgspec

from ollama_async.core.errors import ServerError

LONG_TEXT_CHARACTERS = 64 << 10
"""Longer texts are long parts; encoding this many characters takes 0.5 ms at worst."""

GROUP_SIZE = 64
"""Elements of a list that are encoded together."""

_encode = msgspec.json.Encoder().encode

_LINE_ENDS = {text.encode(): b"\\u%04x" % ord(text) for text in ("\u0085", "\u2028", "\u2029")}
"""What JSON may contain as it is, and Python's ``str.splitlines`` takes for the end of a line."""

_FOREVER_S = math.floor(time.time() + 2**63 / 1e9)  # constant, so that equal rows stay equal
_YEAR_9999_S = 253_370_764_800


def to_json(value: object) -> bytes:
    """One compact JSON value, without a line end. Escaped is whatever clients that read a stream
    line by line might take for one: `ollama` for Python splits lines as ``str.splitlines`` does.
    """
    data = _encode(value)
    return data if data.isascii() else _without_line_ends(data)


def _without_line_ends(data: bytes) -> bytes:
    for raw, escaped in _LINE_ENDS.items():
        data = data.replace(raw, escaped)
    return data


def to_line(value: object) -> bytes:
    """One NDJSON line."""
    return to_json(value) + b"\n"


def to_event(value: object, name: str = "") -> bytes:
    """One server-sent event, with a name if there is one."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (head, to_json(value))


def list_pieces(items: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON list of ``items``, which are JSON already."""
    before = b"["
    for item in items:
        yield before + item
        before = b","
    yield b"[]" if before == b"[" else b"]"


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

    ``inf`` is as far ahead as Go's durations reach (292 years): clients show it as "Forever". Other
    times, such as those of damaged files, are clamped to the years 1970 to 9998.
    """
    if math.isinf(seconds):
        seconds = _FOREVER_S
    seconds = min(max(seconds, 0), _YEAR_9999_S)
    whole = math.floor(seconds)
    try:
        offset = time.localtime(whole).tm_gmtoff
    except (OverflowError, OSError):
        offset = 0
    moment = datetime.fromtimestamp(whole, timezone(timedelta(seconds=offset)))
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S") + _fraction(round((seconds - whole) * 1e9))
    if not offset:
        return stamp + "Z"
    minutes = abs(offset) // 60
    return f"{stamp}{'+' if offset > 0 else '-'}{minutes // 60:02d}:{minutes % 60:02d}"


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""


def token_stamp() -> bytes:
    """The present moment for the ``created_at`` of a token, read once in each millisecond."""
    return _read_clock(time.time_ns() // 1_000_000)


@lru_cache(maxsize=1)
def _read_clock(_millisecond: int) -> bytes:
    return now().encode()


class LongParts:
    """The long parts of one answer. Until all is encoded, a placeholder stands for each: a random
    word, which nothing else in the answer can contain.
    """

    def __init__(self) -> None:
        self._parts: dict[bytes, str | list[Any] | Iterable[bytes]] = {}

    def text(self, text: str) -> str:
        """A placeholder for ``text`` within a string; a short text itself."""
        return self._replace(text) if len(text) > LONG_TEXT_CHARACTERS else text

    def value(self, value: Any) -> Any:
        """As :meth:`text`, for any value; lists count as well."""
        if isinstance(value, list) and len(value) > GROUP_SIZE:
            return msgspec.Raw(self._replace(value).encode())
        return self.text(value) if isinstance(value, str) else value

    def encoded(self, pieces: Iterable[bytes]) -> Any:
        """A placeholder for a value that is the JSON in ``pieces``."""
        return msgspec.Raw(self._replace(pieces).encode())

    def to_json(self, answer: object, limit_bytes: int) -> bytearray:
        """``answer`` as one compact JSON value, with the parts in place of their placeholders.

        :raises ServerError: it would be longer than ``limit_bytes``.
        """
        whole = bytearray()  # grows by moving pages, not by copying them
        for piece in self.pieces(answer):
            whole += piece
            if len(whole) > limit_bytes:
                raise ServerError(f"the answer is over the limit of {limit_bytes} bytes")
        return whole

    def pieces(self, answer: object) -> Iterator[bytes]:
        """As :meth:`to_json`, piece by piece."""
        for word in self._words(to_json(answer)):
            part = self._parts.get(word)
            if part is None:
                yield word
            elif isinstance(part, str):
                yield from text_pieces(part)
            elif isinstance(part, list):
                yield from _list_pieces(part)
            else:
                yield from part

    def _replace(self, part: str | list[Any] | Iterable[bytes]) -> str:
        placeholder = secrets.token_hex(16)
        self._parts[placeholder.encode()] = part
        return placeholder

    def _words(self, short: bytes) -> list[bytes]:
        """``short``, split at the placeholders, which are words of their own."""
        if not self._parts:
            return [short]
        if len(self._parts) > 1:
            return re.split(b"(%b)" % b"|".join(self._parts), short)
        (placeholder,) = self._parts  # to compile a pattern for it would take 0.2 ms
        before, *others = short.split(placeholder)
        return [before, *(word for other in others for word in (placeholder, other))]


def text_pieces(text: str) -> Iterator[bytes]:
    """A string in JSON, without the quotes."""
    for start in range(0, len(text), LONG_TEXT_CHARACTERS):
        yield to_json(text[start : start + LONG_TEXT_CHARACTERS])[1:-1]


def _list_pieces(values: list[Any]) -> Iterator[bytes]:
    before = b"["
    for start in range(0, len(values), GROUP_SIZE):
        group = values[start : start + GROUP_SIZE]
        if any(isinstance(each, str) and len(each) > LONG_TEXT_CHARACTERS for each in group):
            for each in group:
                yield before
                if isinstance(each, str):
                    yield b'"'
                    yield from text_pieces(each)
                    yield b'"'
                else:
                    yield to_json(each)
                before = b","
        else:
            yield before
            yield to_json(group)[1:-1]
            before = b","
    yield b"]"
