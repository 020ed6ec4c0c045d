"""Reading what a client sends: bounded in size, alone and together, bounded in time, decoded where
it cannot hurt.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import RequestPayloadError

from ollama_async.api.decode import decode
from ollama_async.errors import BadRequest, Busy, TooLarge

T = TypeVar("T", bound=msgspec.Struct)

BODY_LIMIT_BYTES = 256 << 20
"""Of a JSON body: some dozens of photographs in base64. Blobs have no limit but the disk."""

BODIES_LIMIT_BYTES = 1 << 30
"""Of all large JSON bodies whose requests are not answered yet: what waits holds its texts."""

LARGE_BYTES = 64 << 10
"""Smaller bodies are taken whatever the others hold."""

OFF_LOOP_BYTES = 16 << 10
"""Bodies above are decoded in a thread. An ordinary body of this size takes 20 µs, one that is made
to be slow 8 ms (half a microsecond a byte), which is as long as the loop may be held up."""

_HELD = web.RequestKey("held", int)
_DECODED_AT_ONCE = 2  # they would only take the interpreter from each other and from the loop

GRACE_S = 30.0
SLOWEST_BYTES_PER_S = 8 << 10
"""An upload may make us wait ``GRACE_S`` in all, plus a second for every 8 KiB that came (never
more than ``GRACE_S`` at a time): a modem passes, a client that drips bytes to hold memory and a
connection does not."""


class Bodies:
    """The large bodies that a server holds; one for each application."""

    def __init__(self) -> None:
        self._held_bytes = 0
        self._decoding = asyncio.Semaphore(_DECODED_AT_ONCE)

    def hold(self, request: web.Request, size: int) -> None:
        """The body of ``request`` has ``size`` bytes now.

        :raises Busy: all together would be more than :data:`BODIES_LIMIT_BYTES`.
        """
        grown = size - request.get(_HELD, 0)
        if self._held_bytes + grown > BODIES_LIMIT_BYTES:
            raise Busy("server busy, please try again: too many large requests at once")
        self._held_bytes += grown
        request[_HELD] = size

    def release(self, request: web.Request) -> None:
        """``request`` has been answered, one way or another; nothing happens if it held nothing."""
        self._held_bytes -= request.pop(_HELD, 0)

    async def decode(self, body: bytes, kind: type[T]) -> T:
        """As :func:`~ollama_async.api.decode.decode`, in a thread if it could take long."""
        if len(body) <= OFF_LOOP_BYTES:
            return decode(body, kind)
        async with self._decoding:
            return await asyncio.to_thread(decode, body, kind)


BODIES: web.AppKey[Bodies] = web.AppKey("bodies", Bodies)


class Upload:
    """The body of one request, chunk by chunk, under the deadline described above.

    Only time spent waiting for the client counts: a slow disk does not cost the client its upload.
    """

    def __init__(self, request: web.Request, grace_s: float | None = None) -> None:
        self._content = request.content
        self._grace_s = GRACE_S if grace_s is None else grace_s
        self._allowance_s = self._grace_s

    async def next_chunk(self) -> bytes:
        """The bytes that are there, at least one; ``b""`` at the end.

        :raises BadRequest: the client is too slow, or its transfer encoding is broken.
        :raises ConnectionResetError: the client left.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._allowance_s):
                chunk = await self._content.readany()
        except TimeoutError:
            raise BadRequest("timed out reading the request body") from None
        except (RequestPayloadError, ContentEncodingError):
            raise BadRequest("unreadable request body") from None
        left = self._allowance_s - (loop.time() - began) + len(chunk) / SLOWEST_BYTES_PER_S
        self._allowance_s = min(self._grace_s, left)
        return chunk


async def read_json(request: web.Request, kind: type[T]) -> T:
    """The request's body as ``kind``. May be cancelled at any time. The boundary releases what it
    holds.

    :raises BadRequest: no body, or not one that ``kind`` accepts; Ollama's words.
    :raises TooLarge: over :data:`BODY_LIMIT_BYTES`.
    :raises Busy: over :data:`BODIES_LIMIT_BYTES` together with others.
    """
    bodies = request.app[BODIES]
    body = await _read(request, bodies)
    if not body.strip():
        raise BadRequest("missing request body")
    return await bodies.decode(body, kind)


async def _read(request: web.Request, bodies: Bodies) -> bytes:
    limit = BODY_LIMIT_BYTES
    if (request.content_length or 0) > limit:
        raise TooLarge(f"request body is over the limit of {limit} bytes")
    upload = Upload(request)
    chunks: list[bytes] = []
    size = 0
    while chunk := await upload.next_chunk():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"request body is over the limit of {limit} bytes")
        if size > LARGE_BYTES:
            bodies.hold(request, size)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
