"""How deep JSON nests, in texts and in values. The limits are here; callers raise the errors."""

from __future__ import annotations

import re

MAX_DEPTH = 250
"""Levels of nesting in the body of a request. JSON schemas in use have fewer than 30."""

TOOL_DEPTH = 64
"""Levels in tools and in the arguments of calls: their writers and readers recurse."""

WINDOW_BYTES = 64 << 10
"""As much of a text as one call into C looks at: 7 ms at worst."""

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
    """The same of a decoded value; ``limit`` also bounds the recursion."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return limit <= 0 or any(is_deep_value(each, limit - 1) for each in value)


def outline(text: bytes) -> bytes:
    """``text`` without its strings, made in windows of :data:`WINDOW_BYTES`."""
    parts: list[bytes] = []
    at = 0
    while at < len(text):
        pieces = _STRINGS.split(text[at : at + WINDOW_BYTES])
        parts.append(b"".join(pieces[::2]))
        at += WINDOW_BYTES
        if len(pieces) > 1 and pieces[-2] is not None:  # the last string ends further on
            at = _after_string(text, at - len(pieces[-2]))
    return b"".join(parts)


def _after_string(text: bytes, at: int) -> int:
    """Where the string ends that ``at`` is in, and not in the middle of an escape."""
    while True:
        match = _INSIDE.match(text, at, at + WINDOW_BYTES)
        assert match
        if text[match.end() : match.end() + 1] == b'"':
            return match.end() + 1
        if match.end() == at:
            return len(text)
        at = match.end()
