"""Partial blobs: downloads in chunks, in files that outlive the process and can be resumed.

The file ``sha256-HEX-incoming`` in the folder of blobs has the content, sparse where nothing was
received, then a trailer with the bytes received of each chunk. Data is written before its counter,
so after a kill the counters are never too high. After a power cut they may be; then the digest does
not match. A lock on the file admits one writer among all processes.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import struct
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import msgspec

from ollama_async.store.blobs import Blobs, blob_name
from ollama_async.store.files import free_bytes, storage_errors, sync_folder, try_lock

_log = logging.getLogger(__name__)

SUFFIX = "-incoming"
KEEP_S = 7 * 86400.0
"""Age of partial files that are removed."""
YOUNG_S = 86400.0
"""Age of those that are removed if their space is needed. A pull closes complete files while it
fetches others, so younger ones may be in use."""

_MAGIC = b"ollama_async 1\0\0"
_HEAD = struct.Struct("<16sQQ")  # magic, bytes of the blob, bytes of a chunk
_COUNTER = struct.Struct("<Q")
_MAX_CHUNKS = 1024
_HASH_BYTES = 16 << 20
_READ_BYTES = 1 << 20


Stamp = tuple[int, int, int]


class Chunk(msgspec.Struct):
    """Bytes ``start`` to ``end`` of the blob, of which the first ``received`` are in the file."""

    index: int
    start: int
    end: int
    received: int = 0

    @property
    def missing(self) -> int:
        return self.end - self.start - self.received


class PartialFile:
    """An open partial file. Every method blocks on the disk and may raise StorageFailed.

    Several threads may call :meth:`write` at once, each with its own chunk.
    """

    def __init__(self, blobs: Blobs, digest: str, descriptor: int) -> None:
        self.digest = digest
        self.total = 0
        self.chunks: list[Chunk] = []
        self.is_resumed = False
        self._blobs = blobs
        self._path = partial_path(blobs, digest)
        self._descriptor = descriptor
        self._hashing = threading.Lock()
        self._hashed = 0
        self._sha256 = hashlib.sha256()

    @classmethod
    def claim(cls, blobs: Blobs, digest: str, total: int, chunk_bytes: int) -> PartialFile | None:
        """Open or create the blob's partial file; None while another writer has it open.

        ``chunk_bytes`` applies to new files; very large blobs have larger chunks.
        """
        with storage_errors(blobs.root):
            blobs.folder.mkdir(parents=True, exist_ok=True)
            descriptor = _open_locked(partial_path(blobs, digest))
            if descriptor is None:
                return None
            partial = cls(blobs, digest, descriptor)
            try:
                if not partial._resume(total):
                    partial._begin(total, chunk_bytes)
            except BaseException:
                partial.close()
                raise
            return partial

    @property
    def received(self) -> int:
        return sum(chunk.received for chunk in self.chunks)

    def write(self, chunk: Chunk, data: bytes | bytearray) -> None:
        """Append at most :attr:`Chunk.missing` bytes to a chunk."""
        assert len(data) <= chunk.missing, "a chunk overflows"
        with storage_errors(self._blobs.root):
            self._write_at(chunk.start + chunk.received, data)
            chunk.received += len(data)
            self._write_counter(chunk)

    def restart(self) -> None:
        """Discard everything received."""
        with self._hashing, storage_errors(self._blobs.root):
            for chunk in self.chunks:
                chunk.received = 0
                self._write_counter(chunk)
            self.is_resumed = False
            self._hashed, self._sha256 = 0, hashlib.sha256()

    @property
    def unhashed(self) -> int:
        """Bytes that :meth:`hash_more` has not hashed yet."""
        return self.total - self._hashed

    def hash_more(self) -> int:
        """Hash more of the contiguous bytes from the start, for a fraction of a second.

        Returns the number of bytes. May run concurrently with :meth:`write`.
        """
        with self._hashing, storage_errors(self._blobs.root):
            start = self._hashed
            end = min(self._contiguous_bytes(), start + _HASH_BYTES)
            while self._hashed < end:
                length = min(_READ_BYTES, end - self._hashed)
                data = os.pread(self._descriptor, length, self._hashed)
                if not data:
                    raise OSError(errno.EIO, "a file has become shorter")
                self._sha256.update(data)
                self._hashed += len(data)
            return self._hashed - start

    @property
    def found_digest(self) -> str:
        """The digest of the bytes hashed so far."""
        return f"sha256:{self._sha256.hexdigest()}"

    def stamp(self) -> Stamp:
        """Changes with every write to the file."""
        status = os.fstat(self._descriptor)
        return status.st_ino, status.st_mtime_ns, status.st_size

    def publish(self) -> None:
        """Rename the file to the blob, durably, and close it. The caller has checked the digest."""
        with storage_errors(self._blobs.root):
            os.fchmod(self._descriptor, 0o644)
            os.fsync(self._descriptor)  # slow; a kill meanwhile loses nothing
            os.ftruncate(self._descriptor, self.total)
            os.fsync(self._descriptor)
            self._path.rename(self._blobs.folder / blob_name(self.digest))
            sync_folder(self._blobs.folder)
        self.close()

    def discard(self) -> None:
        """Remove the file and close it."""
        with suppress(OSError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file, to be resumed later. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _contiguous_bytes(self) -> int:
        for chunk in self.chunks:
            if chunk.missing:
                return chunk.start + chunk.received
        return self.total

    def _resume(self, total: int) -> bool:
        """Read the file's trailer; False if it is missing or invalid."""
        chunks = _read_trailer(self._descriptor, total)
        if chunks is None:
            return False
        self.total, self.chunks = total, chunks
        self.is_resumed = self.received > 0
        return True

    def _begin(self, total: int, chunk_bytes: int) -> None:
        os.ftruncate(self._descriptor, 0)
        length = max(chunk_bytes, -(-total // _MAX_CHUNKS), 1)
        self.total, self.chunks = total, _chunks(total, length)
        trailer = _HEAD.pack(_MAGIC, total, length) + bytes(_COUNTER.size * len(self.chunks))
        self._write_at(total, trailer)

    def _write_counter(self, chunk: Chunk) -> None:
        offset = self.total + _HEAD.size + chunk.index * _COUNTER.size
        self._write_at(offset, _COUNTER.pack(chunk.received))

    def _write_at(self, offset: int, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view = view[written:]
            offset += written


def partial_path(blobs: Blobs, digest: str) -> Path:
    return blobs.folder / (blob_name(digest) + SUFFIX)


def received_bytes(blobs: Blobs, digest: str, total: int) -> int:
    """Bytes of a blob in its partial file; 0 if there is none, or it is invalid."""
    try:
        descriptor = os.open(partial_path(blobs, digest), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return sum(chunk.received for chunk in _read_trailer(descriptor, total) or ())
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def remove_stale(folder: Path, *, keep_s: float = KEEP_S) -> int:
    """Remove partial files unchanged for ``keep_s``; returns their number. :raises OSError:"""
    return sum(map(_remove_unclaimed, _untouched(folder, keep_s)))


def free_space(folder: Path, needed_bytes: int, keeping: Collection[str]) -> None:
    """Remove partial files, the oldest first, until ``needed_bytes`` are free.

    Keeps those of the last day and of the digests ``keeping``. :raises OSError:
    """
    kept = {blob_name(digest) + SUFFIX for digest in keeping}
    for path in _untouched(folder, YOUNG_S):
        if free_bytes(folder) >= needed_bytes:
            return
        if path.name not in kept and _remove_unclaimed(path):
            _log.info("removed the unfinished download %s, because its space is needed", path.name)


def _untouched(folder: Path, for_s: float) -> list[Path]:
    """Partial files unchanged for so long, the oldest first."""
    found: list[tuple[float, Path]] = []
    for path in folder.glob(f"sha256-*{SUFFIX}"):
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path))
    return [path for touched_at, path in sorted(found) if touched_at < time.time() - for_s]


def _remove_unclaimed(path: Path) -> bool:
    """Remove the file unless a writer has it open; returns whether it did. :raises OSError:"""
    descriptor = _open_locked(path)
    if descriptor is None:
        return False
    try:
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def _open_locked(path: Path) -> int | None:
    """Open or create the file and lock it; None if it is locked already."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            if not try_lock(descriptor):
                os.close(descriptor)
                return None
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # published or removed before we had the lock: create it anew
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _chunks(total: int, length: int) -> list[Chunk]:
    starts = enumerate(range(0, total, length))
    return [Chunk(index, start, min(start + length, total)) for index, start in starts]


def _read_trailer(descriptor: int, total: int) -> list[Chunk] | None:
    head = os.pread(descriptor, _HEAD.size, total)
    if len(head) < _HEAD.size:
        return None
    magic, its_total, length = _HEAD.unpack(head)
    if magic != _MAGIC or its_total != total or length < 1 or total > length * _MAX_CHUNKS:
        return None
    chunks = _chunks(total, length)
    counters = os.pread(descriptor, _COUNTER.size * len(chunks) + 1, total + _HEAD.size)
    if len(counters) != _COUNTER.size * len(chunks):
        return None
    for chunk, (count,) in zip(chunks, _COUNTER.iter_unpack(counters), strict=True):
        if count > chunk.missing:
            return None
        chunk.received = count
    return chunks
