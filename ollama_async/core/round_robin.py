"""Round-robin order between clients."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class RoundRobin(Generic[K, T]):
    """Items of clients: round-robin between clients, in order within one. Each call is O(1)."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[K, T]] = OrderedDict()  # in order of turns
        self._client_of: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._client_of)

    def __contains__(self, key: object) -> bool:
        return key in self._client_of

    def __iter__(self) -> Iterator[T]:
        """Every item, client by client."""
        for items in self._clients.values():
            yield from items.values()

    def heads(self) -> Iterator[T]:
        """Each client's first item, in order of turns."""
        for items in self._clients.values():
            yield next(iter(items.values()))

    def put(self, client: str, key: K, item: T) -> None:
        """Add the item behind the client's others. ``key`` is unique."""
        self._clients.setdefault(client, OrderedDict())[key] = item
        self._client_of[key] = client

    def take(self) -> T:
        """Remove and return the next item; there must be one."""
        client, items = self._clients.popitem(last=False)
        key, item = items.popitem(last=False)
        del self._client_of[key]
        if items:
            self._clients[client] = items
        return item

    def take_item(self, key: K) -> T:
        """Remove and return this item, and end its client's turn; there must be one."""
        client = self._client_of[key]
        item = self._clients[client][key]
        self.remove(key)
        self.move_to_end(client)
        return item

    def move_to_end(self, client: str) -> None:
        """End the client's turn, if it has items."""
        if client in self._clients:
            self._clients.move_to_end(client)

    def remove(self, key: K) -> None:
        """Does nothing if the key is unknown."""
        client = self._client_of.pop(key, None)
        if client is None:
            return
        items = self._clients[client]
        del items[key]
        if not items:
            del self._clients[client]
