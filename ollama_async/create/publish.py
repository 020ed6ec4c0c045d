"""The end of ``create``: small layers, config, and last of all the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ollama_async.api.ollama import CreateRequest
from ollama_async.core.errors import BadRequest
from ollama_async.core.model_names import ModelName
from ollama_async.create.layers import Assembly
from ollama_async.store.layout import Shelf
from ollama_async.store.manifest import (
    CONFIG_TYPE,
    LAYERS_LIMIT,
    LICENSES_LIMIT,
    MANIFEST_LIMIT_BYTES,
    TEXT_LIMIT_BYTES,
    Config,
    Layer,
    Manifest,
    go_json,
    layer_type,
)

Status = dict[str, Any]


def publish(
    shelf: Shelf, name: ModelName, assembly: Assembly, request: CreateRequest, *, keeps_unused: bool
) -> list[Status]:
    """Give the model its texts, as ``request`` has them, and its name; the caller holds the lock.

    The statuses are returned and not yielded: a slow client must not hold the lock.
    ``request.parameters`` are typed already. ``keeps_unused``: leave the layers of a model that is
    replaced.

    :raises BadRequest: a text is too large; or a blob was removed meanwhile.
    :raises OSError: disk full or not writable; the name is unchanged.
    """
    for layer in assembly.layers:
        if not shelf.blobs.has(layer.digest):
            raise BadRequest(f"{layer.digest} is not in the store any more; upload it again")
    edits = list(_edits(shelf, request, assembly))
    config = go_json(_config(request, assembly.config))
    _check_sizes(assembly, [*((kind, content) for kind, content, _ in edits), ("config", config)])

    statuses = [{"status": f"using existing layer {layer.digest}"} for layer in assembly.layers]
    layers = list(assembly.layers)
    for kind, content, replaced in edits:
        new = _store(shelf, layer_type(kind), content, statuses)
        same = (new.media_type, new.digest)
        layers = [
            layer
            for layer in layers
            if layer.kind not in replaced and (layer.media_type, layer.digest) != same
        ]
        layers.append(new)
    manifest = Manifest(config=_store(shelf, CONFIG_TYPE, config, statuses), layers=layers)
    _write(shelf, name, manifest, keeps_unused=keeps_unused)
    return statuses


def _write(shelf: Shelf, name: ModelName, manifest: Manifest, *, keeps_unused: bool) -> None:
    data = go_json(manifest)
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise BadRequest(f"the manifest is larger than {MANIFEST_LIMIT_BYTES} bytes")
    if len(manifest.blobs) > LAYERS_LIMIT:
        raise BadRequest(f"the model would have more than {LAYERS_LIMIT} layers")
    name = shelf.manifests.spelled(name)
    old_path = shelf.manifests.locate(name)
    old = shelf.manifest(old_path) if old_path else None
    shelf.manifests.write(name, data)
    if old is not None and not keeps_unused:
        shelf.drop(old.digests - manifest.digests)


def _check_sizes(assembly: Assembly, texts: list[tuple[str, bytes]]) -> None:
    """What is written must be something that is read again. :raises BadRequest: it is too much."""
    for kind, content in texts:
        if len(content) > TEXT_LIMIT_BYTES:
            raise BadRequest(f"the {kind} is larger than {TEXT_LIMIT_BYTES} bytes")
    kinds = [*(layer.kind for layer in assembly.layers), *(kind for kind, _ in texts)]
    if kinds.count("license") > LICENSES_LIMIT:
        raise BadRequest(f"a model may have at most {LICENSES_LIMIT} licenses")


def _edits(
    shelf: Shelf, request: CreateRequest, assembly: Assembly
) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """Kind and content of each layer that the request asks for, and the kinds that it replaces."""
    if request.template:
        yield "template", request.template.encode(), ("template", "prompt")
    if request.system:
        yield "system", request.system.encode(), ("system",)
    for text in _licenses(request.license):
        yield "license", text.encode(), ()
    if request.parameters:
        merged = _base_parameters(shelf, assembly) | request.parameters
        ordered = {key: _go_number(merged[key]) for key in sorted(merged)}
        yield "params", go_json(ordered), ("params",)
    if request.messages:
        turns = [
            {"role": turn.role, "content": turn.content} | msgspec.to_builtins(turn)
            for turn in request.messages
        ]
        yield "messages", go_json(turns), ("messages",)


def _licenses(license_: object) -> list[str]:
    texts = license_ if isinstance(license_, list) else [license_]
    return [text for text in texts if isinstance(text, str) and text]


def _base_parameters(shelf: Shelf, assembly: Assembly) -> dict[str, Any]:
    for layer in assembly.layers:
        if layer.kind == "params":
            try:
                data = shelf.blobs.read(layer.digest, TEXT_LIMIT_BYTES)
                return msgspec.json.decode(data, type=dict[str, Any])
            except (ValueError, RecursionError):
                raise BadRequest(f"the parameters in {layer.digest} are not valid JSON") from None
    return {}


def _go_number(value: Any) -> Any:
    """Go writes 1.0 as 1; the same bytes give the same digest."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _config(request: CreateRequest, base: Config) -> Config:
    return msgspec.structs.replace(
        base,
        renderer=request.renderer or base.renderer,
        parser=request.parser or base.parser,
        requires=request.requires or base.requires,
        architecture="amd64",
        os="linux",
    )


def _store(shelf: Shelf, media_type: str, content: bytes, statuses: list[Status]) -> Layer:
    digest, is_new = shelf.blobs.put(content)
    word = "creating new" if is_new else "using existing"
    statuses.append({"status": f"{word} layer {digest}"})
    return Layer(media_type, digest, len(content))
