"""``/api/show``: reading files and building a long answer, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from pathlib import Path

from aiohttp import web

from ollama_async.api import ollama
from ollama_async.api.long_answers import LongParts
from ollama_async.core.errors import Busy, Forbidden
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.body import read_json
from ollama_async.gateway.fair_lock import FairLock
from ollama_async.gateway.finding import FINDER
from ollama_async.gateway.responses import JSON_TYPE
from ollama_async.gateway.send_budget import CLIENT_LIMIT_BYTES, RESERVATION, Reservation
from ollama_async.gateway.store_threads import READS
from ollama_async.store.manifests import local_name
from ollama_async.store.model import Model
from ollama_async.store.show import DescriptionCache, show

LONG_BYTES = 1 << 20
"""Of licences. Such answers are built one at a time, and so are those with vocabularies."""
WAIT_S = 60.0
"""How long the next one waits for its turn."""
_COPILOT = "GitHubCopilotChat/"


class ShowService:
    """Builds answers in ``threads``, one short and one long at a time, clients in turn: a long one
    may take 400 MB for a moment.
    """

    def __init__(self, threads: Executor | None = None) -> None:
        self._infos = DescriptionCache()
        self._threads = threads
        self._short, self._long = FairLock(), FairLock()

    @property
    def waiting(self) -> int:
        """How many answers wait for others to be built."""
        return self._short.waiting + self._long.waiting

    async def answer(
        self, model: Model, asked: ollama.ShowRequest, basename: str, reservation: Reservation
    ) -> bytearray:
        """The JSON; a ``basename`` takes the place of the file's own.

        Its licences are reserved before they are read: who is refused must not cost much.

        :raises ServerError: the answer is too long for any client.
        :raises LoadFailed: one of the model's files is gone or broken.
        :raises Busy: other answers take too long.
        """
        license_bytes = await run_in_thread(_license_bytes, model, threads=self._threads)
        reservation.reserve(2 * license_bytes)
        is_long = asked.verbose or license_bytes > LONG_BYTES
        async with _turn(self._long if is_long else self._short, reservation.client):
            return await run_in_thread(self._build, model, asked, basename, threads=self._threads)

    def _build(self, model: Model, asked: ollama.ShowRequest, basename: str) -> bytearray:
        long = LongParts()
        shown = show(model, asked, self._infos, long)
        if basename:
            shown.model_info["general.basename"] = basename
        return long.to_json(shown, CLIENT_LIMIT_BYTES)


SHOW_SERVICE: web.AppKey[ShowService] = web.AppKey("show_service", ShowService)


async def own_shower(application: web.Application) -> AsyncIterator[None]:
    """Makes :data:`SHOW_SERVICE`."""
    application[SHOW_SERVICE] = ShowService(application[READS])
    yield


async def show_model(request: web.Request) -> web.Response:
    asked = await read_json(request, ollama.ShowRequest)
    text = asked.model or asked.name
    try:
        name = local_name(text)
    except Forbidden:
        raise Forbidden("ollama cloud is disabled: remote model details are unavailable") from None
    model = await request.app[FINDER].find(name.short)
    is_copilot = request.headers.get("User-Agent", "").startswith(_COPILOT)
    basename = text if is_copilot else ""
    body = await request.app[SHOW_SERVICE].answer(model, asked, basename, request[RESERVATION])
    return web.Response(body=body, headers={"Content-Type": JSON_TYPE})


def _license_bytes(model: Model) -> int:
    """Blocks."""
    files = map(Path, model.licenses)
    return sum(file.stat().st_size for file in files if file.exists())


@contextlib.asynccontextmanager
async def _turn(turns: FairLock, client: str) -> AsyncIterator[None]:
    """:raises Busy: it was not the client's turn in time."""
    try:
        async with asyncio.timeout(WAIT_S):
            await turns.take(client)
    except TimeoutError:
        raise Busy("too many models are being described, try again later") from None
    try:
        yield
    finally:
        turns.pass_on()
