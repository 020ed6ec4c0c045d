"""The model store: names to models, uploads to blobs, and nothing half-written in between.

The folder is Ollama's own, so an existing one is used as it is, and two servers (ours, or ours and
Ollama's) may share it. Every method is plain, synchronous and thread-safe. Only
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

from ollama_async.api.ollama import CreateRequest
from ollama_async.core.errors import BadRequest, LoadFailed, NotFound, ServerError
from ollama_async.core.model_names import ModelName, split_source
from ollama_async.create.create import Status, create
from ollama_async.store.blobs import BlobWriter, parse_digest
from ollama_async.store.copy import copy
from ollama_async.store.layout import Shelf
from ollama_async.store.manifests import local_name
from ollama_async.store.model import Listed, Model
from ollama_async.store.model_reader import Broken, Watched, read_model
from ollama_async.store.remembered import Remembered, Signature, signature_of
from ollama_async.store.transfers import Arrivals

_log = logging.getLogger(__name__)
_MOST_ATTEMPTS = 10
_STEP_S = 0.05


MODELS_LIMIT_BYTES = 64 << 20
"""Of the models that are known without reading: some thousand usual ones. Texts that models share
are counted for each of them."""
LISTED_LIMIT_BYTES = 32 << 20
"""Of what the list of models says."""
_FAULT_BYTES = 1024
_WATCHED_BYTES = 400


class _Row(msgspec.Struct, frozen=True):
    """What the list says of a model, and the files that must be there."""

    listed: Listed
    files: tuple[str, ...]


class _Fault(msgspec.Struct, frozen=True):
    """Why a model cannot be used; see :class:`.reading.Broken`."""

    message: str
    watched: Watched


class Store:
    """``keeps_unused`` (``OLLAMA_NOPRUNE``): no blob is removed but by :meth:`delete`.
    ``prefers_go`` (``OLLAMA_GO_TEMPLATE``): see :func:`~ollama_async.prompts.chat_format.select`.
    """

    def __init__(
        self, root: Path, *, keeps_unused: bool = False, prefers_go: bool | None = None
    ) -> None:
        self.root = root
        self._keeps_unused = keeps_unused
        self._prefers_go = prefers_go
        self._shelf = Shelf(root)
        self._models: Remembered[Model] = Remembered(MODELS_LIMIT_BYTES)
        self._rows: Remembered[_Row | _Fault] = Remembered(LISTED_LIMIT_BYTES)

    # ----------------------------------------------------------------- models

    def find_cached(self, text: str) -> Model | None:
        """The model if it is known and its manifest unchanged; else ask :meth:`find`.

        One ``stat``, about 10 µs: may be called on an event loop.

        :raises BadRequest: ``text`` is not a model's name.
        :raises Forbidden: it asks for a cloud model.
        """
        path = self._shelf.manifests.likely_path(local_name(text))
        return self._models.get(path, signature_of(path))

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

    def list(self) -> builtins.list[Listed]:
        """Every model that can be run here, the newest first. Blocks as :meth:`find`, for each."""
        return newest_first(itertools.chain.from_iterable(self.look_through()))

    def look_through(self) -> Iterator[builtins.list[Listed]]:
        """As :meth:`list`, in no order, a few with each step. A step blocks about as long as
        :meth:`find`, so that who wants the list does not keep a thread from who wants a model.
        """
        paths = {path for _, path in self._shelf.manifests.all()}
        models: builtins.list[Listed] = []
        pause_at = time.monotonic() + _STEP_S
        for path in paths:
            row = self._row(path)
            if row is not None:
                models.append(row)
            if time.monotonic() > pause_at:
                yield models
                models, pause_at = [], time.monotonic() + _STEP_S
        yield models
        self._models.keep_only(paths)
        self._rows.keep_only(paths)

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
        with self._shelf.changing(name):
            path = self._shelf.manifests.locate(name)
            if path is None:
                raise NotFound(f"model '{text}' not found")
            manifest = self._shelf.manifest(path)
            self._shelf.manifests.remove(path)
            self._models.forget(path)
            self._rows.forget(path)
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

    def _row(self, path: str) -> Listed | None:
        """What the list says of the model; None: nothing."""
        row = self._known_row(path)
        if isinstance(row, _Fault):
            return None
        if row is not None:
            return row.listed
        try:
            model = self._read(path)
        except ServerError as error:
            _log.debug("left out of the list: %s", error)
            return None
        return None if model is None else model.listed

    def _known_row(self, path: str) -> _Row | _Fault | None:
        row = self._rows.get(path, signature_of(path))
        if isinstance(row, _Fault):
            signature = self._shelf.blobs.signature
            return row if all(signature(digest) == was for digest, was in row.watched) else None
        return row if row is not None and _are_there(row.files) else None

    def _read(self, path: str) -> Model | None:
        """The model of a manifest; None if the manifest is gone."""
        model = self._models.get(path, signature_of(path))
        if model is not None and _are_there(model.files):
            return model
        known = self._known_row(path)
        if isinstance(known, _Fault):
            raise LoadFailed(known.message)
        for _ in range(_MOST_ATTEMPTS):
            signature = signature_of(path)
            try:
                model = self._read_now(path)
            except Broken as broken:
                # Replaced while we read? Then its old layers were going away under us.
                if signature != signature_of(path):
                    continue
                self._remember_fault(path, signature, broken)
                raise
            if model is not None:
                self._remember(path, signature, model)
            return model
        raise LoadFailed("the model is being replaced all the time; try again")

    def _remember(self, path: str, signature: Signature, model: Model) -> None:
        self._models.put(path, signature, model, model.memory_bytes)
        row = _Row(model.listed, model.files)
        self._rows.put(path, signature, row, model.listed.memory_bytes)

    def _remember_fault(self, path: str, signature: Signature, broken: Broken) -> None:
        """And say it in the log, once: the list of models only leaves it out."""
        if broken.watched is not None:
            fault = _Fault(broken.message, broken.watched)
            size_bytes = _FAULT_BYTES + _WATCHED_BYTES * len(fault.watched)
            self._rows.put(path, signature, fault, size_bytes)
            _log.warning("%s", broken)

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


def newest_first(models: Iterable[Listed]) -> builtins.list[Listed]:
    """To the second, as Ollama sorts; those of one second by their names."""
    by_name = sorted(models, key=lambda model: model.name)
    return sorted(by_name, key=lambda model: int(model.modified_at), reverse=True)


def _is_local(text: str) -> bool:
    return text.strip().lower().endswith(":local")


def _are_there(files: Iterable[str]) -> bool:
    return all(map(os.path.exists, files))
