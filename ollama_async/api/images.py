"""Replaces the images of a large body before it is decoded, and restores them afterwards.

An image is a whole base64 string of the JSON document: it starts after a quote that no backslash
precedes and ends at the next quote. Such a quote cannot be inside of a string, and no letter may
follow the end of one. All work is done in windows, so that no call holds the interpreter for long.
"""

from __future__ import annotations

import binascii
import re
import secrets
from typing import Any

from ollama_async.core.errors import BadRequest, TooLarge
from ollama_async.core.json_depth import WINDOW_BYTES
from ollama_async.gocompat.json_decode import from_base64

LEAST_BYTES = 64 << 10
"""Of base64. Smaller images are not replaced."""

_START = re.compile(rb'(?<!\\)"(?=(?:\\?[A-Za-z0-9+/]){16})')
_START_BYTES = 40  # a match with its lookahead
_RUN = re.compile(rb"[A-Za-z0-9+/]*+(?:\\[/nr][A-Za-z0-9+/]*+)*+")
_END = re.compile(rb'((?:=|\\[nr])*+)"')
_ESCAPES = ((rb"\/", b"/"), (rb"\n", b"\n"), (rb"\r", b"\r"))
_LINE_ENDS = b"\r\n"

Images = dict[bytes, bytearray]
"""By the bytes that replace them."""


def replace_images(body: bytes, limit_bytes: int) -> tuple[bytes, Images]:
    """``body`` with a short string in place of each large image.

    :raises TooLarge: without them it is over ``limit_bytes``.
    :raises BadRequest: an image is not base64, with Go's text.
    """
    images: Images = {}
    kept: list[bytes] = []
    kept_bytes = at = looked_at = 0
    while looked_at < len(body):
        start = _START.search(body, looked_at, looked_at + WINDOW_BYTES)
        run_end = _run_end(body, start.end()) if start else 0
        end = _END.match(body, run_end) if start and run_end - start.end() >= LEAST_BYTES else None
        if start is None:
            looked_at += WINDOW_BYTES - _START_BYTES
        elif end is None:
            looked_at = run_end
        else:
            token = secrets.token_bytes(18)
            images[token] = _decoded(body, start.end(), run_end, end[1])
            kept += [body[at : start.end()], binascii.b2a_base64(token, newline=False)]
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


def restore_images(request: Any, images: Images, limit_bytes: int) -> None:
    """In the request and its messages. :raises TooLarge: some replaced text elsewhere."""
    for holder in (request, *getattr(request, "messages", ())):
        if given := getattr(holder, "images", None):
            holder.images = [images.pop(each, each) for each in given]
    if images:
        raise _too_large(limit_bytes)


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
    """The bytes of one image, whose letters are known to be those of base64."""
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
    try:
        image += from_base64((rest + _unescaped(padding)).decode(), offset=seen)
    except ValueError as reason:
        raise BadRequest(str(reason)) from None
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
