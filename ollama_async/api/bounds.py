"""What a JSON body may hold, counted before it is decoded.

A call into C keeps the interpreter to itself until it is done, so whatever thread makes it, the
event loop waits for it. The limits here are such that one call takes some milliseconds, at worst
20; and the calls that count look at one window of the body each.
"""

from __future__ import annotations

from ollama_async.core.errors import BadRequest
from ollama_async.core.json_depth import WINDOW_BYTES, outline

TEXT_LIMIT_BYTES = 8 << 20
"""Of what is asked of a model, without images: two million tokens, and no template makes more. A
worker gets it as one message, and packing takes up to 1.5 ns a byte."""

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


def _counted(text: bytes) -> tuple[int, int]:
    """Nodes, and values with them; too many if there are strings in the text."""
    nodes = text.count(b"[") + text.count(b"{") + text.count(b":")
    return nodes, nodes + text.count(b",")
