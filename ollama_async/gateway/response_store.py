"""Keeps the responses of ``/v1/responses`` in memory, for clients that continue or retrieve them.

A response knows the one that it continues, so a conversation takes the memory of its turns, however
long it is. One that was dropped stays in memory as long as a later one continues it, and counts
until then. Nothing survives the server.

A response is visible to the client that made it, and only with the same API key. When the store is
full, the client that holds most loses what it has not used for longest.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import msgspec
from aiohttp import web

from ollama_async.gateway.client_identity import client_of, credential_of

STORE_LIMIT_BYTES = 64 << 20

STORE_LIMIT_COUNT = 4096
"""Of responses."""

RESPONSE_LIMIT_BYTES = 8 << 20
"""A larger one is not stored: it would be read in one call, which blocks the event loop."""

ITEMS_LIMIT = 1024
"""Of the items of one request, the last ones that later requests can refer to."""

_RESPONSE_BYTES = 1024
_ITEM_BYTES = 256
_ID_CHARACTERS = 128  # longer ones, which clients made up, cannot be referred to


class Owner(msgspec.Struct, frozen=True):
    """Who made a response: the client that fairness counts, and a digest of its API key."""

    client: str
    credential: bytes


def owner_of(request: web.Request) -> Owner:
    return Owner(client_of(request), credential_of(request))


class StoredResponse(msgspec.Struct, kw_only=True, eq=False):
    """``answer`` is the response in JSON, ``input`` the items that its request added as JSON lists,
    and ``item_ids`` are those of both that can be referred to. ``previous`` is the response that it
    continues.

    ``size``: bytes of memory, roughly. ``holders``: how many of the store's index and the stored
    later responses need it.
    """

    id: str
    owner: Owner
    answer: bytes
    input: list[bytes]
    item_ids: list[str]
    previous: StoredResponse | None
    size: int = 0
    holders: int = 0

    def __post_init__(self) -> None:
        ids = sum(map(len, self.item_ids)) + _ITEM_BYTES * len(self.item_ids)
        self.size = len(self.answer) + sum(map(len, self.input)) + ids + _RESPONSE_BYTES

    def turns(self) -> list[StoredResponse]:
        """What it continues, oldest first, and itself."""
        turns: list[StoredResponse] = []
        turn: StoredResponse | None = self
        while turn is not None:
            turns.append(turn)
            turn = turn.previous
        return turns[::-1]


class _Client(msgspec.Struct, eq=False):
    """What one client has: ``responses`` by id, in the order of their use, and the response of each
    item by its owner's credential and its id, which may be the client's own. ``size`` and ``count``
    include those that only later ones need.
    """

    responses: OrderedDict[str, StoredResponse]
    by_item: dict[tuple[bytes, str], StoredResponse]
    size: int = 0
    count: int = 0


class ResponseStore:
    """May be used in any thread; every call is short."""

    def __init__(
        self, *, limit_bytes: int = STORE_LIMIT_BYTES, limit_count: int = STORE_LIMIT_COUNT
    ) -> None:
        self.size = self.count = 0
        self._limit_bytes, self._limit_count = limit_bytes, limit_count
        self._clients: dict[str, _Client] = {}
        self._lock = Lock()

    def add(self, response: StoredResponse) -> None:
        """Store it, unless it is over :data:`RESPONSE_LIMIT_BYTES`."""
        if response.size > min(RESPONSE_LIMIT_BYTES, self._limit_bytes):
            return
        with self._lock:
            client = self._client(response.owner.client)
            client.responses[response.id] = response
            for item_id in response.item_ids:
                if len(item_id) <= _ID_CHARACTERS:
                    client.by_item[response.owner.credential, item_id] = response
            self._hold(response)
            while self.size > self._limit_bytes or self.count > self._limit_count:
                self._drop_one()

    def get(self, owner: Owner, response_id: str) -> StoredResponse | None:
        """It counts as used now."""
        with self._lock:
            response = self._visible(owner, response_id)
            if response is not None:
                self._clients[owner.client].responses.move_to_end(response_id)
            return response

    def find_item(self, owner: Owner, item_id: str) -> StoredResponse | None:
        """The response that has this item, in its input or its output."""
        with self._lock:
            client = self._clients.get(owner.client)
            response = client and client.by_item.get((owner.credential, item_id))
            return self._visible(owner, response.id) if response else None

    def delete(self, owner: Owner, response_id: str) -> bool:
        """Whether there was one. Conversations that continue it keep it."""
        with self._lock:
            response = self._visible(owner, response_id)
            if response is not None:
                self._drop(response)
            return response is not None

    # -- private, with the lock ------------------------------------------------------------------

    def _visible(self, owner: Owner, response_id: str) -> StoredResponse | None:
        client = self._clients.get(owner.client)
        response = client.responses.get(response_id) if client is not None else None
        return response if response is not None and response.owner == owner else None

    def _client(self, name: str) -> _Client:
        if name not in self._clients:
            self._clients[name] = _Client(OrderedDict(), {})
        return self._clients[name]

    def _drop_one(self) -> None:
        """Of the client that holds most, the one that was not used for longest."""
        client = max(self._clients.values(), key=self._share)
        self._drop(next(iter(client.responses.values())))

    def _share(self, client: _Client) -> float:
        """Of the store, by bytes or by number, whichever is more."""
        return max(client.size / self._limit_bytes, client.count / self._limit_count)

    def _drop(self, response: StoredResponse) -> None:
        client = self._clients[response.owner.client]
        del client.responses[response.id]
        for item_id in response.item_ids:
            key = response.owner.credential, item_id
            if client.by_item.get(key) is response:
                del client.by_item[key]
        self._release(response)
        if not client.responses:
            del self._clients[response.owner.client]

    def _hold(self, response: StoredResponse | None) -> None:
        """One more needs it. The first one makes it count, and makes it need its predecessor."""
        while response is not None:
            response.holders += 1
            if response.holders > 1:
                return
            self._count(response, 1)
            response = response.previous

    def _release(self, response: StoredResponse | None) -> None:
        while response is not None:
            response.holders -= 1
            if response.holders:
                return
            self._count(response, -1)
            response = response.previous

    def _count(self, response: StoredResponse, sign: int) -> None:
        client = self._client(response.owner.client)
        for each in (self, client):
            each.count += sign
            each.size += sign * response.size


RESPONSES: web.AppKey[ResponseStore] = web.AppKey("responses", ResponseStore)
