"""Long work that reports its progress: NDJSON statuses, or the last one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from aiohttp import web

from ollama_async.api import encode, ollama
from ollama_async.api.ollama import ProgressStatus
from ollama_async.core.errors import ServerError
from ollama_async.gateway.response_formats.ollama import NDJSON_TYPE

STALL_S = 60.0
"""A client that reads nothing for so long is as good as gone."""


async def send_progress(
    request: web.Request, statuses: AsyncGenerator[ProgressStatus, None], *, is_streamed: bool
) -> web.StreamResponse:
    """Send what ``statuses`` yields and close it, also when the client leaves.

    :raises ServerError: from ``statuses``, before its first status or without streaming; later
        it is the stream's last line.
    """
    async with aclosing(statuses):
        if not is_streamed:
            last: ProgressStatus = {}
            async for status in statuses:
                last = status
            headers = {"Content-Type": "application/json"}
            return web.Response(body=encode.to_json(last), headers=headers)
        return await _streamed(request, statuses)


async def _streamed(
    request: web.Request, statuses: AsyncGenerator[ProgressStatus, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": NDJSON_TYPE})
    try:
        async for status in statuses:
            if not response.prepared:
                await response.prepare(request)
            await _taken(response.write(encode.to_line(status)))
    except ServerError as error:
        if not response.prepared:
            raise
        await _taken(response.write(encode.to_line(ollama.ErrorResponse(error.message))))
    if not response.prepared:
        await response.prepare(request)
    await _taken(response.write_eof())
    return response


async def _taken(writing: Awaitable[None]) -> None:
    """:raises ConnectionResetError: the client leaves too much of it unread for too long."""
    try:
        async with asyncio.timeout(STALL_S):
            await writing
    except TimeoutError:
        raise ConnectionResetError from None
