"""Models to other registries."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from ollama_async.api import ollama
from ollama_async.gateway.asker import asker_of
from ollama_async.gateway.body import read_json
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.progress import send_progress
from ollama_async.registry.address_policy import Network
from ollama_async.registry.auth import default_key_path
from ollama_async.registry.push import open_pushes
from ollama_async.registry.transfer_policy import TransferPolicy
from ollama_async.registry.transfers import Transfers

PUSHES: web.AppKey[Transfers] = web.AppKey("pushes", Transfers)


async def own_pushes(application: web.Application) -> AsyncIterator[None]:
    """Makes :data:`PUSHES` and ends what is still being pushed."""
    dependencies = application[DEPENDENCIES]
    settings = dependencies.settings
    policy = TransferPolicy(connections=settings.pull_connections, stall_s=settings.pull_stall_s)
    root = dependencies.catalog.store.root
    async with open_pushes(
        root,
        policy=policy,
        key_path=default_key_path(),
        network=Network(trusted=settings.trusted_registries),
    ) as pushes:
        application[PUSHES] = pushes
        yield


async def push(request: web.Request) -> web.StreamResponse:
    """A stream of statuses, or the last one alone."""
    asked = await read_json(request, ollama.PushRequest)
    statuses = request.app[PUSHES].follow(
        asked.model or asked.name, is_insecure=asked.insecure, requester=asker_of(request)
    )
    return await send_progress(request, statuses, is_streamed=asked.is_streaming)
