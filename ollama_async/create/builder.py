"""``create``: a new model from old layers, or from files, with changes on top.

What can be refused is refused before the first status. Blobs are written first and the manifest
last, under the store's lock: whenever the process dies, the store is consistent. Long work (copy,
conversion, joining, quantization) comes before the lock, in a generator that does as much of it as
its statuses are drawn. An uploaded file is checked, never rewritten unless that is requested, so
its digest stays what the client computed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from ollama_async.api.ollama import CreateRequest, ProgressStatus
from ollama_async.core.errors import BadRequest
from ollama_async.create import conversion, layers, quantize
from ollama_async.create.publish import publish
from ollama_async.create.request import (
    CheckedRequest,
    check_request,
    is_published_adapter,
    is_published_part,
)
from ollama_async.create.sources import Source
from ollama_async.store.files import storage_errors
from ollama_async.store.layout import StoreLayout
from ollama_async.store.store import Store

Digests = dict[str, str]
"""By file name."""


def create_model(
    store: Store, request: CreateRequest, *, reads_files: bool = False
) -> Iterator[ProgressStatus]:
    """Check the request, then return the statuses of the work, which is done as they are drawn.

    Both this call and the iterator block on the disk, each step for a fraction of a second; closing
    the iterator ends the work. ``reads_files``: the client may name files on this machine.

    :raises BadRequest: the request is invalid, or (from the iterator) a file is.
    :raises BaseMissing: the model to start from does not exist.
    :raises Forbidden: it names a cloud model, or a file that the client may not name.
    :raises Busy: (from the iterator) too many models are being quantized.
    :raises EngineFailed: (from the iterator) the library could not quantize.
    :raises StorageFailed: (from the iterator) disk full or not writable; the name is unchanged.
    """
    checked = check_request(store.layout, request, reads_files=reads_files)
    return _create(store.layout, checked)


def _create(layout: StoreLayout, checked: CheckedRequest) -> Iterator[ProgressStatus]:
    groups = (checked.files, checked.adapters, checked.drafts)
    if any(not is_published_part(name, files) for files in groups for name in files):
        yield {"status": "parsing GGUF"}
    with storage_errors(layout.root):
        files = yield from _gguf_blobs(layout, checked.files, checked.level)
        layers.check_runnable(layout, files)
        adapter_layers = layers.adapters(layout, (yield from _adapters(layout, checked, files)))
        drafts = yield from _gguf_blobs(layout, checked.drafts, checked.draft_level)
        if checked.draft_level:
            drafts = yield from _quantized(layout, drafts, checked.draft_level)
        draft_layers = layers.drafts(layout, drafts)
        rewritten: Digests = {}
        if checked.level:
            weights = _weights(layout, checked.base, files)
            layers.check_runnable(layout, weights)
            quantized = yield from _quantized(layout, weights, checked.level)
            rewritten = {weights[name]: digest for name, digest in quantized.items()}
            files = {name: rewritten.get(digest, digest) for name, digest in files.items()}
        # The base is read under the lock, because its layers are removed when it is replaced.
        detected: list[ProgressStatus] = []
        with layout.changing(checked.name):
            if checked.base:
                model = layers.from_model(layout, checked.base, rewritten)
                layers.add_files(layout, model, files)
            else:
                model = layers.from_files(layout, files)
                detected = layers.add_chat_format(layout, model, checked.request)
            model.replace("adapter", adapter_layers)
            layers.check_adapters(layout, model)
            model.replace("draft", draft_layers)
            statuses = publish(layout, checked.name, model, checked.request)
    yield from (*detected, *statuses)
    yield {"status": "writing manifest"}
    yield {"status": "success"}


def _gguf_blobs(
    layout: StoreLayout, files: Mapping[str, Source], level: str = ""
) -> Generator[ProgressStatus, None, Digests]:
    """All files as GGUF blobs: published ones are converted, with ``level`` in mind, and the parts
    of one model are joined.
    """
    digests: Digests = {}
    published = {name: files[name] for name in files if is_published_part(name, files)}
    if published:
        paths = _paths(layout, published)
        digests[conversion.MODEL_NAME] = yield from conversion.store_model(layout, paths, level)
    for name, source in files.items():
        if name in published:
            continue
        if isinstance(source, Path):
            digests[name] = yield from conversion.store_local_file(layout, name, source)
        else:
            digests[name] = source
    parts = {
        name: digest for name, digest in digests.items() if layout.cache.summary(digest).is_split
    }
    if parts:
        whole = yield from quantize.join_parts(layout, list(parts.values()))
        digests = {min(parts): whole} | {
            name: digest for name, digest in digests.items() if name not in parts
        }
    return digests


def _adapters(
    layout: StoreLayout, checked: CheckedRequest, files: Digests
) -> Generator[ProgressStatus, None, Digests]:
    """As GGUF blobs; a published adapter is converted for the model that is being created."""
    if not is_published_adapter(checked.adapters):
        return (yield from _gguf_blobs(layout, checked.adapters))
    bases = set(_weights(layout, checked.base, files).values())
    if len(bases) != 1:
        raise BadRequest("an adapter needs exactly one model that it is for")
    paths = _paths(layout, checked.adapters)
    digest = yield from conversion.store_adapter(layout, paths, bases.pop())
    return {conversion.ADAPTER_NAME: digest}


def _paths(layout: StoreLayout, files: Mapping[str, Source]) -> dict[str, Path]:
    return {
        name: source if isinstance(source, Path) else layout.blobs.path(source)
        for name, source in files.items()
    }


def _weights(layout: StoreLayout, base: str, files: Digests) -> Digests:
    """What can be quantized: models, no projectors and no adapters."""
    weights = {
        name: digest
        for name, digest in files.items()
        if layout.cache.summary(digest).kind == "model"
    }
    manifest = layout.read_manifest(base) if base else None
    base_layers = manifest.layers if manifest is not None else []
    return weights | {layer.digest: layer.digest for layer in base_layers if layer.kind == "model"}


def _quantized(
    layout: StoreLayout, digests: Digests, level: str
) -> Generator[ProgressStatus, None, Digests]:
    quantized: Digests = {}
    for name, digest in digests.items():
        quantized[name] = yield from quantize.quantize(layout, digest, level)
    return quantized
