"""The model store: finds, lists, copies and deletes models, and receives uploads.

The folder is Ollama's own: an existing one is used as it is, and two servers (ours, or ours and
Ollama's) may share it. Changes are atomic. Every method is synchronous and thread-safe. Only
:meth:`Store.find_cached` may be called on an event loop; the others read folders and files.
"""

from __future__ import annotations

import builtins
import itertools
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
from ollama_async.store.transfers import PullTarget

_log = logging.getLogger(__name__)
_MAX_ATTEMPTS = 10
_STEP_S = 0.05


MODELS_LIMIT_BYTES = 64 << 20
"""For cached models: some thousand usual ones. Texts that models share are counted for each."""
LIST_LIMIT_BYTES = 32 << 20
"""For cached entries of the list of models."""
_FAULT_BYTES = 1024
_WATCHED_BYTES = 400


class _Row(msgspec.Struct, frozen=True):
    """A model's list entry, and the files that must be there."""

    entry: ModelListEntry
    files: tuple[str, ...]


class _Fault(msgspec.Struct, frozen=True):
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
        self._keeps_unused = keeps_unused
        self._prefers_go = prefers_go
        self._models: FileCache[Model] = FileCache(MODELS_LIMIT_BYTES)
        self._rows: FileCache[_Row | _Fault] = FileCache(LIST_LIMIT_BYTES)

    # ----------------------------------------------------------------- models

    def find_cached(self, text: str) -> Model | None:
        """The model if it is cached and its manifest unchanged; otherwise call :meth:`find`.

        One ``stat``, about 10 µs: may be called on an event loop.

        :raises BadRequest: ``text`` is not a model's name.
        :raises Forbidden: it names a cloud model.
        """
        path = self.layout.manifests.likely_path(local_name(text))
        return self._models.get(path, file_signature(path))

    def find(self, text: str) -> Model:
        """The model of that name. Blocks: up to 100 ms when a model is read for the first time.

        :raises NotFound: ``model 'NAME' not found``, with the name as it was given.
        :raises BadRequest: ``text`` is not a name, or the model lives on another server.
        :raises Forbidden: it names a cloud model.
        :raises LoadFailed: the model is broken; the text says how.
        """
        name = local_name(text)
        path = self.layout.manifests.locate(name)
        model = None if path is None else self._read(path)
        if model is None:
            raise NotFound(f"model '{text}' not found")
        return model

    def list(self) -> builtins.list[ModelListEntry]:
        """Every model that can be run here, the newest first. Blocks as :meth:`find`, for each."""
        return newest_first(itertools.chain.from_iterable(self.scan()))

    def scan(self) -> Iterator[builtins.list[ModelListEntry]]:
        """As :meth:`list`, in no order, a few models with each step.

        A step blocks about as long as :meth:`find`, so that listing many models does not hold up
        requests for one.
        """
        paths = {path for _, path in self.layout.manifests.all()}
        entries: builtins.list[ModelListEntry] = []
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
        self._rows.keep_only(paths)

    def delete(self, text: str) -> None:
        """Remove the name, and the blobs that no other name needs. Blocks; broken models, too.

        :raises BadRequest: ``name "X" is invalid``.
        :raises NotFound: ``model 'NAME' not found``.
        :raises StorageFailed: the store is not writable, or locked.
        """
        manifests = self.layout.manifests
        try:
            # Tags may end in -cloud: the name means what is on disk under it.
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
            self._models.forget(path)
            self._rows.forget(path)
            if manifest is not None:
                self.layout.pruner.remove_unreferenced(manifest.digests)

    def copy(self, source: str, destination: str) -> None:
        """Give what ``source`` names the name ``destination``, too; a model of that name is
        replaced. Blocks.

        The new manifest has the bytes of the old one; both names reference the same blobs, which
        are removed with the last of them.

        :raises BadRequest: ``source "X" is invalid``, ``destination "X" is invalid``.
        :raises NotFound: ``model "SOURCE" not found``.
        :raises LoadFailed: the source's manifest is broken, or a blob of it is missing.
        :raises StorageFailed: the store is not writable, or locked.
        """
        manifests = self.layout.manifests
        old, new = _parsed("source", source), _parsed("destination", destination)
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

    # ----------------------------------------------------------------- blobs

    def has_blob(self, digest: str) -> bool:
        """Also spares it from pruning for a day: whoever asks is about to use it.

        One or a few ``stat``. :raises BadRequest: ``invalid digest format``.
        """
        return self.layout.blobs.touch(parse_digest(digest))

    def blob_path(self, digest: str) -> Path:
        """Where the blob is, or would be. :raises BadRequest: ``invalid digest format``."""
        return self.layout.blobs.path(parse_digest(digest))

    def open_blob(self, digest: str, size_bytes: int = 0) -> BlobWriter:
        """Begin an upload, of that size if it is known. Blocks; see :class:`BlobWriter`.

        :raises BadRequest: ``invalid digest format``.
        :raises StorageFailed: the store is not writable, or the upload does not fit.
        """
        digest = parse_digest(digest)
        self.layout.ensure_space(size_bytes)
        return BlobWriter(self.layout.blobs, digest)

    def pull_target(self) -> PullTarget:
        """Where models from registries are written to."""
        return PullTarget(self.layout)

    def prune(self) -> int:
        """Remove what no model needs and is a day old; see :meth:`.prune.Pruner.prune`."""
        return 0 if self._keeps_unused else self.layout.pruner.prune()

    # ----------------------------------------------------------------- inside

    def _list_entry(self, path: str) -> ModelListEntry | None:
        """None for a model that the list leaves out."""
        row = self._cached_row(path)
        if isinstance(row, _Fault):
            return None
        if row is not None:
            return row.entry
        try:
            model = self._read(path)
        except ServerError as error:
            _log.debug("left out of the list: %s", error)
            return None
        return None if model is None else model.list_entry

    def _cached_row(self, path: str) -> _Row | _Fault | None:
        row = self._rows.get(path, file_signature(path))
        if isinstance(row, _Fault):
            signature = self.layout.blobs.signature
            return row if all(signature(digest) == was for digest, was in row.watched) else None
        return row if row is not None and _exist(row.files) else None

    def _read(self, path: str) -> Model | None:
        """The model of a manifest; None if the manifest is gone."""
        model = self._models.get(path, file_signature(path))
        if model is not None and _exist(model.files):
            return model
        known = self._cached_row(path)
        if isinstance(known, _Fault):
            raise LoadFailed(known.message)
        for _ in range(_MAX_ATTEMPTS):
            signature = file_signature(path)
            try:
                model = self._read_now(path)
            except BrokenModel as broken:
                # Replaced while we read? Then its old layers were being removed.
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
        self._rows.put(path, signature, _Row(entry, model.files), entry.memory_bytes)

    def _cache_fault(self, path: str, signature: FileSignature, broken: BrokenModel) -> None:
        """And log it, once: the list of models only leaves the model out."""
        if broken.watched is not None:
            fault = _Fault(broken.message, broken.watched)
            size_bytes = _FAULT_BYTES + _WATCHED_BYTES * len(fault.watched)
            self._rows.put(path, signature, fault, size_bytes)
            _log.warning("%s", broken)

    def _read_now(self, path: str) -> Model | None:
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
        """The manifest's bytes, and the blobs that it references, all of which exist."""
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


def newest_first(entries: Iterable[ModelListEntry]) -> builtins.list[ModelListEntry]:
    """To the second, as Ollama sorts; those of one second by their names."""
    by_name = sorted(entries, key=lambda entry: entry.name)
    return sorted(by_name, key=lambda entry: int(entry.modified_at), reverse=True)


def _parsed(field: str, text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except ValueError:
        raise BadRequest(f'{field} "{text}" is invalid') from None


def _is_local(text: str) -> bool:
    return text.strip().lower().endswith(":local")


def _exist(files: Iterable[str]) -> bool:
    return all(map(os.path.exists, files))
