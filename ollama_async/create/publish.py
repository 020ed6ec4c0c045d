"""The last step of ``create``: writes small layers, the config, and then the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ollama_async.api.ollama_models import CreateRequest, ProgressStatus
from ollama_async.core.errors import BadRequest
from ollama_async.core.model_names import ModelName
from ollama_async.create.layers import NewModel, put_layer
from ollama_async.gocompat.json_encode import encode_line
from ollama_async.store.layout import StoreLayout
from ollama_async.store.manifests import (
    CONFIG_TYPE,
    LAYERS_LIMIT,
    LICENSES_LIMIT,
    MANIFEST_LIMIT_BYTES,
    TEXT_LIMIT_BYTES,
    Config,
    Manifest,
    layer_type,
)


def publish(
    layout: StoreLayout, name: ModelName, model: NewModel, request: CreateRequest
) -> list[ProgressStatus]:
    """Add the texts of ``request`` to the model, and write its manifest. The caller holds the lock.

    Returns the statuses instead of yielding them: a slow client must not delay the lock's release.
    ``request.parameters`` are typed.

    :raises BadRequest: a text is too large, or a blob was removed meanwhile.
    :raises OSError: disk full or not writable; the name is unchanged.
    """
    for layer in model.layers:
        if not layout.blobs.has(layer.digest):
            raise BadRequest(f"{layer.digest} is not in the store any more; upload it again")
    edits = list(_edits(layout, request, model))
    config = encode_line(_config(request, model.config))
    _check_sizes(model, [*((kind, content) for kind, content, _ in edits), ("config", config)])

    statuses: list[ProgressStatus] = [
        {"status": f"using existing layer {layer.digest}"} for layer in model.layers
    ]
    layers = list(model.layers)
    for kind, content, replaced in edits:
        new = put_layer(layout, layer_type(kind), content, statuses)
        same = (new.media_type, new.digest)
        layers = [
            layer
            for layer in layers
            if layer.kind not in replaced and (layer.media_type, layer.digest) != same
        ]
        layers.append(new)
    manifest = Manifest(config=put_layer(layout, CONFIG_TYPE, config, statuses), layers=layers)
    data = encode_line(manifest)
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise BadRequest(f"the manifest is larger than {MANIFEST_LIMIT_BYTES} bytes")
    if len(manifest.blobs) > LAYERS_LIMIT:
        raise BadRequest(f"the model would have more than {LAYERS_LIMIT} layers")
    layout.replace_manifest(name, data, manifest.digests)
    return statuses


def _check_sizes(model: NewModel, texts: list[tuple[str, bytes]]) -> None:
    """The limits for reading apply to writing. :raises BadRequest:"""
    for kind, content in texts:
        if len(content) > TEXT_LIMIT_BYTES:
            raise BadRequest(f"the {kind} is larger than {TEXT_LIMIT_BYTES} bytes")
    kinds = [*(layer.kind for layer in model.layers), *(kind for kind, _ in texts)]
    if kinds.count("license") > LICENSES_LIMIT:
        raise BadRequest(f"a model may have at most {LICENSES_LIMIT} licenses")


def _edits(
    layout: StoreLayout, request: CreateRequest, model: NewModel
) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """Kind and content of each layer that the request adds, and the kinds that it replaces."""
    if request.template:
        yield "template", request.template.encode(), ("template", "prompt")
    if request.system:
        yield "system", request.system.encode(), ("system",)
    for text in request.license if isinstance(request.license, list) else [request.license]:
        if isinstance(text, str) and text:
            yield "license", text.encode(), ()
    if request.parameters:
        merged = _base_parameters(layout, model) | request.parameters
        ordered = {key: _go_number(merged[key]) for key in sorted(merged)}
        yield "params", encode_line(ordered), ("params",)
    if request.messages:
        turns = [
            {"role": turn.role, "content": turn.content} | msgspec.to_builtins(turn)
            for turn in request.messages
        ]
        yield "messages", encode_line(turns), ("messages",)


def _base_parameters(layout: StoreLayout, model: NewModel) -> dict[str, Any]:
    for layer in model.layers:
        if layer.kind == "params":
            try:
                data = layout.blobs.read(layer.digest, TEXT_LIMIT_BYTES)
                return msgspec.json.decode(data, type=dict[str, Any])
            except (ValueError, RecursionError):
                raise BadRequest(f"the parameters in {layer.digest} are not valid JSON") from None
    return {}


def _go_number(value: Any) -> Any:
    """As Go encodes numbers: 1.0 is 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _config(request: CreateRequest, base: Config) -> Config:
    texts = ("renderer", "parser", "requires")
    changed = {name: getattr(request, name) or getattr(base, name) for name in texts}
    return msgspec.structs.replace(base, **changed, architecture="amd64", os="linux")
