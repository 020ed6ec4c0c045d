"""Reading what a client sends: bounded in size, alone and together, bounded in time, and worked on
where it cannot hurt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from ollama_async.api.decode import decode
from ollama_async.core.errors import BadRequest, Busy, TooLarge, UnreadableEncoding
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.client_identity import client_of
from ollama_async.gateway.fair_lock import FairLock
from ollama_async.gateway.wait_allowance import WaitAllowance

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

BODY_LIMIT_BYTES = 256 << 20
"""Of a JSON body: some dozens of photographs in base64 (the rest has a limit in ``api.bounds``).
Blobs have no limit but the disk."""

BODIES_LIMIT_BYTES = 1 << 30
"""Of all large JSON bodies whose requests are not answered yet: what waits holds its texts."""

CLIENT_BODIES_LIMIT_BYTES = BODIES_LIMIT_BYTES // 2
"""Of one client's, so that one cannot take it all."""

LARGE_BYTES = 64 << 10
"""Smaller bodies are taken whatever the others hold."""

OFF_LOOP_BYTES = 16 << 10
"""Bodies above are worked on in a thread. An ordinary one of this size takes 20 µs, one that is
made to be slow 8 ms (half a microsecond a byte), which is as long as the loop may be held up."""

_HELD = web.RequestKey("held", int)
_SIZE = web.RequestKey("size", int)
_SHOWN = 40  # characters of a header that is refused
_AS_IT_IS = {"", "identity", "chunked"}
_VERY_LARGE_BYTES = 256 << 10  # one takes 0.2 s at worst, and does not wait for those that take 2 s

GRACE_S = 30.0
SLOWEST_BYTES_PER_S = 8 << 10
"""An upload may make us wait ``GRACE_S`` in all, plus a second for every 8 KiB that came (never
more than ``GRACE_S`` at a time): a modem passes, a client that drips bytes to hold memory and a
connection does not."""


class RequestBodies:
    """The large bodies that a server holds; one for each application."""

    def __init__(self) -> None:
        self._held_bytes = 0
        self._held_by: dict[str, int] = {}
        # One of each kind at a time: more would only take the interpreter from each other.
        self._large, self._very_large = FairLock(), FairLock()

    def hold(self, request: web.Request, size: int) -> None:
        """The body of ``request`` has ``size`` bytes now.

        :raises Busy: all together, or its client's, would be too many.
        """
        client, grown = client_of(request), size - request.get(_HELD, 0)
        held = self._held_by.get(client, 0) + grown
        if held > CLIENT_BODIES_LIMIT_BYTES or self._held_bytes + grown > BODIES_LIMIT_BYTES:
            raise Busy("server busy, please try again: too many large requests at once")
        self._held_bytes += grown
        self._held_by[client] = held
        request[_HELD] = size

    def release(self, request: web.Request) -> None:
        """``request`` has been answered, one way or another; nothing happens if it held nothing."""
        if held := request.pop(_HELD, 0):
            client = client_of(request)
            self._held_bytes -= held
            self._held_by[client] -= held
            if not self._held_by[client]:
                del self._held_by[client]

    async def work(self, client: str, size: int, call: Callable[..., T], *args: Any) -> T:
        """``call(*args)`` for ``client``, in a thread if ``size`` bytes are so many that it could
        take long; clients take turns.

        Who is cancelled meanwhile waits for its end: until then it holds its place among the few
        that may run, and what the body holds.
        """
        if size <= OFF_LOOP_BYTES:
            return call(*args)
        turns = self._very_large if size > _VERY_LARGE_BYTES else self._large
        async with turns.turn(client):
            return await run_in_thread(call, *args)


REQUEST_BODIES: web.AppKey[RequestBodies] = web.AppKey("bodies", RequestBodies)


class BodyReader:
    """The body of one request, chunk by chunk, under the deadline described above.

    Only time spent waiting for the client counts: a slow disk does not cost the client its upload.
    """

    def __init__(self, request: web.Request, grace_s: float | None = None) -> None:
        self._content = request.content
        grace_s = GRACE_S if grace_s is None else grace_s
        self._allowance = WaitAllowance(grace_s, SLOWEST_BYTES_PER_S)

    async def next_chunk(self) -> bytes:
        """The bytes that are there, at least one; ``b""`` at the end.

        :raises BadRequest: the client is too slow, or its transfer encoding is broken.
        :raises ConnectionResetError: the client left.
        """
        try:
            chunk = await self._allowance.wait(self._content.readany())
        except TimeoutError:
            raise BadRequest("timed out reading the request body") from None
        except RequestPayloadError:
            raise BadRequest("unreadable request body") from None
        self._allowance.earn(len(chunk))
        return chunk


async def read_json(request: web.Request, kind: type[S]) -> S:
    """The request's body as ``kind``. May be cancelled at any time. The boundary releases what it
    holds.

    :raises BadRequest: no body, or not one that ``kind`` accepts; Ollama's words.
    :raises UnreadableEncoding: it is compressed.
    :raises TooLarge: over its kind's limit or :data:`BODY_LIMIT_BYTES`, or those of ``api.bounds``.
    :raises Busy: over :data:`BODIES_LIMIT_BYTES` together with others, or the client's part of it.
    """
    _check_encoding(request)
    bodies = request.app[REQUEST_BODIES]
    limit = getattr(kind, "body_limit_bytes", BODY_LIMIT_BYTES)
    parts = await _read(request, bodies, limit)
    if not parts:
        raise BadRequest("missing request body")
    request[_SIZE] = sum(map(len, parts))
    return await bodies.work(client_of(request), request[_SIZE], _decode, parts, kind)


async def work_on(
    request: web.Request, call: Callable[..., T], *args: Any, added_bytes: int = 0
) -> T:
    """``call(*args)``, where the time that it takes grows with the body that :func:`read_json` has
    read, and with ``added_bytes``.
    """
    size = request[_SIZE] + added_bytes
    return await request.app[REQUEST_BODIES].work(client_of(request), size, call, *args)


def _check_encoding(request: web.Request) -> None:
    """A few bytes that are compressed may be gigabytes. :raises UnreadableEncoding:"""
    for name in (hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING):
        if name not in request.headers:
            continue
        codings = ",".join(request.headers.getall(name)).lower()
        if {coding.strip() for coding in codings.split(",")} - _AS_IT_IS:
            raise UnreadableEncoding(
                f"unsupported {name} {codings[:_SHOWN]!r}; send the body as it is"
            )


async def _read(request: web.Request, bodies: RequestBodies, limit: int) -> list[bytes]:
    """The body in parts, which a thread may join."""
    if (request.content_length or 0) > limit:
        raise TooLarge(f"request body is over the limit of {limit} bytes")
    upload = BodyReader(request)
    parts: list[bytes] = []
    gathered = bytearray()  # a client may send byte by byte, and each object takes forty
    size = 0
    while chunk := await upload.next_chunk():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"request body is over the limit of {limit} bytes")
        if size > LARGE_BYTES:
            bodies.hold(request, size)
        gathered += chunk
        if len(gathered) >= LARGE_BYTES:
            parts.append(bytes(gathered))
            gathered.clear()
    if gathered:
        parts.append(bytes(gathered))
    return parts


def _decode(parts: list[bytes], kind: type[S]) -> S:
    """As :func:`~ollama_async.api.decode.decode`. ``parts`` are given up, which saves memory."""
    body = b"".join(parts)
    parts.clear()
    return decode(body, kind)
