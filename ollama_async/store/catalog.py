"""All models of this server: those in the store, and those of the scripted engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping

from ollama_async.api.ollama_models import ModelDetails
from ollama_async.core.model_names import ModelName, split_source
from ollama_async.core.scripted_models import Script
from ollama_async.gguf.summary import GgufSummary
from ollama_async.store.model import Model, ModelListEntry
from ollama_async.store.store import Store, newest_first


class Catalog:
    """``scripted``: the scripted engine's models by name. They hide models of the store.

    Threads and blocking are as in :class:`~ollama_async.store.store.Store`.
    """

    def __init__(self, store: Store, scripted: Mapping[str, Script] | None = None) -> None:
        """:raises ValueError: a name in ``scripted`` is invalid."""
        self.store = store
        started_at = time.time()
        self._scripted = {
            ModelName.parse(name).folded: _scripted_model(name, script, started_at)
            for name, script in (scripted or {}).items()
        }

    def find_cached(self, text: str) -> Model | None:
        return self._find_scripted(text) or self.store.find_cached(text)

    def find(self, text: str) -> Model:
        return self._find_scripted(text) or self.store.find(text)

    def scan(self) -> Iterator[list[ModelListEntry]]:
        """The store's models without hidden ones; see :meth:`.Store.scan`."""
        for models in self.store.scan():
            yield [model for model in models if self._find_scripted(model.name) is None]

    def complete_list(self, stored: Iterable[ModelListEntry]) -> list[ModelListEntry]:
        """All models: the scripted ones, then ``stored`` (from :meth:`scan`), newest first."""
        return [*(model.list_entry for model in self._scripted.values()), *newest_first(stored)]

    def _find_scripted(self, text: str) -> Model | None:
        if not self._scripted:
            return None
        try:
            reference = split_source(text)
            name = ModelName.parse(reference.text)
        except ValueError:  # the store raises the right error for that
            return None
        return None if reference.is_cloud else self._scripted.get(name.folded)


def _scripted_model(name: str, script: Script, modified_at: float) -> Model:
    return Model(
        name=ModelName.parse(name).short,
        engine="scripted",
        key=f"scripted:{name}",
        digest=hashlib.sha256(f"scripted:{name}".encode()).hexdigest(),
        size=0,
        modified_at=modified_at,
        details=ModelDetails(
            parent_model="",
            format="scripted",
            family="scripted",
            families=["scripted"],
            parameter_size="0",
            quantization_level="unknown",
        ),
        path=name,
        summary=GgufSummary(
            architecture="scripted",
            chat_template=script.template,
            embedding_length=script.dimensions,
            embedding="encoder" if script.is_embedding else "",
        ),
        template=script.go_template,
        renderer=script.renderer,
        parser=script.parser,
        capabilities=(
            "embedding" if script.is_embedding else "completion",
            *script.capabilities,
        ),
    )
