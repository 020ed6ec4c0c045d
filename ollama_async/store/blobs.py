"""Blobs: files in the store's ``blobs`` folder, named by the sha256 of their content."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from ollama_async.core.errors import BadRequest
from ollama_async.store.files import (
    FileSignature,
    NewFile,
    file_signature,
    read_bounded,
    storage_errors,
)

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_TOUCHED_S = 3600.0


def parse_digest(text: str) -> str:
    """``sha256:`` and 64 lower-case hex digits, from any spelling that Ollama accepts.

    Digests come from clients and manifests. Only this form is used in paths.

    :raises BadRequest: ``invalid digest format``.
    """
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise BadRequest("invalid digest format")
    return f"sha256:{match.group(1).lower()}"


def blob_name(digest: str) -> str:
    """The name of the blob's file."""
    return digest.replace(":", "-")


class Blobs:
    """The ``blobs`` folder. Its methods take digests as :func:`parse_digest` returns them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "blobs"

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Old stores and other tools spell the name differently."""
        usual = self.folder / blob_name(digest)
        if usual.exists():
            return usual
        hexadecimal = digest.removeprefix("sha256:")
        for name in (digest, f"sha256-{hexadecimal.upper()}", f"sha256:{hexadecimal.upper()}"):
            if (self.folder / name).exists():
                return self.folder / name
        return usual

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """:raises OSError: the blob is missing."""
        return self.path(digest).stat().st_size

    def existing_path(self, digest: str) -> Path:
        """The path of a regular file. :raises OSError: missing. :raises BadRequest: not a file."""
        path = self.path(digest)
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise BadRequest(f"{path.name} is not a file")
        return path

    def read(self, digest: str, limit_bytes: int) -> bytes:
        """The content of a small blob. :raises OSError: missing. :raises BadRequest: too large."""
        return read_bounded(self.existing_path(digest), limit_bytes)

    def put(self, data: bytes) -> tuple[str, bool]:
        """Store ``data``; returns its digest and whether it is new. :raises StorageFailed:"""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self.touch(digest):
            return digest, False
        with storage_errors(self.root), NewFile(self.folder) as file:
            file.write(data)
            file.publish(blob_name(digest))
        return digest, True

    def put_file(self, file: NewFile, digest: str) -> None:
        """Publish ``file``, which has this digest, unless the blob exists. :raises OSError:"""
        if not self.has(digest):
            file.publish(blob_name(digest))

    def signature(self, digest: str) -> FileSignature:
        """See :func:`.files.file_signature`."""
        return file_signature(self.path(digest))

    def touch(self, digest: str) -> bool:
        """Whether the blob exists. If so, pruning keeps it for the next 23 hours.

        Changes the file's time once an hour at most: the time is part of :meth:`signature`, and
        every change makes us read the blob again.
        """
        path = self.path(digest)
        with suppress(OSError):  # a store of another user, who prunes it
            if path.stat().st_mtime < time.time() - _TOUCHED_S:
                os.utime(path)
        return path.is_file()

    def remove(self, digest: str) -> None:
        """Does nothing if the blob is missing. :raises OSError: it cannot be removed."""
        self.path(digest).unlink(missing_ok=True)


class BlobWriter(AbstractContextManager["BlobWriter"]):
    """One upload: hashed while it is written, published only if the hash matches the digest.

    Every method blocks on the disk. Call them in a thread, one at a time. A context manager; on
    exit, or with :meth:`discard`, it removes an uncommitted file.
    """

    def __init__(self, blobs: Blobs, digest: str) -> None:
        """:raises StorageFailed: the folder is not writable."""
        self._blobs = blobs
        self._digest = digest
        self._hash = hashlib.sha256()
        with storage_errors(blobs.root):
            self._file = NewFile(blobs.folder)

    def write(self, chunk: bytes) -> None:
        """:raises StorageFailed: disk full; what was written is removed, the writer is unusable."""
        self._hash.update(chunk)
        try:
            with storage_errors(self._blobs.root):
                self._file.write(chunk)
        except BaseException:
            self.discard()
            raise

    def commit(self) -> None:
        """Check the complete upload and publish it.

        :raises BadRequest: the content does not match the digest; nothing is kept.
        :raises StorageFailed: it could not be made durable; nothing is kept.
        """
        received = f"sha256:{self._hash.hexdigest()}"
        try:
            if received != self._digest:
                raise BadRequest(f'digest mismatch, expected "{self._digest}", got "{received}"')
            with storage_errors(self._blobs.root):
                self._file.publish(blob_name(self._digest))
        finally:
            self.discard()

    def discard(self) -> None:
        """Idempotent."""
        self._file.discard()

    def __exit__(self, *_: object) -> None:
        self.discard()
