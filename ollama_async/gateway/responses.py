"""Responses that are sent whole: JSON objects, errors, and long answers to slow clients."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import hdrs, web

from ollama_async.core.errors import (
    Busy,
    ServerError,
    ShuttingDown,
    UnreadableEncoding,
    WorkerDied,
)
from ollama_async.gateway.client_budgets import FREE_BYTES, SEND_RESERVATION, WaitAllowance
from ollama_async.gateway.response_formats import JSON_TYPE
from ollama_async.gateway.response_formats.errors import Protocol, error_body

GRACE_S = 60.0
SLOWEST_BYTES_PER_S = 256 << 10
"""The :class:`WaitAllowance` of a long answer: enough for 14 MB at 1 Mbit/s. A client that reads
slowly in order to hold memory is disconnected after some minutes."""

_WORTH_A_RETRY = (Busy, ShuttingDown, WorkerDied)

_SLICE_BYTES = 128 << 10
"""Of one write."""


def json_response(
    body: bytes | bytearray, status: int = 200, headers: Mapping[str, str] = {}
) -> web.Response:
    """``body`` is JSON already."""
    headers = {"Content-Type": JSON_TYPE, **headers}
    return web.Response(body=body, status=status, headers=headers)


def json_error(status: int, message: str) -> web.Response:
    """``{"error": message}``."""
    return json_response(error_body(Protocol.OLLAMA, ServerError(message)), status)


def error_response(error: ServerError, protocol: Protocol, request_id: str = "") -> web.Response:
    """``error`` in the protocol's shape. :class:`Busy` has a ``Retry-After``; the connection ends
    after :class:`UnreadableEncoding`, whose body was not read.

    The clients of OpenAI and Anthropic repeat every request that ended with a status from 500 on,
    unless a header forbids it.
    """
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else {}
    is_useless = error.status >= 500 and not isinstance(error, _WORTH_A_RETRY)
    if is_useless and protocol is not Protocol.OLLAMA:
        headers["x-should-retry"] = "false"
    response = json_response(error_body(protocol, error, request_id), error.status, headers)
    if isinstance(error, UnreadableEncoding):
        response.force_close()
    return response


class Refusal(web.Response):
    """The answer to bytes that are not an HTTP request; the connection ends with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status=status)
        self._message = message
        self.force_close()

    def to_bytes(self) -> bytes:
        """Head and body. The request has no readable version, so the answer is HTTP/1.1."""
        body = error_body(Protocol.OLLAMA, ServerError(self._message))
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {JSON_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


async def send_if_long(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send a long ``response`` in slices, within a budget and a deadline; aiohttp sends short ones.

    :raises Busy: too much of other answers is unread.
    :raises ConnectionResetError: the client is gone, or reads too slowly.
    """
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes | bytearray) or len(body) <= FREE_BYTES:
        return response
    if response.prepared or request.method == hdrs.METH_HEAD:
        return response
    request[SEND_RESERVATION].reserve(len(body))
    sliced = web.StreamResponse(status=response.status, headers=response.headers)
    sliced.content_length = len(body)
    await sliced.prepare(request)
    await write_slices(sliced, body)
    return sliced


async def write_slices(response: web.StreamResponse, data: bytes | bytearray) -> None:
    """Write long ``data``.

    :raises ConnectionResetError: the client is gone, or reads too slowly.
    """
    allowance = WaitAllowance(GRACE_S, SLOWEST_BYTES_PER_S)
    try:
        for start in range(0, len(data), _SLICE_BYTES):
            part = memoryview(data)[start : start + _SLICE_BYTES]
            await allowance.wait(response.write(part))
            allowance.earn(len(part))  # the client has read about as much
    except TimeoutError:
        raise ConnectionResetError from None
