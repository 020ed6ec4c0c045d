"""What was read from the disk, kept while the file stays as it was and while there is room."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

Signature = tuple[int, ...]


def signature_of(path: str | os.PathLike[str]) -> Signature:
    """Changes with the file's content, place and rights; empty if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path costs more than the call
    except OSError:
        return ()
    times = status.st_mtime_ns, status.st_ctime_ns
    return *times, status.st_size, status.st_ino, status.st_dev


class Remembered(Generic[T]):
    """Values by key, each made when its file, or files, had a signature. What has not been asked
    for longest goes first, as soon as all together cost more than ``limit_bytes``. Thread-safe.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Hashable, T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, signature: Hashable) -> T | None:
        """The value, unless the signature is another one now."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry[0] != signature:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def put(self, key: Hashable, signature: Hashable, value: T, size_bytes: int) -> None:
        """Keep it; what alone is over the limit is not kept."""
        with self._lock:
            self._drop(key)
            if size_bytes > self._limit_bytes:
                return
            self._entries[key] = signature, value, size_bytes
            self._used_bytes += size_bytes
            while self._used_bytes > self._limit_bytes:
                self._drop(next(iter(self._entries)))

    def forget(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def keep_only(self, keys: Collection[Hashable]) -> None:
        """Forget all others."""
        with self._lock:
            for key in self._entries.keys() - keys:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used_bytes -= entry[2]
