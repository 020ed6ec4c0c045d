"""Decodes the body of a request into its Struct, within bounds and as leniently as Ollama does.

The fast path is msgspec with unknown fields forbidden: exact names, right types, UTF-8. What it
refuses, and what is too much for one call, is read as Go reads it: :mod:`.gocompat.json_scan`, then
:mod:`.gocompat.json_decode`.

A call into C holds the interpreter until it returns. Whatever thread makes it, the event loop waits
for it. So values are counted first, and the limits are such that one call takes some milliseconds,
at worst 20.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import msgspec

from ollama_async.api.images import replace_images, restore_images
from ollama_async.core.errors import BadRequest
from ollama_async.core.json_depth import WINDOW_BYTES, is_deep, outline
from ollama_async.gocompat.json_decode import unmarshal
from ollama_async.gocompat.json_scan import scan

T = TypeVar("T", bound=msgspec.Struct)

TEXT_LIMIT_BYTES = 8 << 20
"""Of a body for a model, without images: two million tokens, and no template makes more. A worker
receives it as one message, and packing takes up to 1.5 ns per byte."""

VALUES_LIMIT = 500_000
"""Two bytes can become an object of sixty, which takes up to 20 ns to be packed or freed."""

NODES_LIMIT = 1 << 17
"""Of objects, arrays and names in objects."""

CALL_BYTES = 2 << 20
"""Of what one call may decode: up to 1.5 ns per byte,"""
CALL_VALUES = 1 << 18
"""up to 35 ns for a small value,"""
CALL_NODES = 1 << 15
"""and up to 200 ns for an object, an array or a name."""

INVALID_LIMIT_BYTES = 1 << 20
"""Of bytes that are not UTF-8. Each becomes a replacement character of three bytes."""

_packer = msgspec.msgpack.Encoder()


def decode(body: bytes, kind: type[T]) -> T:
    """The first JSON value of ``body`` as ``kind`` (a Struct with ``forbid_unknown_fields``).

    The result nests at most :data:`~ollama_async.core.json_depth.MAX_DEPTH` levels deep and holds
    no integer beyond 64 bits, so that it can be packed. Time is linear: about 2 ns per byte on the
    fast path, up to 1 µs per JSON token on the other. Decode more than some 64 KiB in a thread.

    :raises BadRequest: with Go's text, or because there are too many values.
    :raises TooLarge: over :data:`TEXT_LIMIT_BYTES`, not counting images. A ``kind`` with a
        ``body_limit_bytes`` has a limit of its own, for all of it.
    """
    if len(body) <= getattr(kind, "body_limit_bytes", TEXT_LIMIT_BYTES):
        return _decode(body, kind)
    body, images = replace_images(body, TEXT_LIMIT_BYTES)
    request = _decode(body, kind)
    restore_images(request, images, TEXT_LIMIT_BYTES)
    return request


def _decode(body: bytes, kind: type[T]) -> T:
    if fits_one_call(body):
        try:
            request: T = _fast(kind).decode(body)
            _packer.encode(request)  # finds integers that cannot be packed, at once and in C
            if not is_deep(body):
                return request
        except (ValueError, OverflowError, RecursionError):
            pass  # DecodeError, ValidationError and UnicodeDecodeError are ValueErrors
    _check_text(body)
    return unmarshal(scan(body), kind)


@cache
def _fast(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def fits_one_call(body: bytes) -> bool:
    """Whether ``body`` may be decoded in one call.

    :raises BadRequest: over :data:`VALUES_LIMIT` or :data:`NODES_LIMIT`.
    """
    if len(body) <= CALL_NODES:
        return True
    nodes, values = _count(body)
    if nodes > CALL_NODES or values > CALL_VALUES:
        nodes, values = _count(outline(body))
    if nodes > NODES_LIMIT or values > VALUES_LIMIT:
        raise BadRequest("the request body holds too many JSON values")
    return len(body) <= CALL_BYTES and nodes <= CALL_NODES and values <= CALL_VALUES


def _count(text: bytes) -> tuple[int, int]:
    """Nodes, and nodes with other values; too many if there are strings in the text."""
    nodes = text.count(b"[") + text.count(b"{") + text.count(b":")
    return nodes, nodes + text.count(b",")


def _check_text(body: bytes) -> None:
    """:raises BadRequest: over :data:`INVALID_LIMIT_BYTES`."""
    if len(body) <= INVALID_LIMIT_BYTES:
        return
    invalid = 0
    for at in range(0, len(body), WINDOW_BYTES):
        window = body[at : at + WINDOW_BYTES]
        invalid += len(window) - len(window.decode(errors="ignore").encode())
        if invalid > INVALID_LIMIT_BYTES:
            raise BadRequest("the request body is not UTF-8")
