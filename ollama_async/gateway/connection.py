"""One connection, as aiohttp serves it, but for what aiohttp would say itself.

aiohttp answers what is no HTTP, and what it refuses on its own, with plain texts, its name and its
version. Here each becomes ``{"error": …}``, and the connection ends. A stream to a client that does
not know chunks (HTTP/1.0) ends with the connection, too, whatever the client said about keeping it.

aiohttp notices that a client has left only while it reads, and it stops reading when requests wait
behind the one that runs, or a body that nobody takes. Here the kernel is asked meanwhile. A client
that closes its writing side alone looks like one that left: it still gets what is answered at once,
and whatever takes longer is cancelled, as Go's servers cancel a request's context.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError
from aiohttp.http_parser import HttpRequestParser

from ollama_async.gateway.bounded_parser import (
    FIELDS_LIMIT,
    HEAD_LIMIT_BYTES,
    TARGET_LIMIT_BYTES,
    BoundedParser,
)
from ollama_async.gateway.peer import Peer, enable_probes, peer_state
from ollama_async.gateway.responses import Refusal, json_error

_LINGER_S = 0.5
"""How long a client that is still sending may take to read why nobody listens: closing at once
would reset the connection, and the answer could be lost with it."""

_HALF_CLOSED_S = 0.5
"""How long the answers to a client that sends no more may take. Most clients of that kind have
left, and what they asked for holds a place in the queue."""

_PEER_CHECK_S = 0.25
"""How often the kernel is asked about a client whose bytes are not read."""

_PIPELINED_REQUESTS = 2
"""Behind the one that runs. What a client sends after them is left in its socket for a while."""

_UNREAD_INPUT_S = 1.0
"""Then it is read and dropped, and the connection ends after the request that runs: a client that
has filled its socket cannot be seen leaving, because its last packet has no room there."""

_DISCARD_LIMIT_BYTES = 16 << 20
"""Of what a client sends that nobody looks at. Who sends more is cut: reading costs time, too."""

_UNREAD_ANSWER_S = 60.0
"""How long a client may leave short answers unread that its socket has no room for."""

_SHOWN = 100
"""Characters of what aiohttp says; it quotes what was sent."""


class Connection(web.RequestHandler):
    """Serves the requests of one client, one after the other."""

    def __init__(self, server: web.Server, **settings: Any) -> None:
        super().__init__(
            server,
            max_line_size=TARGET_LIMIT_BYTES,
            max_field_size=HEAD_LIMIT_BYTES,
            max_headers=FIELDS_LIMIT,
            auto_decompress=False,
            **settings,
        )
        self._bounded = BoundedParser(cast("HttpRequestParser", self._parser))
        self._parser = cast("HttpRequestParser", self._bounded)
        self._max_msg_queue_size = _PIPELINED_REQUESTS
        self._msg_queue_resume_size = _PIPELINED_REQUESTS - 1
        self._discarded_bytes = 0
        self._paused_at = 0.0
        self._peer_check: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        enable_probes(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._peer_check, self._abort_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    async def start(self) -> None:
        """Serve until the connection ends; what is left to send then has a deadline, too."""
        transport = self.transport
        try:
            await super().start()
        finally:
            if transport is not None and transport.get_write_buffer_size():
                self._loop.call_later(_UNREAD_ANSWER_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self._bounded.is_broken:
            super().data_received(data)
            return
        self._discarded_bytes += len(data)
        if self._discarded_bytes > _DISCARD_LIMIT_BYTES:
            self._abort()

    def eof_received(self) -> bool:  # type: ignore[override]  # transports ask for it
        """The client sends no more; false: the connection ends."""
        if self._close:
            return False
        if self._waiter is not None and not self._messages:  # idle
            self.force_close()
            return False
        if self._bounded.is_in_body:
            self._abort()
        else:
            self._schedule_abort()
        return True

    def _is_reading_body(self) -> bool:
        """Whether some of the running request has not come yet."""
        return self._current_request is not None and not self._current_request.content.is_eof()

    def _schedule_abort(self) -> None:
        if self._abort_timer is None:
            self._abort_timer = self._loop.call_later(_HALF_CLOSED_S, self._abort_unless_sending)

    def _abort_unless_sending(self) -> None:
        """Unless all of an answer is there and being sent: that has deadlines of its own."""
        request = self._current_request
        if request is not None and request.writer.length is not None:
            self._abort_timer = None
            self._schedule_abort()
        else:
            self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _pause_transport_reading(self) -> None:
        super()._pause_transport_reading()
        if self._peer_check is None:
            self._paused_at = self._loop.time()
            self._schedule_peer_check()

    def _resume_transport_reading(self) -> None:
        if self._peer_check is not None:
            self._peer_check.cancel()
            self._peer_check = None
        super()._resume_transport_reading()

    def _schedule_peer_check(self) -> None:
        self._peer_check = self._loop.call_later(_PEER_CHECK_S, self._check_peer)

    def _check_peer(self) -> None:
        """Nothing is read, so nothing else tells us whether the client is still there."""
        if self.transport is None:
            return
        peer = peer_state(self.transport)
        if peer is Peer.RESET:
            self.transport.abort()
        elif self._current_request is None or self._is_reading_body():
            self._schedule_peer_check()
        elif peer is Peer.HALF_CLOSED:
            self._schedule_abort()
        elif self._loop.time() - self._paused_at < _UNREAD_INPUT_S:
            self._schedule_peer_check()
        else:
            self._discard_input()

    def _discard_input(self) -> None:
        self._messages.clear()
        self._bounded.stop()
        self._reading_paused = self._buffer_paused = False
        self._resume_transport_reading()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # part of ``exc``
    ) -> web.StreamResponse:
        """What is said about bytes that are no HTTP, and about a fault outside of every handler.

        :raises ConnectionError: an answer is half sent.
        """
        if isinstance(exc, HttpProcessingError):
            return Refusal(exc.code or status, _words(exc))
        self.logger.error("a fault in serving %s", request.remote, exc_info=exc)
        if request.writer.output_size:
            raise ConnectionError
        return Refusal(status, "internal error")

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send ``resp``, or what is left of it; true if the client has gone."""
        if isinstance(resp, Refusal):
            return await self._refuse(resp)
        if isinstance(resp, web.HTTPException):  # aiohttp's own answer
            resp = json_error(resp.status, (resp.text or resp.reason)[:_SHOWN])
            resp.force_close()
        has_length = resp.content_length is not None
        if self._bounded.is_broken or (request.version < HttpVersion11 and not has_length):
            resp.force_close()
        sent = await self._sent(request, resp, start_time)
        if self._bounded.is_broken:
            await self._linger()
        elif self._abort_timer is not None and not self._messages:
            self._abort_timer.cancel()
            self.close()
        return sent

    async def _sent(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """As aiohttp, whose patience with a client that does not read has no end."""
        if self.transport is None or not self.transport.get_write_buffer_size():
            return await super().finish_response(request, resp, start_time)
        try:
            async with asyncio.timeout(_UNREAD_ANSWER_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._abort()
            return resp, True

    async def _refuse(self, refusal: Refusal) -> tuple[web.StreamResponse, bool]:
        """Past aiohttp, which would look at a request that is none."""
        if self.transport is None:
            return refusal, True
        self.transport.write(refusal.whole())
        await self._linger()
        return refusal, False

    async def _linger(self) -> None:
        """Say that this was all, and let the client say what it likes meanwhile."""
        self.close()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()
        await asyncio.sleep(_LINGER_S)  # cancelled when the client leaves


def _words(error: HttpProcessingError) -> str:
    """What the parser says, without the bytes that it quotes."""
    if isinstance(error, InvalidURLError):
        return "malformed request target"
    parts = [part.strip() for part in re.split(r"[:\n]", error.message)]
    telling = [part for part in parts if part and part != "Bad status line"]
    return (telling or ["malformed HTTP request"])[0][:_SHOWN]
