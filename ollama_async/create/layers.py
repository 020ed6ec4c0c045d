"""The layers of a new model: weights, adapters, projectors, and the detected chat format."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ollama_async.api.ollama_models import CreateRequest, ProgressStatus, format_parameter_count
from ollama_async.core.errors import BadRequest
from ollama_async.gguf.projector_faults import check_projector
from ollama_async.gguf.reader import read_header
from ollama_async.gguf.summary import GgufSummary
from ollama_async.gocompat.json_encode import encode_line
from ollama_async.prompts.known_templates import detect
from ollama_async.store.layout import StoreLayout
from ollama_async.store.manifests import (
    TEXT_LIMIT_BYTES,
    Config,
    Layer,
    layer_type,
    read_config,
)


class NewModel(msgspec.Struct):
    """A model without a manifest; its blobs are in the store."""

    layers: list[Layer]
    config: Config

    def replace(self, kind: str, layers: list[Layer]) -> None:
        """Replace all layers of the kind; does nothing if ``layers`` is empty."""
        if layers:
            self.layers = [layer for layer in self.layers if layer.kind != kind] + layers


def from_model(layout: StoreLayout, path: str, rewritten: Mapping[str, str]) -> NewModel:
    """The layers of the manifest at ``path``.

    ``rewritten``: digests in the manifest to those of the blobs to use instead. The caller holds
    the store's lock: replacing the model removes its blobs.

    :raises BadRequest: the model cannot be read or run, or was replaced since it was rewritten.
    """
    manifest = layout.read_manifest(path)
    short = layout.manifests.name_of(path).short
    if manifest is None:
        raise BadRequest(f"model '{short}' cannot be read")
    if not rewritten.keys() <= manifest.digests:
        raise BadRequest(f"model '{short}' was replaced meanwhile; try again")
    config = Config()
    if manifest.config.digest:
        config = read_config(layout.blobs.read(manifest.config.digest, TEXT_LIMIT_BYTES))
    for layer in manifest.layers:
        layer.from_ = short
        if layer.digest in rewritten:
            layer.digest = rewritten[layer.digest]
            layer.size = layout.blobs.size(layer.digest)
            if layer.kind == "model":
                config.file_type = layout.cache.summary(layer.digest).quantization
        elif layer.kind == "model":
            _check_runnable(f"model '{short}'", layout.cache.summary(layer.digest))
    return NewModel(manifest.layers, config)


def from_files(layout: StoreLayout, files: Mapping[str, str]) -> NewModel:
    """A model of GGUF blobs by file name. :raises BadRequest: not exactly one is a model."""
    pairs = _gguf_layers(layout, files)
    models = [summary for layer, summary in pairs if layer.kind == "model"]
    if len(models) != 1:
        raise BadRequest(f"{len(models)} of the files are models, exactly one must be")
    families = dict.fromkeys(summary.architecture for _, summary in pairs)
    config = Config(
        model_format="gguf",
        model_family=models[0].architecture,
        model_families=list(families),
        model_type=format_parameter_count(models[0].parameter_count),
        file_type=models[0].quantization,
    )
    return NewModel([layer for layer, _ in pairs], config)


def add_files(layout: StoreLayout, model: NewModel, files: Mapping[str, str]) -> None:
    """Add projectors and adapters. :raises BadRequest: a file is a model."""
    pairs = _gguf_layers(layout, files)
    if any(layer.kind == "model" for layer, _ in pairs):
        raise BadRequest("a model can be made from a model or from a file, not from both")
    for kind in ("adapter", "projector"):
        model.replace(kind, [layer for layer, _ in pairs if layer.kind == kind])


def adapters(layout: StoreLayout, files: Mapping[str, str]) -> list[Layer]:
    """:raises BadRequest: a file is not an adapter."""
    return _layers_of(layout, files, "adapter", "an adapter")


def drafts(layout: StoreLayout, files: Mapping[str, str]) -> list[Layer]:
    """Draft models, for speculative decoding. :raises BadRequest: a file is not a model."""
    layers = _layers_of(layout, files, "model", "a draft model")
    for layer in layers:
        layer.media_type = layer_type("draft")
    return layers


def check_runnable(layout: StoreLayout, files: Mapping[str, str]) -> None:
    """:raises BadRequest: a file is invalid, or an incomplete model."""
    for name, digest in files.items():
        _check_runnable(f'file "{name}"', layout.cache.summary(digest))


def check_adapters(layout: StoreLayout, model: NewModel) -> None:
    """:raises BadRequest: an adapter cannot be applied to the model."""
    weights = [layer for layer in model.layers if layer.kind == "model"]
    for layer in model.layers:
        if layer.kind == "adapter" and weights:
            layout.cache.check_adapter(layer.digest, weights[0].digest)


def check_projectors(layout: StoreLayout, model: NewModel) -> None:
    """:raises BadRequest: a projector is for another model."""
    blobs = layout.blobs
    weights = [layer for layer in model.layers if layer.kind == "model"]
    projectors = [layer for layer in model.layers if layer.kind == "projector"]
    if not (weights and projectors):
        return
    base = read_header(blobs.path(weights[0].digest))
    for layer in projectors:
        try:
            projector = read_header(blobs.path(layer.digest))
        except BadRequest:  # old ones are no GGUF files; their models work without them
            continue
        check_projector(projector, base)


def _check_runnable(what: str, summary: GgufSummary) -> None:
    if summary.missing_part:
        raise BadRequest(f"{what} has {summary.missing_part}")


def _layers_of(
    layout: StoreLayout, files: Mapping[str, str], kind: str, description: str
) -> list[Layer]:
    layers = [layer for layer, _ in _gguf_layers(layout, files)]
    for layer in layers:
        if layer.kind != kind:
            raise BadRequest(f'file "{layer.from_}" is not {description}')
    return layers


def _gguf_layers(layout: StoreLayout, files: Mapping[str, str]) -> list[tuple[Layer, GgufSummary]]:
    """A layer for each file, of the kind that its header declares; models first."""
    pairs: list[tuple[Layer, GgufSummary]] = []
    for name, digest in files.items():
        summary = layout.cache.summary(digest)
        layer = Layer(layer_type(summary.kind), digest, layout.blobs.size(digest), from_=name)
        pairs.append((layer, summary))
    return sorted(pairs, key=lambda pair: pair[0].kind != "model")


_BUILT_IN_FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gemma4": ("gemma4", ("<turn|>",)),
    "laguna": ("laguna", ()),
    "nemotron_h": ("nemotron-3-nano", ()),
    "nemotron_h_moe": ("nemotron-3-nano", ()),
}
"""Renderer and parser, and stop texts, by architecture. They override the file's template."""


def add_chat_format(
    layout: StoreLayout, model: NewModel, request: CreateRequest
) -> list[ProgressStatus]:
    """Add the chat format detected in the model's file, unless ``request`` gives another one.

    Returns statuses to report. Blocks; writes small blobs.
    """
    weights = next(layer.digest for layer in model.layers if layer.kind == "model")
    summary = layout.cache.summary(weights)
    built_in = _BUILT_IN_FORMATS.get(summary.architecture)
    if built_in is not None:
        name, stop = built_in
        if not (request.template or request.renderer or request.parser):
            model.config.renderer = model.config.parser = name
        _add_stop(layout, model, stop)
        return []
    known = detect(summary.chat_template)
    if known is None:
        return []
    if not request.template:
        model.layers.append(put_layer(layout, layer_type("template"), known.template.encode()))
    _add_stop(layout, model, known.stop)
    return [{"status": f"using autodetected template {known.name}"}]


def _add_stop(layout: StoreLayout, model: NewModel, texts: tuple[str, ...]) -> None:
    if texts:
        model.layers.append(put_layer(layout, layer_type("params"), encode_line({"stop": texts})))


def put_layer(
    layout: StoreLayout,
    media_type: str,
    content: bytes,
    statuses: list[ProgressStatus] | None = None,
) -> Layer:
    """Store a small layer; its status is added to ``statuses``."""
    digest, is_new = layout.blobs.put(content)
    if statuses is not None:
        word = "creating new" if is_new else "using existing"
        statuses.append({"status": f"{word} layer {digest}"})
    return Layer(media_type, digest, len(content))
