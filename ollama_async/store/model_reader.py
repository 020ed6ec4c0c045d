"""Reads a model from its manifest, and explains why a model cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.api.ollama_models import ModelDetails, format_parameter_count
from ollama_async.core.conversation import ChatFormatSpec, Message
from ollama_async.core.errors import BadRequest, LoadFailed
from ollama_async.core.model_names import ModelName
from ollama_async.gguf.summary import GgufSummary
from ollama_async.prompts import parsers
from ollama_async.prompts.chat_format import (
    HARMONY_FAMILIES,
    Selection,
    format_name,
    go_abilities,
    jinja_abilities,
    select,
)
from ollama_async.prompts.output_format import OutputFormat
from ollama_async.store.blobs import Blobs
from ollama_async.store.cache import BlobCache
from ollama_async.store.files import FileSignature, read_bounded
from ollama_async.store.manifests import (
    LICENSES_LIMIT,
    MANIFEST_LIMIT_BYTES,
    Config,
    Layer,
    Manifest,
    read_manifest,
)
from ollama_async.store.model import Model

_MAX_WATCHED = 64

BlobSignatures = tuple[tuple[str, FileSignature], ...]
"""Digests of blobs, with the signatures of their files."""


class BrokenModel(LoadFailed):
    """A model that cannot be used.

    The error is valid while the manifest and the blobs ``watched`` are unchanged; None: unknown.
    """

    def __init__(self, message: str, watched: BlobSignatures | None) -> None:
        super().__init__(message)
        self.watched = watched


class _RemoteModel(BadRequest):
    """The model is on another server."""


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
    """Read everything that the manifest at ``path`` references.

    ``prefers_go``: see :func:`~ollama_async.prompts.chat_format.select`.

    :raises FileNotFoundError: the manifest is missing.
    :raises BadRequest: the model is on another server.
    :raises BrokenModel: the model is broken, or of a kind that cannot be run here.
    """
    watched: BlobSignatures | None = ()
    try:
        modified_at = path.stat().st_mtime
        data = read_bounded(path, MANIFEST_LIMIT_BYTES)
        manifest = read_manifest(data)
        watched = _signatures(manifest, blobs)
        reader = _ModelReader(name, manifest, blobs, cache, prefers_go)
        return reader.model(hashlib.sha256(data).hexdigest(), modified_at)
    except FileNotFoundError as error:
        if Path(error.filename) == path:
            raise
        reason = f"is broken: {Path(error.filename).name} is missing"
    except _RemoteModel:
        raise
    except _NotRunnable as error:
        reason = error.message
    except BadRequest as error:
        reason = f"is broken: {error.message}"
    except OSError as error:  # permissions, disk errors, too many open files: may be temporary
        # the path in the error is private
        reason, watched = f"is broken: {error.strerror or 'a file cannot be read'}", None
    raise BrokenModel(f"model '{name.short}' {reason}", watched)


def _signatures(manifest: Manifest, blobs: Blobs) -> BlobSignatures | None:
    """Call this before reading the blobs: then a repair meanwhile changes the signature."""
    layers = manifest.blobs
    if len(layers) > _MAX_WATCHED:
        return None
    return tuple((layer.digest, blobs.signature(layer.digest)) for layer in layers)


def check_pulled(name: ModelName, manifest: Manifest, blobs: Blobs, cache: BlobCache) -> None:
    """Read a model whose blobs were pulled but whose manifest is not written yet.

    Models for other programs or other servers are accepted.

    :raises LoadFailed: it is broken, or a part that it needs to run is missing.
    :raises OSError: a blob is missing or cannot be read.
    """
    try:
        model = _ModelReader(name, manifest, blobs, cache).model("", 0.0)
        for layer in manifest.layers:
            if layer.kind in {"model", "draft"}:
                cache.summary(layer.digest)
    except (_RemoteModel, _NotRunnable):
        return
    except BadRequest as error:
        raise LoadFailed(f"the pulled model '{name.short}' is broken: {error.message}") from None
    if model.summary.missing_part:
        raise LoadFailed(f"the pulled model '{name.short}' has {model.summary.missing_part}")


class _ModelReader(msgspec.Struct, frozen=True):
    """Turns one manifest into a :class:`Model`."""

    name: ModelName
    manifest: Manifest
    blobs: Blobs
    cache: BlobCache
    prefers_go: bool | None = None

    def model(self, digest: str, modified_at: float) -> Model:
        config_digest = self.manifest.config.digest
        config = self.cache.config(config_digest) if config_digest else Config()
        if config.remote_host or config.remote_model:
            raise _RemoteModel("this server cannot run this remote model")
        weights = self._layers("model")
        if not weights:
            raise _NotRunnable("has no GGUF weights; only GGUF models can be run")
        weights_digest = weights[0].digest
        summary = self.cache.summary(weights_digest)
        adapters, projectors = self._layers("adapter"), self._layers("projector")
        for adapter in adapters:
            self.cache.check_adapter(adapter.digest, weights_digest)
        model = Model(
            name=self.name.short,
            key="+".join([weights_digest, *(layer.digest for layer in (*adapters, *projectors))]),
            digest=digest,
            size=self.manifest.size,
            modified_at=modified_at,
            details=_details(config, weights[0].from_, summary),
            path=str(self.blobs.existing_path(weights_digest)),
            template=self._text("template", "prompt"),
            system=self._text("system"),
            parameters=self._json("params", dict[str, Any], {}),
            messages=self._json("messages", list[Message], []),
            summary=summary,
            projectors=self._paths(projectors),
            adapters=self._paths(adapters),
            adapter_bytes=sum(self.cache.summary(each.digest).weights_bytes for each in adapters),
            drafts=self._paths(self._layers("draft")),
            licenses=self._paths(self._layers("license")[:LICENSES_LIMIT]),
            renderer=config.renderer,
            parser=config.parser,
            requires=config.requires,
        )
        spec = model.chat_format
        selection = select(spec, summary.chat_template, prefers_go=self.prefers_go)
        projected = [self._projector_summary(layer.digest) for layer in projectors]
        found = find_capabilities(config.capabilities, summary, projected, spec, selection)
        return msgspec.structs.replace(
            model,
            selection=selection,
            capabilities=found,
            projector_bytes=projected[0].weights_bytes if projected else 0,
        )

    def _projector_summary(self, digest: str) -> GgufSummary:
        """Old projectors are not GGUF files; their models work without them."""
        try:
            return self.cache.summary(digest)
        except BadRequest:
            return GgufSummary(kind="projector")

    def _layers(self, *kinds: str) -> list[Layer]:
        return [layer for layer in self.manifest.layers if layer.kind in kinds]

    def _paths(self, layers: list[Layer]) -> tuple[str, ...]:
        return tuple(str(self.blobs.existing_path(layer.digest)) for layer in layers)

    def _text(self, *kinds: str) -> str:
        """The first layer of one of the kinds; "" if there is none."""
        layers = self._layers(*kinds)
        return self.cache.text(layers[0].digest) if layers else ""

    def _json(self, kind: str, form: Any, absent: Any) -> Any:
        layers = self._layers(kind)
        if not layers:
            return absent
        try:
            return self.cache.json(layers[0].digest, form)
        except BadRequest as error:
            raise BadRequest(f"its {kind} layer is not valid: {error.message}") from None


def _details(config: Config, parent: str, summary: GgufSummary) -> ModelDetails:
    quantization = config.file_type
    if quantization.lower() in {"", "unknown"}:
        quantization = summary.quantization
    return ModelDetails(
        parent_model=parent,
        format=config.model_format or "gguf",
        family=config.model_family or summary.architecture,
        families=config.model_families,
        parameter_size=config.model_type or format_parameter_count(summary.parameter_count),
        quantization_level=quantization,
        context_length=config.context_length or summary.train_ctx,
        embedding_length=config.embedding_length or summary.embedding_length,
    )


# ----------------------------------------------------------------- capabilities


def find_capabilities(
    declared: Sequence[str],
    summary: GgufSummary,
    projectors: Sequence[GgufSummary],
    spec: ChatFormatSpec,
    selection: Selection,
) -> tuple[str, ...]:
    """The ``declared`` capabilities of a model's config, then the detected ones in Ollama's order.

    ``selection``: the template in force. Templates are parsed and never run, so this is safe with
    any text.
    """
    abilities = _abilities(summary.chat_template, spec, selection)
    checks = {
        "embedding": summary.is_embedding,
        "completion": not summary.is_embedding,
        "vision": summary.has_vision or bool(projectors),
        "audio": any(each.has_audio for each in (summary, *projectors)),
        "tools": "tools" in abilities,
        "insert": "insert" in abilities,
        "thinking": "thinking" in abilities or spec.family in HARMONY_FAMILIES,
    }
    found = [*declared, *(word for word, is_capable in checks.items() if is_capable)]
    return tuple(dict.fromkeys(found))


def _abilities(chat_template: str, spec: ChatFormatSpec, selection: Selection) -> frozenset[str]:
    """Abilities of the template in force and of the parser.

    Tools count only where the output format (as :func:`ollama_async.prompts.chat_format.choose`
    selects it) distinguishes calls from text.
    """
    named = parsers.named(format_name(selection, spec))
    found: frozenset[str] = frozenset()
    if selection == "gguf_chat_template":
        found = jinja_abilities(chat_template) - _unreadable(parsers.of_jinja(chat_template))
    elif selection in {"parser", "harmony", "go_template"}:
        found = go_abilities(spec.template)
    if named is None:
        return found
    handled = {"tools": named.handles_tools, "thinking": named.handles_thinking}
    return found - _unreadable(named) | {word for word, is_handled in handled.items() if is_handled}


def _unreadable(format_: OutputFormat | None) -> frozenset[str]:
    reads_calls = format_ is not None and format_.handles_tools
    return frozenset() if reads_calls else frozenset({"tools"})
