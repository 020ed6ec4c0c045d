"""The store over HTTP: list, copy, delete."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ollama_async.api import encode, ollama
from ollama_async.errors import BadRequest
from ollama_async.gateway.body import read_json
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.handlers.server import json_response
from ollama_async.gateway.in_thread import CHANGES
from ollama_async.in_thread import in_thread
from ollama_async.models.model import Model


async def tags(request: web.Request) -> web.Response:
    models = await asyncio.to_thread(request.app[DEPENDENCIES].catalog.list)
    return json_response(ollama.ListResponse([_row(model) for model in models]))


async def delete(request: web.Request) -> web.Response:
    """200 and no body. A loaded model keeps running."""
    asked = await read_json(request, ollama.DeleteRequest)
    name = asked.model or asked.name
    if not name.strip():
        raise BadRequest("model is required")
    store = request.app[DEPENDENCIES].catalog.store
    await in_thread(store.delete, name, threads=request.app[CHANGES])
    return web.Response()


async def copy(request: web.Request) -> web.Response:
    """200 and no body."""
    asked = await read_json(request, ollama.CopyRequest)
    store = request.app[DEPENDENCIES].catalog.store
    threads = request.app[CHANGES]
    await in_thread(store.copy, asked.source, asked.destination, threads=threads)
    return web.Response()


def _row(model: Model) -> ollama.ListModelResponse:
    return ollama.ListModelResponse(
        name=model.name,
        model=model.name,
        modified_at=encode.local(model.modified_at),
        size=model.size,
        digest=model.digest,
        details=model.details,
        capabilities=list(model.capabilities),
    )
