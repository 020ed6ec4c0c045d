"""What is dear to make and may be asked for again: the latest, by number and by size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values of ``size`` bytes or characters together, at most ``count`` of them. Any thread."""

    def __init__(self, count: float, size: int) -> None:
        self._most = count
        self._size = size
        self._room = size
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()  # the last in use at the end
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep ``value``, and forget what was unused for longest if there is no room.

        What is larger than all the room is not kept.
        """
        with self._lock:
            self._drop(key)
            if size > self._size:
                return
            self._values[key] = value, size
            self._room -= size
            while self._room < 0 or len(self._values) > self._most:
                self._drop(next(iter(self._values)))

    def forget(self, key: K) -> None:
        with self._lock:
            self._drop(key)

    def keep_only(self, keys: Collection[K]) -> None:
        """Forget all others."""
        with self._lock:
            for key in self._values.keys() - keys:
                self._drop(key)

    def _drop(self, key: K) -> None:
        _, size = self._values.pop(key, (None, 0))
        self._room += size
