"""Which blobs the models of a store need, for who is about to remove some.

A blob that is removed is gone, so this is the one place where nothing may be passed over: a file
among the manifests that is no manifest, has a name that no model can have, or cannot be read, may
be a model of which we know nothing. Then it is unknown what is needed, and nothing is removed, as
in Ollama.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from ollama_async.core.errors import BadRequest
from ollama_async.store.files import TEMPORARY_PREFIX, read_bounded
from ollama_async.store.manifest import MANIFEST_LIMIT_BYTES, read_manifest
from ollama_async.store.manifests import Manifests
from ollama_async.store.remembered import Remembered, signature_of

REMEMBERED_LIMIT_BYTES = 64 << 20
"""Of all digests together: those of five hundred manifests that are as large as they may be."""

_ENTRY_BYTES = 300
_DIGEST = struct.Struct("32s")
_LEVELS = 4
_MENTIONED = re.compile(rb"sha256[:-]([0-9a-fA-F]{64})(?![0-9a-fA-F])")
_PASSED_OVER = (TEMPORARY_PREFIX, ".DS_Store", "._")
"""So begins what we write and what file managers leave in folders."""


class Unknown(Exception):
    """It cannot be told what is needed; the text names the file, and why."""


class References:
    """What each manifest needs, read again only if its file has changed. Thread-safe."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._digests: Remembered[bytes] = Remembered(REMEMBERED_LIMIT_BYTES)
        self._reading = threading.Lock()

    def refresh(self) -> None:
        """Read what is new. :raises Unknown:"""
        self.unneeded(set())

    def unneeded(self, digests: set[str]) -> set[str]:
        """Those of the digests that no manifest needs. What is not changed meanwhile, by whoever
        holds the store's lock, is right.

        :raises Unknown:
        """
        left = {bytes.fromhex(digest.removeprefix("sha256:")): digest for digest in digests}
        with self._reading:
            paths = list(self._paths())
            for path in paths:
                needed = self._needed(path)
                for (digest,) in _DIGEST.iter_unpack(needed) if left else ():
                    left.pop(digest, None)
            self._digests.keep_only(paths)
        return set(left.values())

    def _needed(self, path: str) -> bytes:
        """The digests without anything between them."""
        signature = signature_of(path)
        known = self._digests.get(path, signature)
        if known is None:
            known = b"".join(self._read(path))
            self._digests.put(path, signature, known, _ENTRY_BYTES + len(known))
        return known

    def _paths(self) -> Iterator[str]:
        return _manifests_below(str(self._manifests.folder), _LEVELS)

    def _read(self, path: str) -> set[bytes]:
        """All digests that it mentions, wherever: other programs may have put them there."""
        try:
            self._manifests.name_of(path)
        except ValueError:
            raise Unknown(f"{path!r} is not named as a model is") from None
        try:
            data = read_bounded(Path(path), MANIFEST_LIMIT_BYTES)
            needed = read_manifest(data).digests
        except BadRequest as error:
            raise Unknown(f"{path!r} is no manifest: {error.message}") from None
        except OSError as error:
            raise Unknown(f"{path!r} cannot be read: {error.strerror}") from None
        if not needed:
            raise Unknown(f"{path!r} is a manifest of nothing")
        named = {bytes.fromhex(digest.removeprefix("sha256:")) for digest in needed}
        return named.union(bytes.fromhex(each.decode()) for each in _MENTIONED.findall(data))


def _manifests_below(folder: str, levels: int) -> Iterator[str]:
    """Every file so many levels below. :raises Unknown: there is anything else but folders."""
    for entry in _entries(folder):
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            raise Unknown(f"{entry.path!r} cannot be read: {error.strerror}") from None
        if levels > 1 and is_folder:
            yield from _manifests_below(entry.path, levels - 1)
        elif levels == 1 and is_file:
            yield entry.path
        else:
            for misplaced in _entries(entry.path) if is_folder else [entry]:
                raise Unknown(f"{misplaced.path!r} is not where a manifest can be")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """:raises Unknown: it cannot be read; or it is empty and a link, so a disk may be missing."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(_PASSED_OVER)]
    except OSError as error:
        raise Unknown(f"{folder!r} cannot be read: {error.strerror}") from None
    if not found and Path(folder).is_symlink():
        raise Unknown(f"{folder!r} is a link to an empty folder")
    return found
