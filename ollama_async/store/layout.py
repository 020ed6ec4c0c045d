"""The parts of one store on disk, and the operations that replace manifests."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ollama_async.core.errors import BadRequest, StorageFailed
from ollama_async.core.model_names import ModelName
from ollama_async.store import partial_files
from ollama_async.store.blobs import Blobs
from ollama_async.store.cache import BlobCache
from ollama_async.store.files import (
    free_bytes,
    locked,
    make_folder,
    read_bounded,
    storage_errors,
)
from ollama_async.store.manifests import MANIFEST_LIMIT_BYTES, Manifest, Manifests, read_manifest
from ollama_async.store.prune import Pruner

MAX_REWRITES = 2
"""Models quantized or joined at a time. Each uses all idle cores."""


class StoreLayout:
    """``root`` is the folder with ``manifests`` and ``blobs``. It need not exist yet.

    ``keeps_unused`` (``OLLAMA_NOPRUNE``): keep the blobs of a replaced model.
    """

    def __init__(self, root: Path, *, keeps_unused: bool = False) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self.manifests = Manifests(root)
        self.cache = BlobCache(self.blobs)
        self.pruner = Pruner(self.blobs, self.manifests)
        self.keeps_unused = keeps_unused
        self._rewrites = threading.BoundedSemaphore(MAX_REWRITES)

    @contextmanager
    def rewriting(self) -> Iterator[bool]:
        """Acquire one of :data:`MAX_REWRITES` permits. Yields False if none is free."""
        is_free = self._rewrites.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._rewrites.release()

    def ensure_space(self, needed_bytes: int, keeping: Collection[str] = ()) -> None:
        """Check for ``needed_bytes`` of free space before a long operation; reserves nothing.

        If necessary, removes downloads that were not resumed for a day, except those of the
        digests ``keeping``.

        :raises StorageFailed: there is too little space.
        """
        folder = self.blobs.folder
        with storage_errors(self.root):
            make_folder(folder)
            if needed_bytes > free_bytes(folder):
                partial_files.free_space(folder, needed_bytes, keeping)
            free = free_bytes(folder)
        if needed_bytes > free:
            raise StorageFailed(
                f"no space left on the disk of the model store {self.root}:"
                f" {needed_bytes} bytes are needed, {free} are free"
            )

    def read_manifest(self, path: str) -> Manifest | None:
        """The manifest at ``path``; None if it is missing or invalid."""
        try:
            return read_manifest(read_bounded(Path(path), MANIFEST_LIMIT_BYTES))
        except (OSError, BadRequest):
            return None

    @contextmanager
    def changing(self, name: ModelName) -> Iterator[None]:
        """Hold the store's lock, to replace or remove the model ``name``.

        New manifests are read before: that may take long, and must not delay other processes.

        :raises StorageFailed: the lock is not available, or an operation under it fails.
        """
        if self.manifests.locate(name) is not None:
            self.pruner.read_references()
        with storage_errors(self.root), locked(self.root):
            yield

    def replace_manifest(self, name: ModelName, data: bytes, digests: set[str]) -> bool:
        """Write ``data`` as the manifest of ``name``, and remove blobs that only the old model of
        that name needed, unless the store keeps unused blobs.

        ``digests``: the blobs that ``data`` references. The caller holds the lock
        (:meth:`changing`) and has checked that they exist. Returns whether the old model had other
        blobs.

        :raises OSError: disk full or not writable; the name is unchanged.
        """
        name = self.manifests.stored_spelling(name)
        path = self.manifests.locate(name)
        old = self.read_manifest(path) if path else None
        self.manifests.write(name, data)
        if old is None or self.keeps_unused:
            return False
        unused = old.digests - digests
        self.pruner.remove_unreferenced(unused)
        return bool(unused)
