"""Models over HTTP: find, list, show, create, copy and delete them; upload blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from pathlib import Path

from aiohttp import web

from ollama_async.api import encode, ollama_models
from ollama_async.api.encode import LongParts
from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.core.errors import BadRequest, Busy, Forbidden, NoAccount, NotFound
from ollama_async.core.model_names import names_cloud_model
from ollama_async.core.settings import Settings
from ollama_async.core.threads import iterate_in_thread, run_in_thread
from ollama_async.create.builder import create_model
from ollama_async.create.request import BaseMissing
from ollama_async.gateway import concurrency
from ollama_async.gateway.body import Body, read_json
from ollama_async.gateway.client_budgets import (
    CLIENT_SEND_LIMIT_BYTES,
    SEND_RESERVATION,
    Reservation,
)
from ollama_async.gateway.client_identity import is_same_user, requester_of
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.handlers.transfers import PULLS, send_progress
from ollama_async.gateway.responses import json_response
from ollama_async.registry.address_policy import Requester
from ollama_async.store.blobs import BlobWriter
from ollama_async.store.manifests import local_name
from ollama_async.store.model import Model, ModelListEntry
from ollama_async.store.show import DescriptionCache, show

MODEL_NAME_CHARACTERS = 1024
"""Blanks around a name count: an answer repeats the name in every object."""

WRITE_BYTES = 1 << 20
"""Of an upload, gathered before a thread writes them: a thread switch for each of the socket's
64 KiB would cost more than the hashing."""

LONG_SHOW_BYTES = 1 << 20
"""Of licences. Longer answers to ``show`` are built one at a time, like those with vocabularies."""
SHOW_WAIT_S = 60.0
"""How long a ``show`` waits for those before it."""
_COPILOT_USER_AGENT = "GitHubCopilotChat/"


# -- find and list ------------------------------------------------------------------------------


def check_model_name(name: str, settings: Settings) -> None:
    """:raises BadRequest: too long. :raises NoAccount: it names a cloud model, and these are not
    disabled; the catalog refuses them as well.
    """
    if len(name) > MODEL_NAME_CHARACTERS:
        raise BadRequest("invalid model name")
    if not settings.no_cloud and names_cloud_model(name):
        raise NoAccount


async def find_model(application: web.Application, name: str) -> Model:
    """A cached model costs one ``stat``; others are read in a thread, once for all concurrent
    callers.

    :raises NotFound: and whatever else ``Catalog.find`` raises, with Ollama's text.
    """
    check_model_name(name, application[DEPENDENCIES].settings)
    catalog, threads = application[DEPENDENCIES].catalog, application[concurrency.READ_POOL]
    model = catalog.find_cached(name)
    if model is None:
        read = partial(run_in_thread, catalog.find, name, threads=threads)
        return await application[concurrency.SINGLE_FLIGHT].run(("find", name), read)
    return model


async def tags(request: web.Request) -> web.Response:
    return await list_models(request, _list_response)


async def list_models(
    request: web.Request, write: Callable[[list[ModelListEntry]], bytes]
) -> web.Response:
    """The JSON that ``write`` makes of all models, in a thread. Concurrent requests with the same
    ``write`` share one scan of the store, and one thread.
    """
    flight = request.app[concurrency.SINGLE_FLIGHT]
    return json_response(
        await flight.run(("list", write), partial(_list_models, request.app, write))
    )


async def _list_models(
    application: web.Application, write: Callable[[list[ModelListEntry]], bytes]
) -> bytes:
    catalog, threads = application[DEPENDENCIES].catalog, application[concurrency.READ_POOL]
    found: list[ModelListEntry] = []
    async with aclosing(iterate_in_thread(catalog.scan(), threads)) as steps:
        async for models in steps:
            found += models
    return await run_in_thread(lambda: write(catalog.complete_list(found)), threads=threads)


def _list_response(found: list[ModelListEntry]) -> bytes:
    rows = [
        ollama_models.ListModelResponse(
            name=model.name,
            model=model.name,
            modified_at=encode.local(model.modified_at),
            size=model.size,
            digest=model.digest,
            details=model.details,
            capabilities=list(model.capabilities),
        )
        for model in found
    ]
    return encode.to_json(ollama_models.ListResponse(rows))


# -- show ---------------------------------------------------------------------------------------


class ShowService:
    """Builds answers to ``show``: one short and one long at a time, round robin among clients.

    A long one may take 400 MB for a moment.
    """

    def __init__(self) -> None:
        self._descriptions = DescriptionCache()
        self._short, self._long = concurrency.FairLock(), concurrency.FairLock()

    @property
    def waiting(self) -> int:
        """Answers that wait for others to be built."""
        return self._short.waiting + self._long.waiting

    async def answer(
        self,
        model: Model,
        params: ollama_models.ShowRequest,
        basename: str,
        reservation: Reservation,
        threads: Executor | None = None,
    ) -> bytearray:
        """The JSON, built in ``threads``. A ``basename`` replaces the file's own.

        Its licences are reserved before they are read: a refusal must be cheap.

        :raises ServerError: the answer is too long for any client.
        :raises LoadFailed: one of the model's files is gone or broken.
        :raises Busy: other answers take too long.
        """
        license_bytes = await run_in_thread(_license_bytes, model, threads=threads)
        reservation.reserve(2 * license_bytes)
        is_long = params.verbose or license_bytes > LONG_SHOW_BYTES
        lock = self._long if is_long else self._short
        try:
            async with asyncio.timeout(SHOW_WAIT_S):
                await lock.acquire(reservation.client)
        except TimeoutError:
            raise Busy("too many models are being described, try again later") from None
        try:
            return await run_in_thread(self._build, model, params, basename, threads=threads)
        finally:
            lock.release()

    def _build(self, model: Model, params: ollama_models.ShowRequest, basename: str) -> bytearray:
        long = LongParts()
        response = show(model, params, self._descriptions, long)
        if basename:
            response.model_info["general.basename"] = basename
        return long.to_json(response, CLIENT_SEND_LIMIT_BYTES)


SHOW_SERVICE: web.AppKey[ShowService] = web.AppKey("show_service", ShowService)


async def show_model(request: web.Request) -> web.Response:
    params = await read_json(request, ollama_models.ShowRequest)
    text = params.model or params.name
    check_model_name(text, request.app[DEPENDENCIES].settings)
    try:
        name = local_name(text)
    except Forbidden:
        raise Forbidden("ollama cloud is disabled: remote model details are unavailable") from None
    model = await find_model(request.app, name.short)
    is_copilot = request.headers.get("User-Agent", "").startswith(_COPILOT_USER_AGENT)
    basename = text if is_copilot else ""
    threads, reservation = request.app[concurrency.READ_POOL], request[SEND_RESERVATION]
    service = request.app[SHOW_SERVICE]
    return json_response(await service.answer(model, params, basename, reservation, threads))


def _license_bytes(model: Model) -> int:
    """Blocks."""
    files = map(Path, model.licenses)
    return sum(file.stat().st_size for file in files if file.exists())


# -- create, copy, delete -----------------------------------------------------------------------


async def create(request: web.Request) -> web.StreamResponse:
    """A client that disconnects ends the work."""
    params = await read_json(request, ollama_models.CreateRequest)
    reads_files = is_same_user(request, request.app[DEPENDENCIES].local_key)
    statuses = _create(
        request.app, params, reads_files=reads_files, requester=requester_of(request)
    )
    return await send_progress(request, statuses, is_streamed=params.is_streaming)


async def _create(
    application: web.Application,
    params: ollama_models.CreateRequest,
    *,
    reads_files: bool,
    requester: Requester,
) -> AsyncGenerator[ProgressStatus, None]:
    """Each status is a step of the work. A base that is missing is pulled.

    :raises ServerError: as :func:`.create_model` and ``Transfers.follow``.
    """
    store, threads = application[DEPENDENCIES].catalog.store, application[concurrency.CHANGE_POOL]
    begin = partial(create_model, store, params, reads_files=reads_files)
    try:
        work = await run_in_thread(begin, threads=threads)
    except BaseMissing as missing:
        pulled = application[PULLS].follow(missing.name, is_insecure=False, requester=requester)
        async with aclosing(pulled) as statuses:
            async for status in statuses:
                if status != {"status": "success"}:
                    yield status
        work = await run_in_thread(begin, threads=threads)
    async with aclosing(iterate_in_thread(work, threads)) as statuses:
        async for status in statuses:
            yield status


async def copy(request: web.Request) -> web.Response:
    params = await read_json(request, ollama_models.CopyRequest)
    store = request.app[DEPENDENCIES].catalog.store
    threads = request.app[concurrency.CHANGE_POOL]
    await run_in_thread(store.copy, params.source, params.destination, threads=threads)
    return web.Response()


async def delete(request: web.Request) -> web.Response:
    """A loaded model keeps running."""
    params = await read_json(request, ollama_models.DeleteRequest)
    name = params.model or params.name
    if not name.strip():
        raise BadRequest("model is required")
    store = request.app[DEPENDENCIES].catalog.store
    await run_in_thread(store.delete, name, threads=request.app[concurrency.CHANGE_POOL])
    return web.Response()


# -- blobs --------------------------------------------------------------------------------------


async def has_blob(request: web.Request) -> web.Response:
    store = request.app[DEPENDENCIES].catalog.store
    digest = request.match_info["digest"]
    if not await run_in_thread(store.has_blob, digest):
        raise NotFound(f"blob {digest!r} not found")
    return web.Response()


async def upload_blob(request: web.Request) -> web.Response:
    """201 after it was stored; 200, without reading the body, if it was there already.

    Backpressure comes from the disk: at most :data:`WRITE_BYTES` and one chunk are in memory. A
    client that disconnects, or is too slow, leaves nothing behind.
    """
    store, threads = request.app[DEPENDENCIES].catalog.store, request.app[concurrency.UPLOAD_POOL]
    digest = request.match_info["digest"]
    if await run_in_thread(store.has_blob, digest):
        return web.Response()
    body = Body(request)
    size_bytes = request.content_length or 0
    writer = await run_in_thread(
        store.open_blob, digest, size_bytes, undo=BlobWriter.discard, threads=threads
    )
    try:
        gathered = bytearray()
        while chunk := await body.next_chunk():
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                await run_in_thread(writer.write, bytes(gathered), threads=threads)
                gathered.clear()
        await run_in_thread(writer.write, bytes(gathered), threads=threads)
        await run_in_thread(writer.commit, threads=threads)
    finally:
        await run_in_thread(writer.discard, threads=threads)
    return web.Response(status=201)
