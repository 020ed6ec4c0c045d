"""Models from other registries."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from ollama_async.api import ollama
from ollama_async.core.errors import BadRequest
from ollama_async.gateway.asker import asker_of
from ollama_async.gateway.body import read_json
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.progress import send_progress
from ollama_async.registry.address_policy import Network
from ollama_async.registry.auth import default_key_path
from ollama_async.registry.pull import open_pulls
from ollama_async.registry.transfer_policy import TransferPolicy
from ollama_async.registry.transfers import Transfers

PULLS: web.AppKey[Transfers] = web.AppKey("pulls", Transfers)


async def own_pulls(application: web.Application) -> AsyncIterator[None]:
    """Makes :data:`PULLS` and ends what is still being pulled."""
    dependencies = application[DEPENDENCIES]
    settings = dependencies.settings
    policy = TransferPolicy(connections=settings.pull_connections, stall_s=settings.pull_stall_s)
    store = dependencies.catalog.store
    async with open_pulls(
        store,
        policy=policy,
        key_path=default_key_path(),
        network=Network(trusted=settings.trusted_registries),
    ) as pulls:
        application[PULLS] = pulls
        yield


async def pull(request: web.Request) -> web.StreamResponse:
    """A stream of statuses, or the last one alone."""
    asked = await read_json(request, ollama.PullRequest)
    name = asked.model or asked.name
    if not name.strip():
        raise BadRequest("invalid model name")
    statuses = request.app[PULLS].follow(
        name, is_insecure=asked.insecure, requester=asker_of(request)
    )
    return await send_progress(request, statuses, is_streamed=asked.is_streaming)
