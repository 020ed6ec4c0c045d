"""What was read from the disk, kept while the file stays as it was and while there is room."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

from ollama_async.core.bounded_cache import BoundedCache

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
    """Values by key, each made when its file, or files, had a signature; ``limit_bytes`` together,
    as :class:`~ollama_async.core.bounded_cache.BoundedCache` keeps them. Any thread.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._kept: BoundedCache[Hashable, tuple[Hashable, T]] = BoundedCache(math.inf, limit_bytes)

    def get(self, key: Hashable, signature: Hashable) -> T | None:
        """The value, unless the signature is another one now."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] != signature:
            self._kept.forget(key)
            return None
        return found[1]

    def put(self, key: Hashable, signature: Hashable, value: T, size_bytes: int) -> None:
        """Keep it; what alone is over the limit is not kept."""
        self._kept.put(key, (signature, value), size_bytes)

    def forget(self, key: Hashable) -> None:
        self._kept.forget(key)

    def keep_only(self, keys: Collection[Hashable]) -> None:
        """Forget all others."""
        self._kept.keep_only(keys)
