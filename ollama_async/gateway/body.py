"""Reading what a client sends: bounded in size, bounded in time, decoded where it cannot hurt."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import RequestPayloadError

from ollama_async.api.decode import decode
from ollama_async.errors import BadRequest, TooLarge

T = TypeVar("T", bound=msgspec.Struct)

BODY_LIMIT_BYTES = 256 << 20
"""Of a JSON body: some dozens of photographs in base64. Blobs have no limit but the disk."""

OFF_LOOP_BYTES = 1 << 20
"""Bodies above are decoded in a thread: 1 MB takes a few milliseconds."""

GRACE_S = 30.0
SLOWEST_BYTES_PER_S = 8 << 10
"""An upload may make us wait ``GRACE_S`` in all, plus a second for every 8 KiB that came (never
more than ``GRACE_S`` at a time): a modem passes, a client that drips bytes to hold memory and a
connection does not."""


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
    """The request's body as ``kind``. May be cancelled at any time.

    :raises BadRequest: no body, or not one that ``kind`` accepts; Ollama's words.
    :raises TooLarge: over :data:`BODY_LIMIT_BYTES`.
    """
    body = await _read(request)
    if not body.strip():
        raise BadRequest("missing request body")
    if len(body) > OFF_LOOP_BYTES:
        return await asyncio.to_thread(decode, body, kind)
    return decode(body, kind)


async def _read(request: web.Request) -> bytes:
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
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
