"""LRU cache bounded by entry count and total size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most ``max_entries`` values with a total size of ``max_size`` (any unit). Thread-safe."""

    def __init__(self, max_entries: float, max_size: int) -> None:
        self._max_entries = max_entries
        self._max_size = max_size
        self._size = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()  # most recently used last
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Add or replace a value and evict old ones. One larger than the cache is not stored."""
        with self._lock:
            self._drop(key)
            if size > self._max_size:
                return
            self._values[key] = value, size
            self._size += size
            while self._size > self._max_size or len(self._values) > self._max_entries:
                self._drop(next(iter(self._values)))

    def remove(self, key: K) -> None:
        """Does nothing if the key is unknown."""
        with self._lock:
            self._drop(key)

    def keep_only(self, keys: Collection[K]) -> None:
        """Remove all other keys."""
        with self._lock:
            for key in self._values.keys() - keys:
                self._drop(key)

    def _drop(self, key: K) -> None:
        _, size = self._values.pop(key, (None, 0))
        self._size -= size
