"""The parts of one store on disk, as its operations share them, and what is referred to in it."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ollama_async.core.errors import BadRequest, StorageFailed
from ollama_async.core.model_names import ModelName
from ollama_async.store import partial_files
from ollama_async.store.blob_cache import BlobCache
from ollama_async.store.blobs import Blobs, parse_digest
from ollama_async.store.files import (
    TEMPORARY_PREFIX,
    free_bytes,
    is_abandoned,
    locked,
    make_folder,
    read_bounded,
    storage_errors,
)
from ollama_async.store.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from ollama_async.store.manifests import Manifests
from ollama_async.store.references import References, Unknown

_log = logging.getLogger(__name__)

PRUNE_AGE_S = 86400.0
"""What is younger may belong to an import that is under way, here or in another process: who counts
on a blob touches it first."""

_PART = re.compile(r"sha256[:-][0-9a-fA-F]+-partial")
"""A part of a download of Ollama's, which itself removes such when it starts."""

MOST_REWRITES = 2
"""Models that are quantized at a time. Each takes all cores that nobody else wants."""


class Shelf:
    """``root`` is the folder that holds ``manifests`` and ``blobs``; it need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self.manifests = Manifests(root)
        self.facts = BlobCache(self.blobs)
        self._references = References(self.manifests)
        self._rewrites = threading.BoundedSemaphore(MOST_REWRITES)

    @contextmanager
    def rewriting(self) -> Iterator[bool]:
        """Be one of the :data:`MOST_REWRITES`; False: there are so many already."""
        is_free = self._rewrites.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._rewrites.release()

    def make_room(self, needed_bytes: int, keeping: Collection[str] = ()) -> None:
        """See that so much fits onto the disk, before hours are spent on it.

        What has to give way, if need be, are downloads that nobody has gone on with for a day, but
        for those of the digests ``keeping``. Nothing is reserved: a disk may still fill up.

        :raises StorageFailed: it does not fit.
        """
        folder = self.blobs.folder
        with storage_errors(self.root):
            make_folder(folder)
            if needed_bytes > free_bytes(folder):
                partial_files.give_way(folder, needed_bytes, keeping)
            free = free_bytes(folder)
        if needed_bytes > free:
            raise StorageFailed(
                f"no space left on the disk of the model store {self.root}:"
                f" {needed_bytes} bytes are needed, {free} are free"
            )

    def manifest(self, path: str) -> Manifest | None:
        """The manifest at ``path``; None if it is missing or cannot be understood."""
        try:
            return read_manifest(read_bounded(Path(path), MANIFEST_LIMIT_BYTES))
        except (OSError, BadRequest):
            return None

    @contextmanager
    def changing(self, name: ModelName | None = None) -> Iterator[None]:
        """Be the only one who changes what manifests refer to. If the model ``name`` may go, what
        the others need is looked up before: it may take long, and nobody else has to wait for it.

        :raises StorageFailed: the lock is not to be had, or what is done under it fails.
        """
        if name is not None and self.manifests.locate(name) is not None:
            with suppress(Unknown):
                self._references.refresh()
        with storage_errors(self.root), locked(self.root):
            yield

    def drop(self, digests: set[str]) -> None:
        """Remove those of the blobs that no manifest needs. The caller holds the lock.

        Removes none if that cannot be told. :raises OSError: a blob cannot be removed.
        """
        for digest in self._unneeded(digests):
            self.blobs.remove(digest)

    def _unneeded(self, digests: set[str]) -> set[str]:
        """Those that no manifest needs; none, and the log says why, if that cannot be told."""
        if not digests:
            return set()
        try:
            return self._references.unneeded(digests)
        except Unknown as reason:
            _log.warning("no blobs are removed: %s", reason)
            return set()

    def prune(self) -> int:
        """Remove blobs that no model needs, if a day old, and what killed writers have left.

        Downloads that can be gone on with are kept for :data:`.partial.KEEP_S`; files that are not
        blobs, nor parts of any, are left alone, and so are all blobs if it cannot be told what the
        models need: see :mod:`.references`. Returns how many files went.

        :raises StorageFailed: a file cannot be removed, or the lock is not to be had.
        """
        if not self.root.is_dir():
            return 0
        with suppress(Unknown):
            self._references.refresh()
        with storage_errors(self.root), locked(self.root):
            doomed = self._doomed()
            for folder in (self.blobs.folder, self.manifests.folder):
                doomed += filter(is_abandoned, folder.rglob(f"{TEMPORARY_PREFIX}*"))
            for path in doomed:
                path.unlink(missing_ok=True)
            self.manifests.remove_empty_folders()
            return len(doomed) + partial_files.sweep(self.blobs.folder)

    def _doomed(self) -> list[Path]:
        """Old blobs that nobody needs, and parts of some."""
        old = _old_files(self.blobs.folder)
        blobs = {path: digest for path in old if (digest := _digest(path)) is not None}
        unneeded = self._unneeded(set(blobs.values()))
        parts = [path for path in old if _PART.match(path.name)]
        return parts + [path for path, digest in blobs.items() if digest in unneeded]


def _old_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if path.is_file()
        and _is_old(path)
        and not path.name.endswith(partial_files.SUFFIX)
        and not path.name.startswith(TEMPORARY_PREFIX)
    ]


def _is_old(path: Path) -> bool:
    try:
        return path.stat().st_mtime < time.time() - PRUNE_AGE_S
    except OSError:  # gone meanwhile
        return False


def _digest(path: Path) -> str | None:
    try:
        return parse_digest(path.name)
    except BadRequest:
        return None
