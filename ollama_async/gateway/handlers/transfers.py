"""``/api/pull`` and ``/api/push``, and progress as a stream of NDJSON statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack, aclosing

from aiohttp import web

from ollama_async.api import encode, ollama, ollama_models
from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.core.errors import BadRequest, ServerError
from ollama_async.gateway.body import read_json
from ollama_async.gateway.client_identity import requester_of
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.response_formats import NDJSON_TYPE
from ollama_async.gateway.streaming import STALL_S
from ollama_async.registry.address_policy import Network
from ollama_async.registry.auth import default_key_path
from ollama_async.registry.pull import open_pulls
from ollama_async.registry.push import open_pushes
from ollama_async.registry.transfer_policy import TransferPolicy
from ollama_async.registry.transfers import Transfers

PULLS: web.AppKey[Transfers] = web.AppKey("pulls", Transfers)
PUSHES: web.AppKey[Transfers] = web.AppKey("pushes", Transfers)


async def own_transfers(application: web.Application) -> AsyncIterator[None]:
    """Cleanup context of :data:`PULLS` and :data:`PUSHES`: ends what is under way."""
    dependencies = application[DEPENDENCIES]
    settings, store = dependencies.settings, dependencies.catalog.store
    policy = TransferPolicy(connections=settings.pull_connections, stall_s=settings.pull_stall_s)
    key_path, network = default_key_path(), Network(trusted=settings.trusted_registries)
    async with AsyncExitStack() as stack:
        pulls = open_pulls(store, policy=policy, key_path=key_path, network=network)
        application[PULLS] = await stack.enter_async_context(pulls)
        pushes = open_pushes(store.root, policy=policy, key_path=key_path, network=network)
        application[PUSHES] = await stack.enter_async_context(pushes)
        yield


async def pull(request: web.Request) -> web.StreamResponse:
    params = await read_json(request, ollama_models.PullRequest)
    if not (params.model or params.name).strip():
        raise BadRequest("invalid model name")
    return await _follow(request, request.app[PULLS], params)


async def push(request: web.Request) -> web.StreamResponse:
    params = await read_json(request, ollama_models.PushRequest)
    return await _follow(request, request.app[PUSHES], params)


async def _follow(
    request: web.Request, transfers: Transfers, params: ollama_models.PullRequest
) -> web.StreamResponse:
    name, requester = params.model or params.name, requester_of(request)
    statuses = transfers.follow(name, is_insecure=params.insecure, requester=requester)
    return await send_progress(request, statuses, is_streamed=params.is_streaming)


async def send_progress(
    request: web.Request, statuses: AsyncGenerator[ProgressStatus, None], *, is_streamed: bool
) -> web.StreamResponse:
    """Send the statuses as NDJSON, or the last one alone. Closes ``statuses`` in every case.

    :raises ServerError: from ``statuses``, before its first status or without streaming; later
        it is the stream's last line.
    """
    async with aclosing(statuses):
        if not is_streamed:
            last: ProgressStatus | dict[str, str] = {}
            async for status in statuses:
                last = status
            return web.Response(body=encode.to_json(last), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": NDJSON_TYPE})
        try:
            async for status in statuses:
                if not response.prepared:
                    await response.prepare(request)
                await _with_deadline(response.write(encode.to_line(status)))
        except ServerError as error:
            if not response.prepared:
                raise
            line = encode.to_line(ollama.ErrorResponse(error.message))
            await _with_deadline(response.write(line))
        if not response.prepared:
            await response.prepare(request)
        await _with_deadline(response.write_eof())
        return response


async def _with_deadline(writing: Awaitable[None]) -> None:
    """:raises ConnectionResetError: the client leaves too much of it unread for too long."""
    try:
        async with asyncio.timeout(STALL_S):
            await writing
    except TimeoutError:
        raise ConnectionResetError from None
