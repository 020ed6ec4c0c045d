"""One model as the rest of the server sees it, and how it is read from the store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from ollama_async.api.counts import human_number
from ollama_async.api.ollama import ModelDetails
from ollama_async.conversation import Message, Speech
from ollama_async.errors import BadRequest, LoadFailed, ServerError
from ollama_async.models.adapter_fit import check_fit
from ollama_async.models.blobs import Blobs
from ollama_async.models.capabilities import capabilities
from ollama_async.models.facts import ModelFacts, facts_of
from ollama_async.models.gguf import read_header
from ollama_async.models.manifest import (
    MANIFEST_LIMIT_BYTES,
    TEXT_LIMIT_BYTES,
    Config,
    Layer,
    Manifest,
    read_config,
    read_manifest,
)
from ollama_async.models.storage import read_bounded
from ollama_async.names import ModelName
from ollama_async.prompts.selection import Selection, select

_MOST_FACTS = 256


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be asked.

    ``name``: short, with tag, spelled as on disk. ``key`` tells apart what a worker loads: equal
    for two names of the same files. ``digest``: sha256 of the manifest, 64 hex digits.
    ``size``: bytes of all layers. ``modified_at``: seconds since the epoch. ``path``: the GGUF, or
    for the scripted engine the name in its file. ``template``: Go text, "" if there is none.
    ``parameters``: as stored, types not checked. ``projectors``, ``adapters``, ``drafts``,
    ``licenses``: paths (licenses are long, and rarely read). ``adapter_bytes``: of the adapters'
    tensors. ``requires``: an Ollama release. ``selection``: which template is in force.
    """

    name: str
    engine: Literal["llama_cpp", "scripted"] = "llama_cpp"
    key: str
    digest: str
    size: int
    modified_at: float
    details: ModelDetails
    path: str
    blob_digest: str = ""
    template: str = ""
    system: str = ""
    parameters: dict[str, Any] = {}
    messages: list[Message] = []
    capabilities: tuple[str, ...] = ("completion",)
    facts: ModelFacts
    projectors: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    adapter_bytes: int = 0
    drafts: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    selection: Selection = "none"

    @property
    def speech(self) -> Speech:
        """How it wants to be spoken to."""
        return Speech(
            template=self.template,
            renderer=self.renderer,
            parser=self.parser,
            name=self.name,
            family=self.details.family,
            parameter_count=self.facts.parameter_count,
        )


class FactsCache:
    """Facts by digest: a blob's content never changes, and a header takes up to 100 ms to read."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._facts: dict[str, ModelFacts] = {}
        self._fitting: set[tuple[str, str]] = set()

    def facts(self, digest: str) -> ModelFacts:
        """:raises BadRequest: not a sound GGUF. :raises OSError: the blob cannot be read."""
        known = self._facts.get(digest)
        if known is None:
            known = facts_of(read_header(self._blobs.path(digest)))
            if len(self._facts) >= _MOST_FACTS:
                self._facts.clear()
            self._facts[digest] = known
        return known

    def check_adapter(self, adapter: str, base: str) -> None:
        """:raises BadRequest: it cannot be applied to the base. :raises OSError: as above."""
        if (adapter, base) not in self._fitting:
            headers = (read_header(self._blobs.path(digest)) for digest in (adapter, base))
            check_fit(*headers)
            if len(self._fitting) >= _MOST_FACTS:
                self._fitting.clear()
            self._fitting.add((adapter, base))


def read_model(
    name: ModelName,
    path: Path,
    blobs: Blobs,
    cache: FactsCache,
    *,
    prefers_go: bool | None = None,
) -> Model:
    """Read everything that ``path``, a manifest, refers to. ``prefers_go``: see
    :func:`~ollama_async.prompts.selection.select`.

    :raises FileNotFoundError: the manifest is gone.
    :raises BadRequest: the model lives on another server.
    :raises LoadFailed: the model is broken, or of a kind that cannot be run here.
    """
    try:
        modified_at = path.stat().st_mtime
        data = read_bounded(path, MANIFEST_LIMIT_BYTES)
        reader = _Reader(name, read_manifest(data), blobs, cache, prefers_go)
        return reader.model(hashlib.sha256(data).hexdigest(), modified_at)
    except FileNotFoundError as error:
        if Path(error.filename) == path:
            raise
        raise LoadFailed(
            f"model '{name.short}' is broken: {Path(error.filename).name} is missing"
        ) from None
    except (BadRequest, OSError) as error:
        if isinstance(error, _Elsewhere):
            raise
        reason = error.message if isinstance(error, ServerError) else error.strerror or error
        raise LoadFailed(f"model '{name.short}' is broken: {reason}") from error


class _Elsewhere(BadRequest):
    """The manifest only points to another server."""


class _Reader:
    """Turns one manifest into a :class:`Model`."""

    def __init__(
        self,
        name: ModelName,
        manifest: Manifest,
        blobs: Blobs,
        cache: FactsCache,
        prefers_go: bool | None,
    ) -> None:
        self._name = name
        self._manifest = manifest
        self._blobs = blobs
        self._cache = cache
        self._prefers_go = prefers_go

    def model(self, digest: str, modified_at: float) -> Model:
        config = self._config()
        if config.remote_host or config.remote_model:
            raise _Elsewhere("this server cannot run this remote model")
        weights = self._layers("model")
        if not weights:
            raise LoadFailed(
                f"model '{self._name.short}' has no GGUF weights; only GGUF models can be run"
            )
        blob_digest = weights[0].digest
        facts = self._cache.facts(blob_digest)
        adapters, projectors = self._layers("adapter"), self._layers("projector")
        for adapter in adapters:
            self._cache.check_adapter(adapter.digest, blob_digest)
        model = Model(
            name=self._name.short,
            key="+".join([blob_digest, *(layer.digest for layer in (*adapters, *projectors))]),
            digest=digest,
            size=self._manifest.size,
            modified_at=modified_at,
            details=_details(config, weights[0].from_, facts),
            path=str(self._present(blob_digest)),
            blob_digest=blob_digest,
            template=self._text("template", "prompt"),
            system=self._text("system"),
            parameters=self._json("params", dict[str, Any], {}),
            messages=self._json("messages", list[Message], []),
            facts=facts,
            projectors=self._paths(projectors),
            adapters=self._paths(adapters),
            adapter_bytes=sum(self._cache.facts(each.digest).weights_bytes for each in adapters),
            drafts=self._paths(self._layers("draft")),
            licenses=self._paths(self._layers("license")),
            renderer=config.renderer,
            parser=config.parser,
            requires=config.requires,
        )
        speech = model.speech
        selection = select(speech, facts.chat_template, prefers_go=self._prefers_go)
        seen = [self._facts_of_projector(layer.digest) for layer in projectors]
        found = capabilities(config.capabilities, facts, seen, speech, selection)
        return msgspec.structs.replace(model, selection=selection, capabilities=found)

    def _facts_of_projector(self, digest: str) -> ModelFacts:
        """Old ones are of other formats than GGUF; their models are of use without them."""
        try:
            return self._cache.facts(digest)
        except BadRequest:
            return ModelFacts(kind="projector")

    def _config(self) -> Config:
        digest = self._manifest.config.digest
        return read_config(self._blobs.read(digest, TEXT_LIMIT_BYTES)) if digest else Config()

    def _layers(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self._manifest.layers if layer.kind in kinds]

    def _paths(self, layers: list[Layer]) -> tuple[str, ...]:
        return tuple(str(self._present(layer.digest)) for layer in layers)

    def _present(self, digest: str) -> Path:
        path = self._blobs.path(digest)
        path.stat()
        return path

    def _text(self, *kinds: str) -> str:
        """The first layer of one of the kinds; "" if there is none."""
        for layer in self._layers(*kinds):
            return self._blobs.read(layer.digest, TEXT_LIMIT_BYTES).decode(errors="replace")
        return ""

    def _json(self, kind: str, form: Any, absent: Any) -> Any:
        layers = self._layers(kind)
        if not layers:
            return absent
        try:
            return msgspec.json.decode(
                self._blobs.read(layers[0].digest, TEXT_LIMIT_BYTES), type=form
            )
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"its {kind} layer is not valid: {error}") from None


def _details(config: Config, parent: str, facts: ModelFacts) -> ModelDetails:
    quantization = config.file_type
    if quantization.lower() in {"", "unknown"}:
        quantization = facts.quantization
    return ModelDetails(
        parent_model=parent,
        format=config.model_format or "gguf",
        family=config.model_family or facts.architecture,
        families=config.model_families,
        parameter_size=config.model_type or human_number(facts.parameter_count),
        quantization_level=quantization,
        context_length=config.context_length or facts.train_ctx,
        embedding_length=config.embedding_length or facts.embedding_length,
    )
