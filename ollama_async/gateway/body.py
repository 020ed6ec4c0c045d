"""Reads request bodies, bounded in size and time, and decodes large ones off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from ollama_async.api.decode import Images, decode, decode_apart
from ollama_async.core.errors import BadRequest, TooLarge, UnreadableEncoding
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.client_budgets import BODY_RESERVATION, ByteBudget, WaitAllowance
from ollama_async.gateway.client_identity import client_of
from ollama_async.gateway.concurrency import FairLock

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

BODY_LIMIT_BYTES = 256 << 20
"""Of a JSON body: some dozens of photographs in base64 (``api.decode`` limits the rest). Blobs are
limited by the disk only."""

BODIES_LIMIT_BYTES = 1 << 30
"""Of all large JSON bodies whose requests are not answered yet: a queued request holds its texts.
One client may hold half of it."""

LARGE_BYTES = 64 << 10
"""Smaller bodies are not counted."""

OFF_LOOP_BYTES = 16 << 10
"""Larger bodies are processed in a thread. An ordinary one of this size takes 20 µs, one that is
made to be slow 8 ms (half a microsecond per byte), which is as long as the loop may be blocked."""

GRACE_S = 30.0
SLOWEST_BYTES_PER_S = 8 << 10
"""The :class:`WaitAllowance` of an upload: a modem passes, a client that drips bytes to hold memory
and a connection does not."""

_VERY_LARGE_BYTES = 256 << 10  # one takes 0.2 s at worst, and does not wait for those that take 2 s
_SHOWN_CHARACTERS = 40  # of a header that is refused
_IDENTITY_CODINGS = {"", "identity", "chunked"}


class BodyProcessor:
    """Processes the bodies of one application; ``budget`` counts the large ones."""

    def __init__(self) -> None:
        self.budget = ByteBudget(
            limit_bytes=BODIES_LIMIT_BYTES,
            client_limit_bytes=BODIES_LIMIT_BYTES // 2,
            busy_text="server busy, please try again: too many large requests at once",
            free_bytes=LARGE_BYTES,
        )
        # One call of each size class at a time: more would only compete for the interpreter.
        self._large, self._very_large = FairLock(), FairLock()

    async def run(self, client: str, size: int, call: Callable[..., T], *args: Any) -> T:
        """``call(*args)``, whose time grows with ``size``: at once if that is small, else in a
        thread when it is the client's turn.

        A cancelled caller waits for the end of the call. Until then it keeps its turn, and its
        request what its body holds.
        """
        if size <= OFF_LOOP_BYTES:
            return call(*args)
        lock = self._very_large if size > _VERY_LARGE_BYTES else self._large
        async with lock.hold(client):
            return await run_in_thread(call, *args)


BODY_PROCESSOR: web.AppKey[BodyProcessor] = web.AppKey("body_processor", BodyProcessor)


class Body:
    """The body of one request: read chunk by chunk, or received whole and decoded once.

    A :class:`WaitAllowance` bounds the time that is spent waiting for the client; that of a slow
    disk does not count. ``size``: the bytes received so far.
    """

    def __init__(self, request: web.Request) -> None:
        self.client = client_of(request)
        self._request = request
        self._allowance = WaitAllowance(GRACE_S, SLOWEST_BYTES_PER_S)
        self._parts: list[bytes] = []
        self.size = 0

    async def next_chunk(self) -> bytes:
        """The bytes that have arrived, at least one; ``b""`` at the end.

        :raises BadRequest: the client is too slow, or its transfer encoding is broken.
        :raises ConnectionResetError: the client disconnected.
        """
        try:
            chunk = await self._allowance.wait(self._request.content.readany())
        except TimeoutError:
            raise BadRequest("timed out reading the request body") from None
        except RequestPayloadError:
            raise BadRequest("unreadable request body") from None
        self._allowance.earn(len(chunk))
        return chunk

    async def receive(self, kind: type[msgspec.Struct]) -> None:
        """Receive all of what will be decoded as ``kind``, in parts that a thread joins.

        :raises BadRequest: there is no body.
        :raises UnreadableEncoding: it is compressed.
        :raises TooLarge: over ``kind.body_limit_bytes`` or :data:`BODY_LIMIT_BYTES`.
        :raises Busy: over the budget of the client, or of all together.
        """
        _check_encoding(self._request)
        limit = getattr(kind, "body_limit_bytes", BODY_LIMIT_BYTES)
        if (self._request.content_length or 0) > limit:
            raise TooLarge(f"request body is over the limit of {limit} bytes")
        reservation = self._request[BODY_RESERVATION]
        gathered = bytearray()  # a client may send single bytes, and each object takes forty
        while chunk := await self.next_chunk():
            self.size += len(chunk)
            if self.size > limit:
                raise TooLarge(f"request body is over the limit of {limit} bytes")
            reservation.reserve(self.size)
            gathered += chunk
            if len(gathered) >= LARGE_BYTES:
                self._parts.append(bytes(gathered))
                gathered.clear()
        if gathered:
            self._parts.append(bytes(gathered))
        if not self._parts:
            raise BadRequest("missing request body")

    def decode(self, kind: type[S]) -> S:
        """As :func:`~ollama_async.api.decode.decode`, as :meth:`take`."""
        return decode(self.take(), kind)

    def decode_apart(self, kind: type[S]) -> tuple[S, Images]:
        """As :func:`~ollama_async.api.decode.decode_apart`, as :meth:`take`."""
        return decode_apart(self.take(), kind)

    def take(self) -> bytes:
        """What was received. Drops it here, which saves memory."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


async def read_json(request: web.Request, kind: type[S]) -> S:
    """The body as ``kind``. May be cancelled at any time.

    :raises BadRequest: no body, or one that ``kind`` does not accept, with Ollama's text; else as
        :meth:`Body.receive`.
    """
    body = Body(request)
    await body.receive(kind)
    return await request.app[BODY_PROCESSOR].run(body.client, body.size, body.decode, kind)


def _check_encoding(request: web.Request) -> None:
    """A few compressed bytes may become gigabytes. :raises UnreadableEncoding:"""
    for name in (hdrs.CONTENT_ENCODING, hdrs.TRANSFER_ENCODING):
        if name not in request.headers:
            continue
        codings = ",".join(request.headers.getall(name)).lower()
        if {coding.strip() for coding in codings.split(",")} - _IDENTITY_CODINGS:
            raise UnreadableEncoding(
                f"unsupported {name} {codings[:_SHOWN_CHARACTERS]!r}; send the body as it is"
            )
