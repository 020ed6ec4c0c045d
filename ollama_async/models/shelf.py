"""The parts of one store on disk, as its operations share them, and what is referred to in it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ollama_async.errors import BadRequest, StorageFailed
from ollama_async.models import partial
from ollama_async.models.blobs import Blobs, parse_digest
from ollama_async.models.manifest import MANIFEST_LIMIT_BYTES, Manifest, read_manifest
from ollama_async.models.manifests import Manifests
from ollama_async.models.model import FactsCache
from ollama_async.models.storage import (
    TEMPORARY_PREFIX,
    free_bytes,
    is_abandoned,
    locked,
    make_folder,
    read_bounded,
    storage_errors,
)

_log = logging.getLogger(__name__)

PRUNE_AGE_S = 86400.0
"""What is younger may belong to an import that is under way, here or in another process: who counts
on a blob touches it first."""

MOST_REWRITES = 2
"""Models that are quantized at a time. Each takes all cores that nobody else wants."""


class Shelf:
    """``root`` is the folder that holds ``manifests`` and ``blobs``; it need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self.manifests = Manifests(root)
        self.facts = FactsCache(self.blobs)
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
                partial.give_way(folder, needed_bytes, keeping)
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

    def referenced(self) -> set[str] | None:
        """Digests that some manifest needs. None: a manifest is corrupt, so nobody knows."""
        digests: set[str] = set()
        for name, path in self.manifests.all():
            manifest = self.manifest(path)
            if manifest is None:
                _log.warning("the manifest of %s is corrupt: blobs are not removed", name)
                return None
            digests |= manifest.digests
        return digests

    def drop(self, digests: set[str]) -> None:
        """Remove those of the blobs that no manifest needs. The caller holds the lock.

        :raises OSError: a blob cannot be removed.
        """
        needed = self.referenced() if digests else None
        if needed is not None:
            for digest in digests - needed:
                self.blobs.remove(digest)

    def prune(self) -> int:
        """Remove blobs that no model needs, if a day old, and what killed writers have left.

        Downloads that can be gone on with are kept for :data:`.partial.KEEP_S`.

        Does nothing if a manifest is corrupt. Returns how many files went.

        :raises StorageFailed: a file cannot be removed, or the lock is not to be had.
        """
        if not self.root.is_dir():
            return 0
        with storage_errors(self.root), locked(self.root):
            needed = self.referenced()
            if needed is None:
                return 0
            doomed = [path for path in _old_files(self.blobs.folder) if not _is_in(path, needed)]
            doomed += filter(is_abandoned, self.root.rglob(f"{TEMPORARY_PREFIX}*"))
            for path in doomed:
                path.unlink(missing_ok=True)
            self.manifests.remove_empty_folders()
            return len(doomed) + partial.sweep(self.blobs.folder)


def _old_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if path.is_file()
        and _is_old(path)
        and not path.name.endswith(partial.SUFFIX)
        and not path.name.startswith(TEMPORARY_PREFIX)
    ]


def _is_old(path: Path) -> bool:
    try:
        return path.stat().st_mtime < time.time() - PRUNE_AGE_S
    except OSError:  # gone meanwhile
        return False


def _is_in(path: Path, digests: set[str]) -> bool:
    try:
        return parse_digest(path.name) in digests
    except BadRequest:  # not a blob at all: a partial download or upload
        return False
