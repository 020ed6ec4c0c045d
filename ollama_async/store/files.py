"""Durable files: atomic writes, the store's lock, and error texts for disk errors."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ollama_async.core.errors import BadRequest, StorageFailed

LOCK_NAME = ".lock"
TEMPORARY_PREFIX = ".tmp-"
"""Invalid in names of models and blobs, so every reader ignores such files."""

_LOCK_TIMEOUT_S = 30.0
_LOCK_RETRY_S = 0.02
_SETTLED_S = 60.0

FileSignature = tuple[int, ...]


def file_signature(path: str | os.PathLike[str]) -> FileSignature:
    """Changes with the file's content, location and permissions. Empty for a missing file."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path costs more than the call
    except OSError:
        return ()
    times = status.st_mtime_ns, status.st_ctime_ns
    return *times, status.st_size, status.st_ino, status.st_dev


@contextmanager
def storage_errors(root: Path) -> Iterator[None]:
    """Translate an OSError into a :class:`StorageFailed` about the store."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(_explain(error, root)) from error


def _explain(error: OSError, root: Path) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"no space left on the disk of the model store {root}"
    if error.errno == errno.EFBIG:
        return f"the file is too large for the disk of the model store {root}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"the model store {root} is not writable"
    return f"model store {root}: {error.strerror or error}"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the store's lock, exclusively among all threads and processes.

    Polls, because ``flock`` has no timeout.

    :raises StorageFailed: another process has held the lock for 30 seconds.
    :raises OSError: the lock file cannot be created.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / LOCK_NAME, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise StorageFailed(f"the model store {root} is locked by another process")
            time.sleep(_LOCK_RETRY_S)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock the open file exclusively until it is closed. False if it is locked already."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_bytes(folder: Path) -> int:
    """Free space on the folder's disk. :raises OSError: the folder is missing."""
    return shutil.disk_usage(folder).free


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Read a small file.

    :raises OSError: it cannot be read.
    :raises BadRequest: it is over the limit.
    """
    with path.open("rb") as file:
        is_larger = os.fstat(file.fileno()).st_size > limit_bytes
        data = b"" if is_larger else file.read(limit_bytes + 1)
    if is_larger or len(data) > limit_bytes:
        raise BadRequest(f"{path.name} is larger than {limit_bytes} bytes")
    return data


class NewFile(AbstractContextManager["NewFile"]):
    """A temporary file that :meth:`publish` renames into place, whole and durable.

    A context manager that removes an unpublished file on exit. All methods may raise OSError. The
    writer holds a lock on the file, so that :func:`is_abandoned` can detect dead writers.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._descriptor, path = tempfile.mkstemp(dir=folder, prefix=TEMPORARY_PREFIX)
        self._path: Path | None = Path(path)
        try_lock(self._descriptor)

    @property
    def path(self) -> Path:
        """The temporary path, for writers that need a name."""
        assert self._path is not None, "published or discarded"
        return self._path

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` of the bytes written so far."""
        return os.pread(self._descriptor, count, offset)

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def publish(self, name: str) -> None:
        """Rename the file to ``name`` in its folder, durably, replacing any old file."""
        os.fchmod(self._descriptor, 0o644)
        os.fsync(self._descriptor)
        self.path.rename(self._folder / name)
        self._path = None
        sync_folder(self._folder)

    def discard(self) -> None:
        """Close the file, and remove it unless published. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            self._path = None

    def __exit__(self, *_: object) -> None:
        self.discard()


def is_abandoned(path: Path) -> bool:
    """Whether the temporary file's writer is gone. False for files less than a minute old."""
    try:
        if path.stat().st_mtime > time.time() - _SETTLED_S:
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile
        return False
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create the folder and its parents durably: a power cut does not remove them."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # another thread was faster
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's list of files durable. :raises OSError:"""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
