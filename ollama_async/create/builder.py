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
NewBlobs = Generator[ProgressStatus, None, Digests]


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
    return _Builder(store.layout, checked).run()


class _Builder:
    """Does the work of one checked request; its generators return blobs by file name."""

    def __init__(self, layout: StoreLayout, checked: CheckedRequest) -> None:
        self._layout = layout
        self._checked = checked

    def run(self) -> Iterator[ProgressStatus]:
        layout, checked = self._layout, self._checked
        groups = (checked.files, checked.adapters, checked.drafts)
        if any(not is_published_part(name, files) for files in groups for name in files):
            yield {"status": "parsing GGUF"}
        with storage_errors(layout.root):
            files = yield from self._gguf_blobs(checked.files, checked.level)
            layers.check_runnable(layout, files)
            adapter_layers = layers.adapters(layout, (yield from self._adapters(files)))
            drafts = yield from self._gguf_blobs(checked.drafts, checked.draft_level)
            if checked.draft_level:
                drafts = yield from self._quantized(drafts, checked.draft_level)
            draft_layers = layers.drafts(layout, drafts)
            rewritten: Digests = {}
            if checked.level:
                weights = self._weights(files)
                layers.check_runnable(layout, weights)
                quantized = yield from self._quantized(weights, checked.level)
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

    def _gguf_blobs(self, files: Mapping[str, Source], level: str = "") -> NewBlobs:
        """All files as GGUF blobs: published ones are converted, with ``level`` in mind, and the
        parts of one model are joined.
        """
        layout = self._layout
        digests: Digests = {}
        published = {name: files[name] for name in files if is_published_part(name, files)}
        if published:
            paths = self._paths(published)
            digests[conversion.MODEL_NAME] = yield from conversion.store_model(layout, paths, level)
        for name, source in files.items():
            if name in published:
                continue
            if isinstance(source, Path):
                digests[name] = yield from conversion.store_local_file(layout, name, source)
            else:
                digests[name] = source
        summary = layout.cache.summary
        parts = {name: digest for name, digest in digests.items() if summary(digest).is_split}
        if parts:
            whole = yield from quantize.join_parts(layout, list(parts.values()))
            rest = {name: digest for name, digest in digests.items() if name not in parts}
            digests = {min(parts): whole} | rest
        return digests

    def _adapters(self, files: Digests) -> NewBlobs:
        """As GGUF blobs; a published adapter is converted for the model that is being created."""
        adapters = self._checked.adapters
        if not is_published_adapter(adapters):
            return (yield from self._gguf_blobs(adapters))
        bases = set(self._weights(files).values())
        if len(bases) != 1:
            raise BadRequest("an adapter needs exactly one model that it is for")
        paths = self._paths(adapters)
        digest = yield from conversion.store_adapter(self._layout, paths, bases.pop())
        return {conversion.ADAPTER_NAME: digest}

    def _paths(self, files: Mapping[str, Source]) -> dict[str, Path]:
        return {
            name: source if isinstance(source, Path) else self._layout.blobs.path(source)
            for name, source in files.items()
        }

    def _weights(self, files: Digests) -> Digests:
        """What can be quantized: models, no projectors and no adapters."""
        summary, base = self._layout.cache.summary, self._checked.base
        weights = {
            name: digest for name, digest in files.items() if summary(digest).kind == "model"
        }
        manifest = self._layout.read_manifest(base) if base else None
        for layer in manifest.layers if manifest is not None else ():
            if layer.kind == "model":
                weights[layer.digest] = layer.digest
        return weights

    def _quantized(self, digests: Digests, level: str) -> NewBlobs:
        quantized: Digests = {}
        for name, digest in digests.items():
            quantized[name] = yield from quantize.quantize(self._layout, digest, level)
        return quantized
