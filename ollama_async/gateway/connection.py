"""One connection, as aiohttp serves it, but for what aiohttp would say itself.

aiohttp answers what is no HTTP, and what it refuses on its own, with plain texts, its name and its
version. Here each becomes ``{"error": …}``, and the connection ends. A stream to a client that does
not know chunks (HTTP/1.0) ends with the connection, too, whatever the client said about keeping it.
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
from ollama_async.gateway.refusal import Refusal, json_error

_LINGER_S = 0.5
"""How long a client that is still sending may take to read why nobody listens: closing at once
would reset the connection, and the answer could be lost with it."""

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
            **settings,
        )
        self._bounded = BoundedParser(cast("HttpRequestParser", self._parser))
        self._parser = cast("HttpRequestParser", self._bounded)

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
        sent = await super().finish_response(request, resp, start_time)
        if self._bounded.is_broken:
            await self._linger()
        return sent

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
