"""Nesting depth of JSON texts and values, and its limits."""

from __future__ import annotations

import re

MAX_DEPTH = 250
"""Levels of nesting in a request body. JSON schemas in use have fewer than 30."""

TOOL_DEPTH = 64
"""Levels in tools and in the arguments of calls, which are written and read recursively."""

WINDOW_BYTES = 64 << 10
"""Bytes that one call into C scans, in 7 ms at worst."""

_RUN = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_INSIDE = re.compile(_RUN, re.DOTALL)
_STRINGS = re.compile(rb'"' + _RUN + rb'"|"' + _RUN + rb"(\\?)\Z", re.DOTALL)
_BRACKETS = re.compile(rb"[][{}]")


def is_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether a *valid* JSON document has more than ``limit`` levels."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    depth = 0
    for match in _BRACKETS.finditer(outline(text)):
        if match[0] in {b"[", b"{"}:
            depth += 1
            if depth > limit:
                return True
        else:
            depth -= 1
    return False


def is_deep_value(value: object, limit: int) -> bool:
    """Whether a decoded value has more than ``limit`` levels; this also bounds the recursion."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return limit <= 0 or any(is_deep_value(each, limit - 1) for each in value)


def outline(text: bytes) -> bytes:
    """``text`` without its strings, scanned in windows of :data:`WINDOW_BYTES`."""
    parts: list[bytes] = []
    at = 0
    while at < len(text):
        pieces = _STRINGS.split(text[at : at + WINDOW_BYTES])
        parts.append(b"".join(pieces[::2]))
        at += WINDOW_BYTES
        if len(pieces) > 1 and pieces[-2] is not None:  # the last string ends in a later window
            at = _after_string(text, at - len(pieces[-2]))
    return b"".join(parts)


def _after_string(text: bytes, at: int) -> int:
    """Offset after the string that contains ``at``, which is not inside an escape."""
    while True:
        match = _INSIDE.match(text, at, at + WINDOW_BYTES)
        assert match
        if text[match.end() : match.end() + 1] == b'"':
            return match.end() + 1
        if match.end() == at:
            return len(text)
        at = match.end()
