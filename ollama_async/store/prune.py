"""Removes blobs that no manifest of the store references.

A removed blob cannot be restored. A file among the manifests that is invalid, cannot be read or has
an invalid name may be a model in an unknown format. Then the references are unknown, and no blob is
removed, as in Ollama.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ollama_async.core.errors import BadRequest
from ollama_async.store import partial_files
from ollama_async.store.blobs import Blobs, parse_digest
from ollama_async.store.cache import FileCache
from ollama_async.store.files import (
    TEMPORARY_PREFIX,
    file_signature,
    is_abandoned,
    locked,
    read_bounded,
    storage_errors,
)
from ollama_async.store.manifests import MANIFEST_LIMIT_BYTES, Manifests, read_manifest

_log = logging.getLogger(__name__)

PRUNE_AGE_S = 86400.0
"""Younger blobs may belong to an import in progress, here or in another process. Imports touch the
blobs that they rely on."""

CACHE_LIMIT_BYTES = 64 << 20
"""For the digests of all manifests: those of five hundred of the largest size allowed."""

_ENTRY_BYTES = 300
_DIGEST = struct.Struct("32s")
_LEVELS = 4
_MENTIONED = re.compile(rb"sha256[:-]([0-9a-fA-F]{64})(?![0-9a-fA-F])")
_IGNORED = (TEMPORARY_PREFIX, ".DS_Store", "._")
"""Prefixes of our temporary files and of file managers' files."""
_OLLAMAS_PART = re.compile(r"sha256[:-][0-9a-fA-F]+-partial")
"""A part of an Ollama download. Ollama removes such files when it starts."""


class UnknownReferences(Exception):
    """The referenced blobs are unknown; the text names a file and the reason."""


class Pruner:
    """Removes blobs, but none that a manifest references. Thread-safe.

    Manifests are read again only if their files changed.
    """

    def __init__(self, blobs: Blobs, manifests: Manifests) -> None:
        self._blobs = blobs
        self._manifests = manifests
        self._digests: FileCache[bytes] = FileCache(CACHE_LIMIT_BYTES)
        self._reading = threading.Lock()

    def read_references(self) -> None:
        """Read new manifests ahead of :meth:`remove_unreferenced`, without the store's lock."""
        with suppress(UnknownReferences):
            self._unreferenced(set())

    def remove_unreferenced(self, digests: set[str]) -> None:
        """Remove those of the blobs that no manifest references. The caller holds the lock.

        Removes none if the references are unknown. :raises OSError: a blob cannot be removed.
        """
        for digest in self._removable(digests):
            self._blobs.remove(digest)

    def prune(self) -> int:
        """Remove unreferenced blobs that are a day old, and files of dead writers.

        Keeps resumable downloads for :data:`.partial_files.KEEP_S`, files of other kinds, and all
        blobs if the references are unknown. Returns the number of removed files.

        :raises StorageFailed: a file cannot be removed, or the lock is not available.
        """
        root = self._blobs.root
        if not root.is_dir():
            return 0
        self.read_references()
        with storage_errors(root), locked(root):
            garbage = self._garbage()
            for folder in (self._blobs.folder, self._manifests.folder):
                garbage += filter(is_abandoned, folder.rglob(f"{TEMPORARY_PREFIX}*"))
            for path in garbage:
                path.unlink(missing_ok=True)
            self._manifests.remove_empty_folders()
            return len(garbage) + partial_files.remove_stale(self._blobs.folder)

    def _garbage(self) -> list[Path]:
        """Old unreferenced blobs, and parts of Ollama's downloads."""
        old = _old_files(self._blobs.folder)
        blobs = {path: digest for path in old if (digest := _digest(path)) is not None}
        removable = self._removable(set(blobs.values()))
        parts = [path for path in old if _OLLAMAS_PART.match(path.name)]
        return parts + [path for path, digest in blobs.items() if digest in removable]

    def _removable(self, digests: set[str]) -> set[str]:
        """As :meth:`_unreferenced`; none, with a warning, if the references are unknown."""
        if not digests:
            return set()
        try:
            return self._unreferenced(digests)
        except UnknownReferences as reason:
            _log.warning("no blobs are removed: %s", reason)
            return set()

    def _unreferenced(self, digests: set[str]) -> set[str]:
        """The digests that no manifest references. Exact if the caller holds the store's lock.

        :raises UnknownReferences:
        """
        left = {bytes.fromhex(digest.removeprefix("sha256:")): digest for digest in digests}
        with self._reading:
            paths = list(_manifests_below(str(self._manifests.folder), _LEVELS))
            for path in paths:
                referenced = self._referenced(path)
                for (digest,) in _DIGEST.iter_unpack(referenced) if left else ():
                    left.pop(digest, None)
            self._digests.keep_only(paths)
        return set(left.values())

    def _referenced(self, path: str) -> bytes:
        """The digests of one manifest, concatenated."""
        signature = file_signature(path)
        known = self._digests.get(path, signature)
        if known is None:
            known = b"".join(self._read(path))
            self._digests.put(path, signature, known, _ENTRY_BYTES + len(known))
        return known

    def _read(self, path: str) -> set[bytes]:
        """All digests in the file, in any field: other programs may add some."""
        try:
            self._manifests.name_of(path)
        except ValueError:
            raise UnknownReferences(f"{path!r} is not named as a model is") from None
        try:
            data = read_bounded(Path(path), MANIFEST_LIMIT_BYTES)
            layers = read_manifest(data).digests
        except BadRequest as error:
            raise UnknownReferences(f"{path!r} is not a manifest: {error.message}") from None
        except OSError as error:
            raise UnknownReferences(f"{path!r} cannot be read: {error.strerror}") from None
        if not layers:
            raise UnknownReferences(f"{path!r} is a manifest without blobs")
        digests = {bytes.fromhex(digest.removeprefix("sha256:")) for digest in layers}
        return digests.union(bytes.fromhex(each.decode()) for each in _MENTIONED.findall(data))


def _manifests_below(folder: str, levels: int) -> Iterator[str]:
    """Files exactly ``levels`` below. :raises UnknownReferences: there is anything else."""
    for entry in _entries(folder):
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            raise UnknownReferences(f"{entry.path!r} cannot be read: {error.strerror}") from None
        if levels > 1 and is_folder:
            yield from _manifests_below(entry.path, levels - 1)
        elif levels == 1 and is_file:
            yield entry.path
        else:
            for misplaced in _entries(entry.path) if is_folder else [entry]:
                raise UnknownReferences(f"{misplaced.path!r} is not where a manifest can be")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """:raises UnknownReferences: it cannot be read, or is a link to an empty folder (a disk that is
    not mounted).
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(_IGNORED)]
    except OSError as error:
        raise UnknownReferences(f"{folder!r} cannot be read: {error.strerror}") from None
    if not found and Path(folder).is_symlink():
        raise UnknownReferences(f"{folder!r} is a link to an empty folder")
    return found


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
