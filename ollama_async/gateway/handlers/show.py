"""``/api/show``: reading files and building a long answer, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from ollama_async.api import encode, ollama
from ollama_async.errors import Busy, Forbidden
from ollama_async.gateway.body import read_json
from ollama_async.gateway.finding import FINDER
from ollama_async.gateway.refusal import JSON_TYPE
from ollama_async.in_thread import in_thread
from ollama_async.models.info import InfoCache
from ollama_async.models.manifests import local_name
from ollama_async.models.model import Model
from ollama_async.models.show import show

MOST_LONG = 4
"""Answers with vocabularies, about 10 MB each, that are built or sent at a time. More wait."""
SEND_S = 60.0
"""How long a client may take for one of them."""
WAIT_S = 60.0
"""How long the next one waits for its turn."""
_COPILOT = "GitHubCopilotChat/"


class Shower:
    """Builds answers. Vocabularies are read one at a time: each may take 100 MB for a moment."""

    def __init__(self) -> None:
        self._infos = InfoCache()
        self._verbose = asyncio.Semaphore(1)
        self.long_answers = asyncio.Semaphore(MOST_LONG)

    async def answer(self, model: Model, asked: ollama.ShowRequest, basename: str) -> bytes:
        """The JSON; a ``basename`` takes the place of the file's own.

        :raises LoadFailed: one of the model's files is gone or broken.
        """
        if not asked.verbose:
            return await in_thread(self._build, model, asked, basename)
        async with self._verbose:
            return await in_thread(self._build, model, asked, basename)

    def _build(self, model: Model, asked: ollama.ShowRequest, basename: str) -> bytes:
        shown = show(model, asked, self._infos)
        if basename:
            shown.model_info["general.basename"] = basename
        return encode.to_json(shown)


SHOWER: web.AppKey[Shower] = web.AppKey("shower", Shower)


async def show_model(request: web.Request) -> web.StreamResponse:
    asked = await read_json(request, ollama.ShowRequest)
    text = asked.model or asked.name
    try:
        name = local_name(text)
    except Forbidden:
        raise Forbidden("ollama cloud is disabled: remote model details are unavailable") from None
    model = await request.app[FINDER].find(name.short)
    is_copilot = request.headers.get("User-Agent", "").startswith(_COPILOT)
    shower, basename = request.app[SHOWER], text if is_copilot else ""
    if not asked.verbose:
        body = await shower.answer(model, asked, basename)
        return web.Response(body=body, headers={"Content-Type": JSON_TYPE})
    async with _turn(shower.long_answers):
        return await _sent(request, await shower.answer(model, asked, basename))


@contextlib.asynccontextmanager
async def _turn(places: asyncio.Semaphore) -> AsyncIterator[None]:
    """:raises Busy: no place was free in time."""
    try:
        async with asyncio.timeout(WAIT_S):
            await places.acquire()
    except TimeoutError:
        raise Busy("too many long answers at a time, try again later") from None
    try:
        yield
    finally:
        places.release()


async def _sent(request: web.Request, body: bytes) -> web.StreamResponse:
    """The answer, once the client has taken it but for what fits into the socket.

    :raises ConnectionResetError: it does not; the boundary cuts.
    """
    response = web.StreamResponse(headers={"Content-Type": JSON_TYPE})
    response.content_length = len(body)
    try:
        async with asyncio.timeout(SEND_S):
            await response.prepare(request)
            await response.write(body)
            await response.write_eof()
    except TimeoutError:
        raise ConnectionResetError from None
    return response
