"""Decodes the body of a request into its Struct, as leniently as Ollama does.

The fast path is msgspec with unknown fields forbidden: exact names, right types, UTF-8. What it
refuses, and what is too much for one call, is read as Go reads it: :mod:`.gocompat.json_scan`, then
:mod:`.gocompat.json_decode`.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import msgspec

from ollama_async.api.bounds import TEXT_LIMIT_BYTES, check_text, fits_one_call
from ollama_async.api.images import put_back, take_out
from ollama_async.core.json_depth import is_deep
from ollama_async.gocompat.json_decode import unmarshal
from ollama_async.gocompat.json_scan import scan

T = TypeVar("T", bound=msgspec.Struct)

_packer = msgspec.msgpack.Encoder()


def decode(body: bytes, kind: type[T]) -> T:
    """The first JSON value of ``body`` as ``kind`` (a Struct with ``forbid_unknown_fields``).

    The result nests at most :data:`~ollama_async.core.json_depth.MAX_DEPTH` levels deep and holds
    no integer beyond 64 bits, so that it can be packed. Time is linear: about 2 ns per byte on the
    fast path, up to 1 µs per JSON token on the other. Decode more than some 64 KiB in a thread.

    :raises BadRequest: with Go's text, or because there are too many values.
    :raises TooLarge: over :data:`~ollama_async.api.bounds.TEXT_LIMIT_BYTES`, not counting images. A
        ``kind`` with a ``body_limit_bytes`` has a limit of its own, for all of it.
    """
    if len(body) <= getattr(kind, "body_limit_bytes", TEXT_LIMIT_BYTES):
        return _read(body, kind)
    body, images = take_out(body)
    request = _read(body, kind)
    put_back(request, images)
    return request


def _read(body: bytes, kind: type[T]) -> T:
    if fits_one_call(body):
        try:
            request: T = _fast(kind).decode(body)
            _packer.encode(request)  # in C and at once: finds integers that nobody could pass on
            if not is_deep(body):
                return request
        except (ValueError, OverflowError, RecursionError):
            pass  # DecodeError, ValidationError and UnicodeDecodeError are ValueErrors
    check_text(body)
    return unmarshal(scan(body), kind)


@cache
def _fast(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)
