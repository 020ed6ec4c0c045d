"""Whose turn it is among clients that wait."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class RoundRobin(Generic[K, T]):
    """Items of clients: round robin between clients, in order within one. Each call is O(1).

    A client with a thousand items delays another's first by at most one of them.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[K, T]] = OrderedDict()  # in order of turns
        self._client_of: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._client_of)

    def put(self, client: str, key: K, item: T) -> None:
        """Queue the item behind the ``client``'s others. ``key`` is its own among all clients'."""
        self._clients.setdefault(client, OrderedDict())[key] = item
        self._client_of[key] = client

    def take(self) -> T:
        """The item whose turn it is; there must be one."""
        client, items = self._clients.popitem(last=False)
        key, item = items.popitem(last=False)
        del self._client_of[key]
        if items:
            self._clients[client] = items
        return item

    def remove(self, key: K) -> None:
        """Nothing happens if it is not here."""
        client = self._client_of.pop(key, None)
        if client is None:
            return
        items = self._clients[client]
        del items[key]
        if not items:
            del self._clients[client]
