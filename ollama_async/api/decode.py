"""Decodes the body of a request into its Struct, within bounds and as leniently as Ollama does.

The fast path is msgspec with unknown fields forbidden: exact names, right types, UTF-8. What it
refuses, and what is too much for one call, is read as Go reads it: :mod:`.gocompat.json_scan`, then
:mod:`.gocompat.json_decode`. Large images are replaced before and restored afterwards. They may be
base64 or data URLs: a translation of another protocol's request sees short ones in their place, and
they are restored in what it made (:func:`decode_apart`).

A call into C holds the interpreter, and so blocks the event loop, from whatever thread. So values
are counted first, and the limits are such that one call takes some milliseconds, at worst 20.
"""

from __future__ import annotations

import binascii
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import msgspec

from ollama_async.core.errors import BadRequest, ServerError, TooLarge
from ollama_async.core.json_depth import WINDOW_BYTES, is_deep, outline
from ollama_async.gocompat.json_decode import from_base64, unmarshal
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

LARGE_IMAGE_BYTES = 64 << 10
"""Of base64. Smaller images are decoded with the rest."""

_AT = " - at `"
_SHOWN_CHARACTERS = 200  # of an error

_START = re.compile(
    rb'(?<!\\)"(?:data:[-A-Za-z0-9.+;=/\\ ]{0,80};base64,)?(?=(?:\\?[A-Za-z0-9+/]){16})'
)
_START_BYTES = 140  # a match with its lookahead
_RUN = re.compile(rb"[A-Za-z0-9+/]*+(?:\\[/nr][A-Za-z0-9+/]*+)*+")
_END = re.compile(rb'((?:=|\\[nr])*+)"')
_ESCAPES = ((rb"\/", b"/"), (rb"\n", b"\n"), (rb"\r", b"\r"))
_LINE_ENDS = b"\r\n"

Images = dict[bytes, bytearray]
"""By the bytes that replace them."""

_KEY_BYTES = 18  # no image is as short

_packer = msgspec.msgpack.Encoder()
_plain_decoder = msgspec.json.Decoder()


def decode(body: bytes, kind: type[T]) -> T:
    """The first JSON value of ``body`` as ``kind``: a Struct with ``forbid_unknown_fields``; or one
    that ``is_exact``, in which names and types are as declared, ``null`` is a value, unknown fields
    are ignored, and errors name the place.

    The result nests at most :data:`~ollama_async.core.json_depth.MAX_DEPTH` levels deep and holds
    no integer beyond 64 bits, so that it can be packed. Time is linear: about 2 ns per byte on the
    fast path, up to 1 µs per JSON token on the other. Decode more than some 64 KiB in a thread.

    :raises BadRequest: with Go's text, or because there are too many values. A ``kind`` with an
        ``image_error`` has that before what is said of a large image.
    :raises TooLarge: over :data:`TEXT_LIMIT_BYTES`, not counting images. A ``kind`` with a
        ``body_limit_bytes`` has a limit of its own, for all of it.
    """
    request, images = decode_apart(body, kind)
    restore_images([request], images)
    return request


def decode_apart(body: bytes, kind: type[T]) -> tuple[T, Images]:
    """As :func:`decode`, but with the large images apart. In their place the request has the base64
    of their keys, alone or in a data URL. Pass what was made of the request to
    :func:`restore_images`.
    """
    if len(body) <= getattr(kind, "body_limit_bytes", TEXT_LIMIT_BYTES):
        return _decode(body, kind), {}
    body, images = replace_images(body, TEXT_LIMIT_BYTES, getattr(kind, "image_error", ""))
    with quoting(images):
        return _decode(body, kind), images


@contextmanager
def quoting(images: Images) -> Iterator[None]:
    """Errors raised within it quote the beginning of a large image, not what is in its place."""
    try:
        yield
    except ServerError as error:
        for key, image in images.items():
            shown = _base64(image[:_KEY_BYTES]) + b"..."
            error.message = error.message.replace(_base64(key).decode(), shown.decode())
        raise


def _base64(data: bytes | bytearray) -> bytes:
    return binascii.b2a_base64(data, newline=False)


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
    value = scan(body)
    return _convert(value, kind) if getattr(kind, "is_exact", False) else unmarshal(value, kind)


def _convert(value: Any, kind: type[T]) -> T:
    """Plain JSON ``value`` as a ``kind`` that ``is_exact``.

    :raises BadRequest: ``messages.0.content: Expected `str | array`, got `int` ``.
    """
    try:
        return msgspec.convert(value, kind)
    except ValueError as error:
        what, _, path = str(error).partition(_AT)
        place = path.rstrip("`").lstrip("$.").replace("[", ".").replace("]", "")
        what = what[:_SHOWN_CHARACTERS]
        raise BadRequest(f"{place}: {what}" if place else what) from None


def decode_object(text: str) -> dict[str, Any]:
    """The JSON object in a text, such as the arguments of a tool call; bounded as :func:`decode`.

    :raises ValueError: it is something else.
    :raises BadRequest: it holds too many values.
    """
    body = text.encode()
    value: Any = None
    if not fits_one_call(body):
        value = _scanned(body)
    else:
        try:
            value = _plain_decoder.decode(body)
            _packer.encode(value)
        except (OverflowError, RecursionError) as reason:
            raise ValueError(str(reason)) from None
    if not isinstance(value, dict) or is_deep(body):
        raise ValueError("not an object, or too deep")
    return value


def _scanned(body: bytes) -> Any:
    try:
        return scan(body)
    except BadRequest as reason:
        raise ValueError(reason.message) from None


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


# large images
#
# An image is a whole string of the JSON document, base64 or a data URL with it: it starts after a
# quote that no backslash precedes and ends at the next quote. Such a quote cannot be inside a
# string, and no letter may follow the end of one. Work is done in windows, so that no call holds
# the interpreter for long.


def replace_images(body: bytes, limit_bytes: int, error: str = "") -> tuple[bytes, Images]:
    """``body`` with a short string in place of each large image.

    :raises TooLarge: without them it is over ``limit_bytes``.
    :raises BadRequest: an image is not base64: ``error`` and Go's text.
    """
    images: Images = {}
    kept: list[bytes] = []
    kept_bytes = at = looked_at = 0
    while looked_at < len(body):
        start = _START.search(body, looked_at, looked_at + WINDOW_BYTES + _START_BYTES)
        run_end = _run_end(body, start.end()) if start else 0
        is_large = start is not None and run_end - start.end() >= LARGE_IMAGE_BYTES
        end = _END.match(body, run_end) if is_large else None
        if start is None:
            looked_at += WINDOW_BYTES
        elif end is None:
            looked_at = run_end
        else:
            token = secrets.token_bytes(_KEY_BYTES)
            try:
                images[token] = _decoded(body, start.end(), run_end, end[1])
            except ValueError as reason:
                raise BadRequest(f"{error}{reason}") from None
            kept += [body[at : start.end()], _base64(token)]
            kept_bytes += start.end() - at
            at = looked_at = end.end() - 1
            looked_at += 1
        if kept_bytes + looked_at - at > limit_bytes + WINDOW_BYTES:
            raise _too_large(limit_bytes)
    kept.append(body[at:])
    rest = b"".join(kept)
    if len(rest) > limit_bytes:
        raise _too_large(limit_bytes)
    return rest, images


def has_large_images(holders: Sequence[Any]) -> bool:
    """Whether large images are still apart from ``images`` of these."""
    return any(len(image) == _KEY_BYTES for holder in holders for image in holder.images)


def restore_images(requests: Sequence[Any], images: Images) -> None:
    """In the ``images`` of Ollama's requests and of their messages, in place; several requests may
    share messages.

    :raises TooLarge: some replaced text elsewhere.
    """
    missing = set(images)
    for request in requests if images else ():
        for holder in (request, *getattr(request, "messages", ())):
            if given := getattr(holder, "images", None):
                missing.difference_update(each for each in given if isinstance(each, bytes))
                holder.images = [
                    images.get(each, each) if isinstance(each, bytes) else each for each in given
                ]
    if missing:
        raise _too_large(TEXT_LIMIT_BYTES)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"request body without its images is over the limit of {limit_bytes} bytes")


def _run_end(body: bytes, at: int) -> int:
    """Where the run of base64 and JSON escapes that contains ``at`` ends."""
    while True:
        match = _RUN.match(body, at, at + WINDOW_BYTES)
        assert match
        if match.end() == at:
            return at
        at = match.end()


def _decoded(body: bytes, start: int, end: int, padding: bytes) -> bytearray:
    """The bytes of one image, whose letters are known to be those of base64.

    :raises ValueError: with Go's text.
    """
    image = bytearray()  # grows by moving pages; allocated whole, it would be zeroed in one call
    rest, seen = b"", 0
    while start < end:
        stop = min(start + WINDOW_BYTES, end)
        stop += body[stop - 1] == ord("\\")
        text = rest + _unescaped(body[start:stop])
        letters = text.translate(None, _LINE_ENDS)
        cut = _before_last(text, len(letters) % 4)
        image += binascii.a2b_base64(letters[: len(letters) // 4 * 4])
        rest, seen, start = text[cut:], seen + cut, stop
    image += from_base64((rest + _unescaped(padding)).decode(), offset=seen)
    return image


def _unescaped(text: bytes) -> bytes:
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text


def _before_last(text: bytes, letters: int) -> int:
    """Where the last ``letters`` letters begin."""
    at = len(text)
    while letters:
        at -= 1
        letters -= text[at] not in _LINE_ENDS
    return at
