"""Serves HTTP connections with aiohttp, and replaces aiohttp's own error answers.

aiohttp answers bytes that are not HTTP, and what it refuses itself, with plain texts that carry its
name and version. Here each becomes ``{"error": …}``, and the connection ends. A stream to an
HTTP/1.0 client, which does not know chunks, also ends with the connection.

aiohttp notices a disconnected client only while it reads. It stops reading while pipelined requests
wait or a body is not consumed; meanwhile the kernel is polled here. A client that closes only its
writing side looks like one that disconnected: it gets what is answered at once, and longer requests
are cancelled, as Go's servers cancel a request's context.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import re
import socket
from typing import cast

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestPayloadError

from ollama_async.gateway.http_parser import (
    FIELDS_LIMIT,
    HEAD_LIMIT_BYTES,
    TARGET_LIMIT_BYTES,
    BoundedParser,
)
from ollama_async.gateway.responses import Refusal, json_error

KEEPALIVE_S = 75.0
"""Of an idle connection: longer than in the pools of common clients and proxies."""

UNREACHABLE_LIMIT_S = 60
"""The connection of a client whose machine acknowledges or accepts nothing for so long is lost. As
long as a client may leave a stream unread."""
_PROBED_AFTER_S = 30
_PROBED_EVERY_S = 10

_LINGER_S = 0.5
"""How long a client that is still sending may take to read why it was refused. Closing at once
would reset the connection, and the answer could be lost with it."""

_HALF_CLOSED_S = 0.5
"""How long the answer to a half-closed connection may take. Most such clients have disconnected,
and their request holds a place."""

_PEER_CHECK_S = 0.25
"""How often the kernel is polled for a client whose bytes are not read."""

_PIPELINED_REQUESTS = 2
"""Behind the running one. Further ones stay in the socket for a while."""

_UNREAD_INPUT_S = 1.0
"""After this time input is read and dropped, and the connection ends after the running request. If
a client has filled its socket, its disconnection cannot be seen: the last packet does not fit."""

_DISCARD_LIMIT_BYTES = 16 << 20
"""Of dropped input. A client that sends more is disconnected: reading costs time, too."""

_UNREAD_ANSWER_S = 60.0
"""How long a client may leave short answers unread that do not fit its socket."""

_SHOWN_CHARACTERS = 100  # of aiohttp's messages, which quote what was sent

_CLOSE, _CLOSE_WAIT = 7, 8
"""Linux's numbers of a connection's state, the first byte of its ``struct tcp_info``."""

_log = logging.getLogger("ollama_async.gateway.http")


def build_runner(application: web.Application, *, shutdown_grace_s: float) -> web.AppRunner:
    """The runner of ``application``; its owner sets it up, binds sites and cleans it up.

    A client that disconnects cancels its handler: during a prefill no failing write would show it.
    Running answers get ``shutdown_grace_s`` in ``cleanup``. There is no access log: the metrics
    count requests, and a line for each costs 30 µs.
    """
    _log.addFilter(_is_own_fault)
    return _Runner(application, shutdown_timeout=shutdown_grace_s)


class _Runner(web.AppRunner):
    """aiohttp's, with :class:`Connection` as its protocol."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        factory = made.request_factory
        return _Server(made.request_handler, request_factory=factory, handler_cancellation=True)


class _Server(web.Server):
    def __call__(self) -> Connection:
        return Connection(self)


def _is_own_fault(record: logging.LogRecord) -> bool:
    """False for broken bodies: clients could fill the log with their tracebacks."""
    return not (record.exc_info and isinstance(record.exc_info[1], RequestPayloadError))


class Connection(web.RequestHandler):
    """Serves the requests of one client, one after the other."""

    def __init__(self, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_log,
            access_log=None,  # type: ignore[arg-type]  # its annotation lacks None
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=TARGET_LIMIT_BYTES,
            max_field_size=HEAD_LIMIT_BYTES,
            max_headers=FIELDS_LIMIT,
            auto_decompress=False,
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
        """Serve until the connection ends. What is unsent then has a deadline as well."""
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
        """The client sends no more. False: close the connection."""
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
        """Whether a part of the running request has not arrived yet."""
        return self._current_request is not None and not self._current_request.content.is_eof()

    def _schedule_abort(self) -> None:
        if self._abort_timer is None:
            self._abort_timer = self._loop.call_later(_HALF_CLOSED_S, self._abort_unless_sending)

    def _abort_unless_sending(self) -> None:
        """Unless a complete answer is being sent, which has deadlines of its own."""
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
        """Poll the kernel: while nothing is read, nothing else shows that the client is gone."""
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
        """The answer to bytes that are not HTTP, and to a bug outside of handlers.

        :raises ConnectionError: half of an answer has been sent.
        """
        if isinstance(exc, HttpProcessingError):
            return Refusal(exc.code or status, _message(exc))
        self.logger.error("a fault in serving %s", request.remote, exc_info=exc)
        if request.writer.output_size:
            raise ConnectionError
        return Refusal(status, "internal error")

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send ``resp`` or the rest of it, with a deadline if the client does not read. The bool is
        true if the client is gone.
        """
        if isinstance(resp, Refusal):
            return await self._refuse(resp)
        if isinstance(resp, web.HTTPException):  # aiohttp's own answer
            resp = json_error(resp.status, (resp.text or resp.reason)[:_SHOWN_CHARACTERS])
            resp.force_close()
        has_length = resp.content_length is not None
        if self._bounded.is_broken or (request.version < HttpVersion11 and not has_length):
            resp.force_close()
        is_unread = self.transport is not None and self.transport.get_write_buffer_size() > 0
        try:
            async with asyncio.timeout(_UNREAD_ANSWER_S if is_unread else None):
                sent = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._abort()
            sent = resp, True
        if self._bounded.is_broken:
            await self._linger()
        elif self._abort_timer is not None and not self._messages:
            self._abort_timer.cancel()
            self.close()
        return sent

    async def _refuse(self, refusal: Refusal) -> tuple[web.StreamResponse, bool]:
        """Write it directly: aiohttp would read the request, which is not one."""
        if self.transport is None:
            return refusal, True
        self.transport.write(refusal.to_bytes())
        await self._linger()
        return refusal, False

    async def _linger(self) -> None:
        """Shut down our side, and give the client time to read while it still sends."""
        self.close()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()
        await asyncio.sleep(_LINGER_S)  # cancelled when the client disconnects


def _message(error: HttpProcessingError) -> str:
    """The parser's message without the bytes that it quotes."""
    if isinstance(error, InvalidURLError):
        return "malformed request target"
    parts = [part.strip() for part in re.split(r"[:\n]", error.message)]
    informative = [part for part in parts if part and part != "Bad status line"]
    return (informative or ["malformed HTTP request"])[0][:_SHOWN_CHARACTERS]


class Peer(enum.Enum):
    """The state of a client; after ``HALF_CLOSED`` it sends nothing more, but may still read."""

    CONNECTED = enum.auto()
    HALF_CLOSED = enum.auto()
    RESET = enum.auto()


def enable_probes(transport: asyncio.BaseTransport) -> None:
    """Let the kernel end the connection of a client that vanishes."""
    sock = transport.get_extra_info("socket")
    if not _is_tcp(sock):
        return
    with contextlib.suppress(OSError):  # the client has disconnected already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBED_AFTER_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBED_EVERY_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREACHABLE_LIMIT_S * 1000)


def peer_state(transport: asyncio.BaseTransport) -> Peer:
    """The kernel's view of the client, in one or two system calls."""
    sock = transport.get_extra_info("socket")
    if not _is_tcp(sock):
        return Peer.CONNECTED
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:  # the descriptor is closed
        return Peer.RESET
    return {_CLOSE: Peer.RESET, _CLOSE_WAIT: Peer.HALF_CLOSED}.get(state, Peer.CONNECTED)


def _is_tcp(sock: socket.socket | None) -> bool:
    return sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
