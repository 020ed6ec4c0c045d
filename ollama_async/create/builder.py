"""``create``: builds a new model from another model or from files, with changes.

Requests are checked before the first status. Blobs are written first and the manifest last, under
the store's lock, so the store is consistent whenever the process dies. Long work (copying,
converting, joining, quantizing) comes before the lock, in a generator of statuses. Uploaded files
are not rewritten unless requested, so their digests stay those that the client computed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from ollama_async.api.ollama_models import CreateRequest, ProgressStatus
from ollama_async.core.errors import BadRequest
from ollama_async.create import conversion, layers, quantize
from ollama_async.create.publish import publish
from ollama_async.create.request import (
    CheckedRequest,
    check_request,
    is_peft_adapter,
    is_safetensors_part,
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
    """Check the request, and return an iterator that does the work and yields its statuses.

    Both block on the disk; a step of the iterator for a fraction of a second. Closing it cancels
    the work. ``reads_files``: the client may name files on this machine.

    :raises BadRequest: the request or (from the iterator) a file is invalid.
    :raises BaseMissing: the base model does not exist.
    :raises Forbidden: it names a cloud model, or a file that the client may not name.
    :raises Busy: (from the iterator) too many models are being quantized.
    :raises EngineFailed: (from the iterator) the library could not quantize.
    :raises StorageFailed: (from the iterator) disk full or not writable; the name is unchanged.
    """
    checked = check_request(store.layout, request, reads_files=reads_files)
    return _Builder(store.layout, checked).run()


class _Builder:
    """Does the work of one checked request. Its generators return blobs by file name."""

    def __init__(self, layout: StoreLayout, checked: CheckedRequest) -> None:
        self._layout = layout
        self._checked = checked

    def run(self) -> Iterator[ProgressStatus]:
        layout, checked = self._layout, self._checked
        groups = (checked.files, checked.adapters, checked.drafts)
        if any(not is_safetensors_part(name, files) for files in groups for name in files):
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
                layers.check_projectors(layout, model)
                model.replace("draft", draft_layers)
                statuses = publish(layout, checked.name, model, checked.request)
        yield from (*detected, *statuses)
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    def _gguf_blobs(self, files: Mapping[str, Source], level: str = "") -> NewBlobs:
        """All files as GGUF blobs: converts safetensors (``level``: see
        :func:`.conversion.store_model`) and joins the parts of a model.
        """
        layout = self._layout
        digests: Digests = {}
        to_convert = {name: files[name] for name in files if is_safetensors_part(name, files)}
        if to_convert:
            paths = self._paths(to_convert)
            digests[conversion.MODEL_NAME] = yield from conversion.store_model(layout, paths, level)
            if projector := (yield from conversion.store_projector(layout, paths)):
                digests[conversion.PROJECTOR_NAME] = projector
        for name, source in files.items():
            if name in to_convert:
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
        """The adapters as GGUF blobs; converts PEFT's files for the model being created."""
        adapters = self._checked.adapters
        if not is_peft_adapter(adapters):
            return (yield from self._gguf_blobs(adapters))
        bases = set(self._weights(files).values())
        if len(bases) != 1:
            raise BadRequest("an adapter needs exactly one base model")
        paths = self._paths(adapters)
        digest = yield from conversion.store_adapter(self._layout, paths, bases.pop())
        return {conversion.ADAPTER_NAME: digest}

    def _paths(self, files: Mapping[str, Source]) -> dict[str, Path]:
        return {
            name: source if isinstance(source, Path) else self._layout.blobs.path(source)
            for name, source in files.items()
        }

    def _weights(self, files: Digests) -> Digests:
        """Files and base layers that can be quantized: models, not projectors or adapters."""
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
