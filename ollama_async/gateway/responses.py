"""How an error is said: one JSON object, as Ollama does, whoever says it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from ollama_async.core.errors import Busy, ServerError, UnreadableEncoding

JSON_TYPE = "application/json; charset=utf-8"


def error_response(error: ServerError) -> web.Response:
    """``error`` with its status and Ollama's shape; :class:`Busy` says when to come again, and
    after :class:`UnreadableEncoding`, whose body was not read, the connection ends.
    """
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
    response = json_error(error.status, error.message, headers)
    if isinstance(error, UnreadableEncoding):
        response.force_close()
    return response


def json_error(status: int, message: str, headers: Mapping[str, str] = {}) -> web.Response:
    """``{"error": message}``."""
    return web.Response(
        body=_body(message), status=status, headers={"Content-Type": JSON_TYPE, **headers}
    )


class Refusal(web.Response):
    """What is said on a connection whose request cannot be read; it ends with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status=status)
        self._message = message
        self.force_close()

    def whole(self) -> bytes:
        """Head and body. A request that cannot be read has no version, so it is said in ours."""
        body = _body(self._message)
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {JSON_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


def _body(message: str) -> bytes:
    """Headers may hold bytes that are no UTF-8, and messages quote them."""
    readable = message.encode(errors="replace").decode()
    return msgspec.json.encode({"error": readable})
