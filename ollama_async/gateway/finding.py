"""Finding the model that a request names, without holding up the others."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from ollama_async.models.catalog import Catalog
from ollama_async.models.model import Model

_log = logging.getLogger(__name__)
_MOST_WARNINGS = 1000


class Finder:
    """Models by name, and the warnings about them that were given already."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._warned: set[str] = set()

    async def find(self, name: str) -> Model:
        """A model that has been asked for before costs one ``stat``; others are read in a thread.

        :raises NotFound: and whatever else ``Catalog.find`` raises, in Ollama's words.
        """
        model = self._catalog.find_cached(name)
        if model is None:
            model = await asyncio.to_thread(self._catalog.find, name)
        if model.template and model.digest not in self._warned:
            self._warn(model)
        return model

    def _warn(self, model: Model) -> None:
        """Once for each version of a model; rather forgets than grows."""
        if len(self._warned) >= _MOST_WARNINGS:
            self._warned.clear()
        self._warned.add(model.digest)
        _log.warning(
            "%s has a Go TEMPLATE, which is not run yet; its GGUF's own chat template is used",
            model.name,
        )


FINDER: web.AppKey[Finder] = web.AppKey("finder", Finder)
