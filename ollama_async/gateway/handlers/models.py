"""The store over HTTP: list, copy, delete."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from aiohttp import web

from ollama_async.api import encode, ollama
from ollama_async.core.errors import BadRequest
from ollama_async.core.threads import iterate_in_thread, run_in_thread
from ollama_async.gateway.body import read_json
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.responses import JSON_TYPE
from ollama_async.gateway.single_flight import FLIGHTS
from ollama_async.gateway.store_threads import CHANGES, READS
from ollama_async.store.catalog import Catalog
from ollama_async.store.model import ModelListEntry


async def tags(request: web.Request) -> web.Response:
    """All who ask at once share one look through the store, and one thread."""
    body = await request.app[FLIGHTS].ask("tags", partial(_tags, request.app))
    return web.Response(body=body, headers={"Content-Type": JSON_TYPE})


async def _tags(application: web.Application) -> bytes:
    catalog, threads = application[DEPENDENCIES].catalog, application[READS]
    found: list[ModelListEntry] = []
    async with aclosing(iterate_in_thread(catalog.scan(), threads)) as steps:
        async for models in steps:
            found += models
    return await run_in_thread(_list_response, catalog, found, threads=threads)


def _list_response(catalog: Catalog, found: list[ModelListEntry]) -> bytes:
    rows = [_row(model) for model in catalog.in_order(found)]
    return encode.to_json(ollama.ListResponse(rows))


async def delete(request: web.Request) -> web.Response:
    """200 and no body. A loaded model keeps running."""
    asked = await read_json(request, ollama.DeleteRequest)
    name = asked.model or asked.name
    if not name.strip():
        raise BadRequest("model is required")
    store = request.app[DEPENDENCIES].catalog.store
    await run_in_thread(store.delete, name, threads=request.app[CHANGES])
    return web.Response()


async def copy(request: web.Request) -> web.Response:
    """200 and no body."""
    asked = await read_json(request, ollama.CopyRequest)
    store = request.app[DEPENDENCIES].catalog.store
    threads = request.app[CHANGES]
    await run_in_thread(store.copy, asked.source, asked.destination, threads=threads)
    return web.Response()


def _row(model: ModelListEntry) -> ollama.ListModelResponse:
    return ollama.ListModelResponse(
        name=model.name,
        model=model.name,
        modified_at=encode.local(model.modified_at),
        size=model.size,
        digest=model.digest,
        details=model.details,
        capabilities=list(model.capabilities),
    )
