"""What a JSON body may hold, counted before it is decoded.

A call into C keeps the interpreter to itself until it is done, so whatever thread makes it, the
event loop waits for it. The limits here are such that one call takes some milliseconds, at worst
20; and the calls that count look at one window of the body each.
"""

from __future__ import annotations

import re

from ollama_async.core.errors import BadRequest

TEXT_LIMIT_BYTES = 8 << 20
"""Of what is asked of a model, without images: two million tokens, and no template makes more. A
worker gets it as one message, and packing takes up to 1.5 ns a byte."""

STRING_LIMIT_BYTES = 9 << 20
"""Of one string. A text may need four bytes for each of its letters because of one that does."""

VALUES_LIMIT = 500_000
"""Two bytes can cost an object of sixty, which takes up to 20 ns to be packed or freed."""

NODES_LIMIT = 1 << 17
"""Objects, arrays and names in objects among them."""

CALL_BYTES = 2 << 20
"""What one call may decode: up to 1.5 ns a byte,"""
CALL_VALUES = 1 << 18
"""up to 35 ns for a small value,"""
CALL_NODES = 1 << 15
"""and up to 200 ns for an object, an array or a name."""

FOREIGN_LIMIT_BYTES = 1 << 20
"""Bytes that are no UTF-8. Each becomes a mark of three."""

MAX_DEPTH = 250
"""Levels of nesting. JSON schemas in use have fewer than 30."""

WINDOW_BYTES = 64 << 10
"""As much of a body as one call looks at: 7 ms at worst."""

_RUN = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_INSIDE = re.compile(_RUN, re.DOTALL)
_STRINGS = re.compile(rb'"' + _RUN + rb'"|"' + _RUN + rb"(\\?)\Z", re.DOTALL)
_BRACKETS = re.compile(rb"[][{}]")


def fits_one_call(body: bytes) -> bool:
    """Whether it may be decoded at once.

    :raises BadRequest: over :data:`VALUES_LIMIT` or :data:`NODES_LIMIT`.
    """
    if len(body) <= CALL_NODES:
        return True
    nodes, values = _counted(body)
    if nodes > CALL_NODES or values > CALL_VALUES:
        nodes, values = _counted(outline(body))
    if nodes > NODES_LIMIT or values > VALUES_LIMIT:
        raise BadRequest("the request body holds too many JSON values")
    return len(body) <= CALL_BYTES and nodes <= CALL_NODES and values <= CALL_VALUES


def check_text(body: bytes) -> None:
    """:raises BadRequest: over :data:`FOREIGN_LIMIT_BYTES`."""
    if len(body) <= FOREIGN_LIMIT_BYTES:
        return
    foreign = 0
    for at in range(0, len(body), WINDOW_BYTES):
        window = body[at : at + WINDOW_BYTES]
        foreign += len(window) - len(window.decode(errors="ignore").encode())
        if foreign > FOREIGN_LIMIT_BYTES:
            raise BadRequest("the request body is not UTF-8")


def is_deep(body: bytes) -> bool:
    """Whether a *valid* JSON document nests deeper than :data:`MAX_DEPTH`."""
    if _opened(body) <= MAX_DEPTH:
        return False
    depth = 0
    for match in _BRACKETS.finditer(outline(body)):
        if match[0] in {b"[", b"{"}:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        else:
            depth -= 1
    return False


def outline(body: bytes) -> bytes:
    """``body`` without its strings."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        pieces = _STRINGS.split(body[at : at + WINDOW_BYTES])
        parts.append(b"".join(pieces[::2]))
        at += WINDOW_BYTES
        if len(pieces) > 1 and pieces[-2] is not None:  # the last string ends further on
            at = _after_string(body, at - len(pieces[-2]))
    return b"".join(parts)


def _after_string(body: bytes, at: int) -> int:
    """Where the string ends that ``at`` is in, and not in the middle of an escape."""
    while True:
        match = _INSIDE.match(body, at, at + WINDOW_BYTES)
        assert match
        if body[match.end() : match.end() + 1] == b'"':
            return match.end() + 1
        if match.end() == at:
            return len(body)
        at = match.end()


def _counted(text: bytes) -> tuple[int, int]:
    """Nodes, and values with them; too many if there are strings in the text."""
    nodes = _opened(text) + text.count(b":")
    return nodes, nodes + text.count(b",")


def _opened(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")
