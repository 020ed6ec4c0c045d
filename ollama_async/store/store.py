"""The model store: finds, lists, copies and deletes models, and receives uploads.

The folder has Ollama's format, and several servers (ours or Ollama's) may share it. Changes are
atomic. Every method is synchronous and thread-safe. Only :meth:`Store.find_cached` may be called on
an event loop; the others read folders and files.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ollama_async.core.errors import BadRequest, LoadFailed, NotFound, ServerError
from ollama_async.core.model_names import ModelName, split_source
from ollama_async.store.blobs import BlobWriter, parse_digest
from ollama_async.store.cache import FileCache
from ollama_async.store.files import FileSignature, file_signature, read_bounded
from ollama_async.store.layout import StoreLayout
from ollama_async.store.manifests import MANIFEST_LIMIT_BYTES, local_name, read_manifest
from ollama_async.store.model import Model, ModelListEntry
from ollama_async.store.model_reader import BlobSignatures, BrokenModel, read_model

_log = logging.getLogger(__name__)
_MAX_ATTEMPTS = 10
_STEP_S = 0.05

MODELS_LIMIT_BYTES = 64 << 20
"""For cached models: some thousand usual ones. Texts that models share are counted for each."""
LIST_LIMIT_BYTES = 32 << 20
"""For cached entries of the list of models."""
_FAULT_BYTES = 1024
_WATCHED_BYTES = 400


class _CachedEntry(msgspec.Struct, frozen=True):
    """A model's list entry, valid while its files exist."""

    entry: ModelListEntry
    files: tuple[str, ...]


class _CachedFault(msgspec.Struct, frozen=True):
    """Why a model cannot be used; see :class:`.model_reader.BrokenModel`."""

    message: str
    watched: BlobSignatures


class Store:
    """``keeps_unused`` (``OLLAMA_NOPRUNE``): only :meth:`delete` removes blobs.
    ``prefers_go`` (``OLLAMA_GO_TEMPLATE``): see :func:`~ollama_async.prompts.chat_format.select`.
    """

    def __init__(
        self, root: Path, *, keeps_unused: bool = False, prefers_go: bool | None = None
    ) -> None:
        self.root = root
        self.layout = StoreLayout(root, keeps_unused=keeps_unused)
        self._prefers_go = prefers_go
        self._models: FileCache[Model] = FileCache(MODELS_LIMIT_BYTES)
        self._entries: FileCache[_CachedEntry | _CachedFault] = FileCache(LIST_LIMIT_BYTES)

    def find_cached(self, text: str) -> Model | None:
        """The model if it is cached and its manifest unchanged; otherwise call :meth:`find`.

        One ``stat``, about 10 µs: may be called on an event loop.

        :raises BadRequest: ``text`` is an invalid name.
        :raises Forbidden: it names a cloud model.
        """
        path = self.layout.manifests.likely_path(local_name(text))
        return self._models.get(path, file_signature(path))

    def find(self, text: str) -> Model:
        """The model of that name. Blocks: up to 100 ms when a model is read for the first time.

        :raises NotFound: ``model 'NAME' not found``, with the name as given.
        :raises BadRequest: ``text`` is an invalid name, or the model is on another server.
        :raises Forbidden: it names a cloud model.
        :raises LoadFailed: the model is broken; the text explains why.
        """
        name = local_name(text)
        path = self.layout.manifests.locate(name)
        model = None if path is None else self._read(path)
        if model is None:
            raise NotFound(f"model '{text}' not found")
        return model

    def scan(self) -> Iterator[list[ModelListEntry]]:
        """Every model that can be run here, in no order, a few with each step.

        A step blocks about as long as :meth:`find`, so that listing many models does not delay
        requests for one.
        """
        paths = set(self.layout.manifests.paths())
        entries: list[ModelListEntry] = []
        pause_at = time.monotonic() + _STEP_S
        for path in paths:
            entry = self._list_entry(path)
            if entry is not None:
                entries.append(entry)
            if time.monotonic() > pause_at:
                yield entries
                entries, pause_at = [], time.monotonic() + _STEP_S
        yield entries
        self._models.keep_only(paths)
        self._entries.keep_only(paths)

    def delete(self, text: str) -> None:
        """Remove a model, even a broken one, and the blobs that no other model needs. Blocks.

        :raises BadRequest: ``name "X" is invalid``.
        :raises NotFound: ``model 'NAME' not found``.
        :raises StorageFailed: the store is not writable, or locked.
        """
        manifests = self.layout.manifests
        try:
            # The tag may end in -cloud: it is a name on disk.
            name = ModelName.parse(split_source(text).text if _is_local(text) else text.strip())
        except ValueError:
            raise BadRequest(f'name "{text}" is invalid') from None
        missing = NotFound(f"model '{text}' not found")
        if manifests.locate(name) is None:  # creates no lock file in a store that is not ours
            raise missing
        with self.layout.changing(name):
            path = manifests.locate(name)
            if path is None:
                raise missing
            manifest = self.layout.read_manifest(path)
            manifests.remove(path)
            self._models.remove(path)
            self._entries.remove(path)
            if manifest is not None:
                self.layout.pruner.remove_unreferenced(manifest.digests)

    def copy(self, source: str, destination: str) -> None:
        """Copy the manifest of ``source``, byte for byte, to the name ``destination``. Blocks.

        Replaces a model of that name. Both names share their blobs.

        :raises BadRequest: ``source "X" is invalid``, ``destination "X" is invalid``.
        :raises NotFound: ``model "SOURCE" not found``.
        :raises LoadFailed: the source's manifest is broken, or one of its blobs is missing.
        :raises StorageFailed: the store is not writable, or locked.
        """
        manifests = self.layout.manifests
        old, new = _parse_name("source", source), _parse_name("destination", destination)
        missing = NotFound(f'model "{source}" not found')
        if manifests.locate(old) is None:  # creates no lock file in a store that is not ours
            raise missing
        with self.layout.changing(new):
            path = manifests.locate(old)
            if path is None:
                raise missing
            data, digests = self._read_source(path, source)
            if manifests.locate(new) != path:
                self.layout.replace_manifest(new, data, digests)

    def has_blob(self, digest: str) -> bool:
        """Whether the blob exists. If so, pruning keeps it for a day, so that it can be used.

        A few ``stat`` calls. :raises BadRequest: ``invalid digest format``.
        """
        return self.layout.blobs.touch(parse_digest(digest))

    def open_blob(self, digest: str, size_bytes: int = 0) -> BlobWriter:
        """Begin an upload, of ``size_bytes`` if known. Blocks.

        :raises BadRequest: ``invalid digest format``.
        :raises StorageFailed: the store is not writable, or the upload does not fit.
        """
        digest = parse_digest(digest)
        self.layout.ensure_space(size_bytes)
        return BlobWriter(self.layout.blobs, digest)

    def prune(self) -> int:
        """See :meth:`.prune.Pruner.prune`. Does nothing if the store keeps unused blobs."""
        return 0 if self.layout.keeps_unused else self.layout.pruner.prune()

    def _list_entry(self, path: str) -> ModelListEntry | None:
        """None for a model that the list omits."""
        cached = self._cached_entry(path)
        if isinstance(cached, _CachedFault):
            return None
        if cached is not None:
            return cached.entry
        try:
            model = self._read(path)
        except ServerError as error:
            _log.debug("left out of the list: %s", error)
            return None
        return None if model is None else model.list_entry

    def _cached_entry(self, path: str) -> _CachedEntry | _CachedFault | None:
        found = self._entries.get(path, file_signature(path))
        if isinstance(found, _CachedFault):
            signature = self.layout.blobs.signature
            return found if all(signature(digest) == was for digest, was in found.watched) else None
        return found if found is not None and _exist(found.files) else None

    def _read(self, path: str) -> Model | None:
        """The model of a manifest; None if the manifest is gone."""
        model = self._models.get(path, file_signature(path))
        if model is not None and _exist(model.files):
            return model
        cached = self._cached_entry(path)
        if isinstance(cached, _CachedFault):
            raise LoadFailed(cached.message)
        for _ in range(_MAX_ATTEMPTS):
            signature = file_signature(path)
            try:
                model = self._read_uncached(path)
            except BrokenModel as broken:
                # If it was replaced meanwhile, the old blobs were being removed.
                if signature != file_signature(path):
                    continue
                self._cache_fault(path, signature, broken)
                raise
            if model is not None:
                self._cache(path, signature, model)
            return model
        raise LoadFailed("the model is being replaced repeatedly; try again")

    def _cache(self, path: str, signature: FileSignature, model: Model) -> None:
        self._models.put(path, signature, model, model.memory_bytes)
        entry = model.list_entry
        self._entries.put(path, signature, _CachedEntry(entry, model.files), entry.memory_bytes)

    def _cache_fault(self, path: str, signature: FileSignature, broken: BrokenModel) -> None:
        """Also logs it, once: the list of models silently omits the model."""
        if broken.watched is not None:
            fault = _CachedFault(broken.message, broken.watched)
            size_bytes = _FAULT_BYTES + _WATCHED_BYTES * len(fault.watched)
            self._entries.put(path, signature, fault, size_bytes)
            _log.warning("%s", broken)

    def _read_uncached(self, path: str) -> Model | None:
        layout = self.layout
        try:
            return read_model(
                layout.manifests.name_of(path),
                Path(path),
                layout.blobs,
                layout.cache,
                prefers_go=self._prefers_go,
            )
        except FileNotFoundError:
            return None

    def _read_source(self, path: str, source: str) -> tuple[bytes, set[str]]:
        """The manifest's bytes, and the digests of its blobs, which all exist."""
        try:
            data = read_bounded(Path(path), MANIFEST_LIMIT_BYTES)
            digests = read_manifest(data).digests
        except BadRequest as error:
            raise LoadFailed(f"model '{source}' is broken: {error.message}") from None
        except OSError as error:
            raise LoadFailed(f"model '{source}' cannot be read: {error.strerror}") from None
        for digest in sorted(digests):
            if not self.layout.blobs.has(digest):
                raise LoadFailed(f"model '{source}' is broken: {digest} is missing")
        return data, digests


def newest_first(entries: Iterable[ModelListEntry]) -> list[ModelListEntry]:
    """Sorted by time to the second, as in Ollama, then by name."""
    by_name = sorted(entries, key=lambda entry: entry.name)
    return sorted(by_name, key=lambda entry: int(entry.modified_at), reverse=True)


def _parse_name(field: str, text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except ValueError:
        raise BadRequest(f'{field} "{text}" is invalid') from None


def _is_local(text: str) -> bool:
    return text.strip().lower().endswith(":local")


def _exist(files: Iterable[str]) -> bool:
    return all(map(os.path.exists, files))
