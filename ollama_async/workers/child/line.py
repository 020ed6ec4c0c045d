"""Requests that wait for one thread, whose clients take turns."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from ollama_async.core.round_robin import RoundRobin

T = TypeVar("T")


class Line(Generic[T]):
    """Any thread may call anything; only :meth:`take` waits. ``limit``: requests at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: RoundRobin[int, T] = RoundRobin()
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, client: str, number: int, item: T) -> bool:
        """Queue the ``client``'s request ``number`` behind its others. False: the line is full."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.put(client, number, item)
            self._changed.notify()
        return True

    def take(self) -> T | None:
        """Whose turn it is; waits until there is somebody. None: nobody, and the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting.take() if self._waiting else None

    def remove(self, number: int) -> None:
        """Forget a request; nothing happens if it is not here."""
        with self._changed:
            self._waiting.remove(number)

    def close(self) -> None:
        """Make :meth:`take` return None instead of waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
