"""The id of each request: in the log, in Anthropic's errors, and in a header where clients of a
protocol expect one.
"""

from __future__ import annotations

import secrets

from aiohttp import web

from ollama_async.gateway.response_formats.errors import Protocol, protocol_of

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
"""Set by the middleware."""

_HEADERS = {Protocol.OPENAI: "X-Request-Id", Protocol.ANTHROPIC: "Request-Id"}


def new_request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """For ``on_response_prepare``."""
    header = _HEADERS.get(protocol_of(request.path, request.headers))
    request_id = request.get(REQUEST_ID)
    if header and request_id:
        response.headers[header] = request_id
