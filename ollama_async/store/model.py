"""The data of one model in the store."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from ollama_async.api.ollama_models import ModelDetails
from ollama_async.core.conversation import ChatFormatSpec, Message
from ollama_async.gguf.summary import GgufSummary
from ollama_async.prompts.chat_format import Selection
from ollama_async.store.cache import JSON_COST

_MIN_ENTRY_BYTES = 2048


class ModelListEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the list of models.

    ``name``: short, with tag, spelled as on disk. ``digest``: sha256 of the manifest, 64 hex
    digits. ``size``: bytes of all layers. ``modified_at``: seconds since the epoch.
    """

    name: str
    digest: str
    size: int
    modified_at: float
    details: ModelDetails
    capabilities: tuple[str, ...] = ("completion",)

    @property
    def memory_bytes(self) -> int:
        """An upper bound."""
        return _MIN_ENTRY_BYTES + _parsed_bytes((self.details, self.capabilities))


class Model(ModelListEntry, frozen=True, kw_only=True):
    """A model that can be loaded.

    ``key`` is equal for models with the same files. ``path``: the GGUF file; for the scripted
    engine the name in its file. ``template``: Go text or "". ``parameters``: as stored, types not
    checked. ``projectors``, ``adapters``, ``drafts``, ``licenses``: paths. ``adapter_bytes``: of
    the adapters' tensors. ``projector_bytes``: of the first projector's; 0: it cannot be read.
    ``requires``: an Ollama release. ``selection``: the template in force.
    """

    engine: Literal["llama_cpp", "scripted"] = "llama_cpp"
    key: str
    path: str
    template: str = ""
    system: str = ""
    parameters: dict[str, Any] = {}
    messages: list[Message] = []
    summary: GgufSummary
    projectors: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    adapter_bytes: int = 0
    projector_bytes: int = 0
    drafts: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    selection: Selection = "none"

    @property
    def chat_format(self) -> ChatFormatSpec:
        return ChatFormatSpec(
            template=self.template,
            renderer=self.renderer,
            parser=self.parser,
            name=self.name,
            family=self.details.family,
            parameter_count=self.summary.parameter_count,
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files that a worker opens."""
        return (self.path, *self.adapters, *self.projectors)

    @property
    def memory_bytes(self) -> int:
        """An upper bound: models may share texts."""
        texts = (self.template, self.system, self.summary.chat_template)
        paths = (*self.files, *self.drafts, *self.licenses, self.key)
        parsed = (self.parameters, self.messages, self.renderer, self.parser, self.requires)
        return self.list_entry.memory_bytes + _size(texts) + _size(paths) + _parsed_bytes(parsed)

    @property
    def list_entry(self) -> ModelListEntry:
        fields = ModelListEntry.__struct_fields__
        return ModelListEntry(**{name: getattr(self, name) for name in fields})


def _size(texts: Iterable[str]) -> int:
    return sum(map(sys.getsizeof, texts))


def _parsed_bytes(value: object) -> int:
    return JSON_COST * len(msgspec.json.encode(value))
