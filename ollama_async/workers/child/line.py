"""Requests that wait for one thread: round-robin between clients, in order within one.

A client with a thousand requests delays another's first by at most one of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Line(Generic[T]):
    """Any thread may call anything; only :meth:`take` waits. ``limit``: requests at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._clients: OrderedDict[str, OrderedDict[int, T]] = OrderedDict()  # in order of turns
        self._client_of: dict[int, str] = {}
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, client: str, number: int, item: T) -> bool:
        """Queue the ``client``'s request ``number`` behind its others. False: the line is full."""
        with self._changed:
            if len(self._client_of) >= self._limit:
                return False
            self._clients.setdefault(client, OrderedDict())[number] = item
            self._client_of[number] = client
            self._changed.notify()
        return True

    def take(self) -> T | None:
        """Whose turn it is; waits until there is somebody. None: nobody, and the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._clients or self._is_closed)
            if not self._clients:
                return None
            client, items = self._clients.popitem(last=False)
            number, item = items.popitem(last=False)
            del self._client_of[number]
            if items:
                self._clients[client] = items
        return item

    def remove(self, number: int) -> None:
        """Forget a request; nothing happens if it is not here."""
        with self._changed:
            client = self._client_of.pop(number, None)
            if client is None:
                return
            items = self._clients[client]
            del items[number]
            if not items:
                del self._clients[client]

    def close(self) -> None:
        """Make :meth:`take` return None instead of waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
