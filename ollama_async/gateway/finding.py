"""Finding the model that a request names, without holding up the others."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ollama_async.models.catalog import Catalog
from ollama_async.models.model import Model


class Finder:
    """Models by name."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def find(self, name: str) -> Model:
        """A model that has been asked for before costs one ``stat``; others are read in a thread.

        :raises NotFound: and whatever else ``Catalog.find`` raises, in Ollama's words.
        """
        model = self._catalog.find_cached(name)
        if model is None:
            return await asyncio.to_thread(self._catalog.find, name)
        return model


FINDER: web.AppKey[Finder] = web.AppKey("finder", Finder)
