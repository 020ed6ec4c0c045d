"""Finding the model that a request names, without holding up the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from functools import partial

from aiohttp import web

from ollama_async.core.errors import BadRequest
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.single_flight import FLIGHTS, SingleFlight
from ollama_async.gateway.store_threads import READS
from ollama_async.store.catalog import Catalog
from ollama_async.store.model import Model

_LONGEST = 1024


class Finder:
    """Models by name."""

    def __init__(self, catalog: Catalog, flights: SingleFlight, threads: Executor) -> None:
        self._catalog = catalog
        self._flights = flights
        self._threads = threads

    async def find(self, name: str) -> Model:
        """A model that has been asked for before costs one ``stat``; others are read in a thread,
        once for all who ask.

        :raises NotFound: and whatever else ``Catalog.find`` raises, in Ollama's words.
        """
        if len(name) > _LONGEST:  # blanks around it count: an answer repeats it in every object
            raise BadRequest("invalid model name")
        model = self._catalog.find_cached(name)
        if model is None:
            read = partial(run_in_thread, self._catalog.find, name, threads=self._threads)
            return await self._flights.ask(("find", name), read)
        return model


FINDER: web.AppKey[Finder] = web.AppKey("finder", Finder)


async def own_finder(application: web.Application) -> AsyncIterator[None]:
    """Makes :data:`FINDER`."""
    catalog = application[DEPENDENCIES].catalog
    application[FINDER] = Finder(catalog, application[FLIGHTS], application[READS])
    yield
