"""Finding the model that a request names, without holding up the others."""

from __future__ import annotations

import asyncio
import logging

from ollama_async.models.catalog import Catalog
from ollama_async.models.model import Model

_log = logging.getLogger(__name__)
_WARNINGS_LIMIT = 1000

_warned: set[str] = set()


async def find_model(catalog: Catalog, name: str) -> Model:
    """A model that has been asked for before costs one ``stat``; others are read in a thread.

    :raises NotFound: and whatever else ``Catalog.find`` raises, in Ollama's words.
    """
    model = catalog.find_cached(name)
    if model is None:
        model = await asyncio.to_thread(catalog.find, name)
    if model.template:
        _warn_of_template(model)
    return model


def _warn_of_template(model: Model) -> None:
    """Once for each version of a model; forgets rather than grows."""
    if model.digest in _warned:
        return
    if len(_warned) >= _WARNINGS_LIMIT:
        _warned.clear()
    _warned.add(model.digest)
    _log.warning(
        "%s has a Go TEMPLATE, which is not run yet; its GGUF's own chat template is used",
        model.name,
    )
