"""How a model is read from the store, and what is wrong with one that cannot be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api.counts import human_number
from ollama_async.api.ollama import ModelDetails
from ollama_async.core.conversation import Message
from ollama_async.core.errors import BadRequest, LoadFailed
from ollama_async.core.model_names import ModelName
from ollama_async.gguf.summary import ModelFacts
from ollama_async.prompts.chat_format import select
from ollama_async.store.blob_cache import BlobCache
from ollama_async.store.blobs import Blobs
from ollama_async.store.capabilities import capabilities
from ollama_async.store.files import read_bounded
from ollama_async.store.manifest import (
    LICENSES_LIMIT,
    MANIFEST_LIMIT_BYTES,
    Config,
    Layer,
    Manifest,
    read_manifest,
)
from ollama_async.store.model import Model
from ollama_async.store.remembered import Signature

_MOST_WATCHED = 64

Watched = tuple[tuple[str, Signature], ...]
"""Digests of blobs, and the signatures that their files had."""


class Broken(LoadFailed):
    """A model that cannot be used. It stays so while its manifest and the blobs ``watched`` stay as
    they are; None: nobody knows how long.
    """

    def __init__(self, message: str, watched: Watched | None) -> None:
        super().__init__(message)
        self.watched = watched


class _Elsewhere(BadRequest):
    """The manifest only points to another server."""


class _NotRunnable(BadRequest):
    """A model for other programs."""


def read_model(
    name: ModelName,
    path: Path,
    blobs: Blobs,
    cache: BlobCache,
    *,
    prefers_go: bool | None = None,
) -> Model:
    """Read everything that ``path``, a manifest, refers to. ``prefers_go``: see
    :func:`~ollama_async.prompts.chat_format.select`.

    :raises FileNotFoundError: the manifest is gone.
    :raises BadRequest: the model lives on another server.
    :raises Broken: the model is broken, or of a kind that cannot be run here.
    """
    watched: Watched | None = ()
    try:
        modified_at = path.stat().st_mtime
        data = read_bounded(path, MANIFEST_LIMIT_BYTES)
        manifest = read_manifest(data)
        watched = _watched(manifest, blobs)
        reader = _Reader(name, manifest, blobs, cache, prefers_go)
        return reader.model(hashlib.sha256(data).hexdigest(), modified_at)
    except FileNotFoundError as error:
        if Path(error.filename) == path:
            raise
        reason = f"is broken: {Path(error.filename).name} is missing"
    except _Elsewhere:
        raise
    except _NotRunnable as error:
        reason = error.message
    except BadRequest as error:
        reason = f"is broken: {error.message}"
    except OSError as error:  # of rights, of the disk, too many open files: it may pass
        reason, watched = f"is broken: {_said(error)}", None
    raise Broken(f"model '{name.short}' {reason}", watched)


def _watched(manifest: Manifest, blobs: Blobs) -> Watched | None:
    """To be asked for before they are read: what is mended meanwhile has another signature then."""
    layers = manifest.blobs
    if len(layers) > _MOST_WATCHED:
        return None
    return tuple((layer.digest, blobs.signature(layer.digest)) for layer in layers)


def check_arrival(name: ModelName, manifest: Manifest, blobs: Blobs, cache: BlobCache) -> None:
    """Read a model whose blobs have come and whose manifest has not, as it would be read then.
    What other programs run, or other servers, passes.

    :raises LoadFailed: it is broken, or lacks what it needs to be run.
    :raises OSError: a blob is gone, or cannot be read.
    """
    try:
        model = _Reader(name, manifest, blobs, cache, None).model("", 0.0)
        for layer in manifest.layers:
            if layer.kind in {"model", "draft"}:
                cache.facts(layer.digest)
    except (_Elsewhere, _NotRunnable):
        return
    except BadRequest as error:
        raise LoadFailed(f"the pulled model '{name.short}' is broken: {error.message}") from None
    if model.facts.lack:
        raise LoadFailed(f"the pulled model '{name.short}' has {model.facts.lack}")


def _said(error: OSError) -> str:
    """Without the path that it may name."""
    return error.strerror or "a file cannot be read"


class _Reader:
    """Turns one manifest into a :class:`Model`."""

    def __init__(
        self,
        name: ModelName,
        manifest: Manifest,
        blobs: Blobs,
        cache: BlobCache,
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
            raise _NotRunnable("has no GGUF weights; only GGUF models can be run")
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
            path=str(self._blobs.file(blob_digest)),
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
            licenses=self._paths(self._layers("license")[:LICENSES_LIMIT]),
            renderer=config.renderer,
            parser=config.parser,
            requires=config.requires,
        )
        spec = model.chat_format
        selection = select(spec, facts.chat_template, prefers_go=self._prefers_go)
        seen = [self._facts_of_projector(layer.digest) for layer in projectors]
        found = capabilities(config.capabilities, facts, seen, spec, selection)
        return msgspec.structs.replace(model, selection=selection, capabilities=found)

    def _facts_of_projector(self, digest: str) -> ModelFacts:
        """Old ones are of other formats than GGUF; their models are of use without them."""
        try:
            return self._cache.facts(digest)
        except BadRequest:
            return ModelFacts(kind="projector")

    def _config(self) -> Config:
        digest = self._manifest.config.digest
        return self._cache.config(digest) if digest else Config()

    def _layers(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self._manifest.layers if layer.kind in kinds]

    def _paths(self, layers: list[Layer]) -> tuple[str, ...]:
        return tuple(str(self._blobs.file(layer.digest)) for layer in layers)

    def _text(self, *kinds: str) -> str:
        """The first layer of one of the kinds; "" if there is none."""
        for layer in self._layers(*kinds):
            return self._cache.text(layer.digest)
        return ""

    def _json(self, kind: str, form: Any, absent: Any) -> Any:
        layers = self._layers(kind)
        if not layers:
            return absent
        try:
            return self._cache.json(layers[0].digest, form)
        except BadRequest as error:
            raise BadRequest(f"its {kind} layer is not valid: {error.message}") from None


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
