"""Making models out of models and files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from aiohttp import web

from ollama_async.api import ollama
from ollama_async.api.ollama import ProgressStatus
from ollama_async.core.threads import iterate_in_thread, run_in_thread
from ollama_async.create.builder import create_model
from ollama_async.create.request import BaseMissing
from ollama_async.gateway.asker import asker_of
from ollama_async.gateway.body import read_json
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.handlers.transfers import PULLS
from ollama_async.gateway.progress import send_progress
from ollama_async.gateway.same_user import is_same_user
from ollama_async.gateway.store_threads import CHANGES
from ollama_async.registry.address_policy import Requester


async def create(request: web.Request) -> web.StreamResponse:
    """A stream of statuses, or the last one alone. A client that leaves ends the work."""
    asked = await read_json(request, ollama.CreateRequest)
    reads_files = is_same_user(request, request.app[DEPENDENCIES].local_key)
    steps = _steps(request.app, asked, reads_files=reads_files, requester=asker_of(request))
    return await send_progress(request, steps, is_streamed=asked.is_streaming)


async def _steps(
    application: web.Application,
    asked: ollama.CreateRequest,
    *,
    reads_files: bool,
    requester: Requester,
) -> AsyncGenerator[ProgressStatus, None]:
    """The statuses of the work, which is done as they are drawn. A base that is missing is pulled.

    :raises ServerError: as :func:`.create_model` and ``Transfers.follow``.
    """
    store, threads = application[DEPENDENCIES].catalog.store, application[CHANGES]

    begin = partial(create_model, store, asked, reads_files=reads_files)
    try:
        work = await run_in_thread(begin, threads=threads)
    except BaseMissing as missing:
        async with aclosing(_pulled(application, missing.name, requester)) as statuses:
            async for status in statuses:
                yield status
        work = await run_in_thread(begin, threads=threads)
    async with aclosing(iterate_in_thread(work, threads)) as statuses:
        async for status in statuses:
            yield status


async def _pulled(
    application: web.Application, name: str, requester: Requester
) -> AsyncGenerator[ProgressStatus, None]:
    """What pulling says on the way; its success is not ours."""
    pulled = application[PULLS].follow(name, is_insecure=False, requester=requester)
    async with aclosing(pulled) as statuses:
        async for status in statuses:
            if status != {"status": "success"}:
                yield status
