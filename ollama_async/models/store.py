"""The model store: names to models, uploads to blobs, and nothing half-written in between.

The folder is Ollama's own, so an existing one is used as it is, and two servers (ours, or ours and
Ollama's) may share it. Every method is plain, synchronous and thread-safe. Only
:meth:`Store.find_cached` may be called on an event loop; the others read folders and files.
"""

from __future__ import annotations

import builtins
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ollama_async.api.ollama import CreateRequest
from ollama_async.errors import BadRequest, LoadFailed, NotFound, ServerError
from ollama_async.models.arrivals import Arrivals
from ollama_async.models.blobs import BlobWriter, parse_digest
from ollama_async.models.copy import copy
from ollama_async.models.create import Status, create
from ollama_async.models.manifests import local_name
from ollama_async.models.model import Model, read_model
from ollama_async.models.shelf import Shelf
from ollama_async.models.storage import locked, storage_errors
from ollama_async.names import ModelName, split_source

_log = logging.getLogger(__name__)
_MOST_ATTEMPTS = 10


class _Entry(msgspec.Struct, frozen=True):
    """A model as it was when its manifest had this signature."""

    signature: tuple[int, ...]
    model: Model


class Store:
    """``keeps_unused`` (``OLLAMA_NOPRUNE``): no blob is removed but by :meth:`delete`.
    ``prefers_go`` (``OLLAMA_GO_TEMPLATE``): see :func:`~ollama_async.prompts.selection.select`.
    """

    def __init__(
        self, root: Path, *, keeps_unused: bool = False, prefers_go: bool | None = None
    ) -> None:
        self.root = root
        self._keeps_unused = keeps_unused
        self._prefers_go = prefers_go
        self._shelf = Shelf(root)
        self._entries: dict[str, _Entry] = {}
        self._reading = threading.Lock()  # many requests for a new model read its header once

    # ----------------------------------------------------------------- models

    def find_cached(self, text: str) -> Model | None:
        """The model if it is known and its manifest unchanged; else ask :meth:`find`.

        One ``stat``, about 10 µs: may be called on an event loop.

        :raises BadRequest: ``text`` is not a model's name.
        :raises Forbidden: it asks for a cloud model.
        """
        path = self._shelf.manifests.likely_path(local_name(text))
        entry = self._entries.get(path)
        if entry is None or entry.signature != _signature(path):
            return None
        return entry.model

    def find(self, text: str) -> Model:
        """The model of that name, read if need be. Blocks: up to 100 ms for a model's first time.

        :raises NotFound: ``model 'NAME' not found``, the name as it was given.
        :raises BadRequest: ``text`` is not a name, or the model lives on another server.
        :raises Forbidden: it asks for a cloud model.
        :raises LoadFailed: the model is broken; the text says how.
        """
        name = local_name(text)
        path = self._shelf.manifests.locate(name)
        model = None if path is None else self._read(path)
        if model is None:
            raise NotFound(f"model '{text}' not found")
        return model

    def list(self) -> builtins.list[Model]:
        """Every model that can be run here, the newest first. Blocks as :meth:`find`, for each."""
        models = []
        found = dict(self._shelf.manifests.all())
        for name, path in sorted(found.items()):
            try:
                model = self._read(path)
            except ServerError as error:
                _log.debug("left out of the list: %s: %s", name, error.message)
                continue
            if model is not None:
                models.append(model)
        for path in set(self._entries) - set(found.values()):
            self._entries.pop(path, None)
        models.sort(key=lambda model: int(model.modified_at), reverse=True)
        return models

    def delete(self, text: str) -> None:
        """Remove the name, and the blobs that no other name needs. Blocks; broken models, too.

        :raises BadRequest: ``name "X" is invalid``.
        :raises NotFound: ``model 'NAME' not found``.
        :raises StorageFailed: the store is not writable, or locked.
        """
        try:
            # Tags may end in -cloud: what is on disk under the very name is what is meant.
            name = ModelName.parse(split_source(text).text if _is_local(text) else text.strip())
        except ValueError:
            raise BadRequest(f'name "{text}" is invalid') from None
        if self._shelf.manifests.locate(name) is None:  # without a lock file in a store not ours
            raise NotFound(f"model '{text}' not found")
        with storage_errors(self.root), locked(self.root):
            path = self._shelf.manifests.locate(name)
            if path is None:
                raise NotFound(f"model '{text}' not found")
            manifest = self._shelf.manifest(path)
            self._shelf.manifests.remove(path)
            self._entries.pop(path, None)
            if manifest is not None:
                self._shelf.drop(manifest.digests)

    def copy(self, source: str, destination: str) -> None:
        """Give a model a second name; see :func:`.copy.copy`."""
        copy(self._shelf, source, destination, keeps_unused=self._keeps_unused)

    def create(self, request: CreateRequest, *, reads_files: bool = False) -> Iterator[Status]:
        """Check, then do the work as the statuses are drawn; see :func:`.create.create`."""
        return create(
            self._shelf, request, keeps_unused=self._keeps_unused, reads_files=reads_files
        )

    # ----------------------------------------------------------------- blobs

    def has_blob(self, digest: str) -> bool:
        """Also keeps it from being pruned for a day: whoever asks is about to use it.

        One or a few ``stat``. :raises BadRequest: ``invalid digest format``.
        """
        return self._shelf.blobs.touch(parse_digest(digest))

    def blob_path(self, digest: str) -> Path:
        """Where the blob is, or would be. :raises BadRequest: ``invalid digest format``."""
        return self._shelf.blobs.path(parse_digest(digest))

    def open_blob(self, digest: str, size_bytes: int = 0) -> BlobWriter:
        """Begin an upload, of that size if it is known. Blocks; see :class:`BlobWriter`.

        :raises BadRequest: ``invalid digest format``.
        :raises StorageFailed: the store is not writable, or the upload does not fit.
        """
        digest = parse_digest(digest)
        self._shelf.make_room(size_bytes)
        return BlobWriter(self._shelf.blobs, digest)

    def arrivals(self) -> Arrivals:
        """The door for what is fetched from other registries."""
        return Arrivals(self._shelf, keeps_unused=self._keeps_unused)

    def prune(self) -> int:
        """Remove what no model needs and is a day old; see :meth:`.shelf.Shelf.prune`."""
        return 0 if self._keeps_unused else self._shelf.prune()

    # ----------------------------------------------------------------- inside

    def _read(self, path: str) -> Model | None:
        """The model of a manifest; None if the manifest is gone."""
        entry = self._entries.get(path)
        if entry is not None and entry.signature == _signature(path) and _is_whole(entry.model):
            return entry.model
        with self._reading:
            entry = self._entries.get(path)
            if entry is not None and entry.signature == _signature(path) and _is_whole(entry.model):
                return entry.model
            self._entries.pop(path, None)
            for _ in range(_MOST_ATTEMPTS):
                signature = _signature(path)
                try:
                    model = self._read_now(path)
                except LoadFailed:
                    # Replaced while we read? Then its old layers were going away under us.
                    if signature == _signature(path):
                        raise
                else:
                    if model is not None:
                        self._entries[path] = _Entry(signature, model)
                    return model
        raise LoadFailed("the model is being replaced all the time; try again")

    def _read_now(self, path: str) -> Model | None:
        shelf = self._shelf
        try:
            return read_model(
                shelf.manifests.name_of(path),
                Path(path),
                shelf.blobs,
                shelf.facts,
                prefers_go=self._prefers_go,
            )
        except FileNotFoundError:
            return None


def _is_local(text: str) -> bool:
    return text.strip().lower().endswith(":local")


def _signature(path: str) -> tuple[int, ...]:
    """Changes whenever the file is replaced or written; empty if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path costs more than the call
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def _is_whole(model: Model) -> bool:
    return all(map(os.path.exists, (model.path, *model.adapters, *model.projectors)))
