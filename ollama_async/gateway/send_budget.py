"""Answers that their clients have not taken yet: how many bytes they hold, and for how long.

The kernel's socket buffer takes an ordinary answer whole, so most hold nothing here. What it does
not take waits in this process, for as long as its client likes to read slowly. It is counted, over
all clients and for each, and it has to move.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable

from aiohttp import hdrs, web

from ollama_async.core.errors import Busy, ServerError
from ollama_async.gateway.client_identity import client_of
from ollama_async.gateway.wait_allowance import WaitAllowance

LIMIT_BYTES = 320 << 20
"""Of all answers together."""

CLIENT_LIMIT_BYTES = LIMIT_BYTES // 2
"""Of one client's, so that one cannot take it all. The longest description of a model fits in: 64
licences of 1 MiB, said twice, and a vocabulary."""

FREE_BYTES = 32 << 10
"""Of each answer, which are not counted: half of what a transport holds before it asks to wait, so
that a short answer, with its head, never waits."""

GRACE_S = 60.0
SLOWEST_BYTES_PER_S = 256 << 10
"""A client may make a long answer wait ``GRACE_S`` in all, plus a second for every 256 KiB that it
took, never more than ``GRACE_S`` at a time. At 1 Mbit/s that is enough for 14 MB; a client that
reads in order to hold memory is done in some minutes."""

_SLICE_BYTES = 128 << 10
"""What a transport is given at a time."""

_BUSY_TEXT = "server busy, please try again: too many answers wait to be read"


class SendBudget:
    """How many bytes the answers of one server hold, and may hold.

    When all together hold too much, the client that holds most makes room for one that holds less.
    """

    def __init__(self) -> None:
        self._total_bytes = 0
        self._by_client: dict[str, int] = {}
        self._reservations: dict[str, set[Reservation]] = {}

    @property
    def reserved_bytes(self) -> int:
        return self._total_bytes

    def take(self, reservation: Reservation, size: int) -> None:
        """:raises Busy: its client, or all together, would hold too much."""
        client = reservation.client
        held = self._by_client.get(client, 0) + size
        if held > CLIENT_LIMIT_BYTES:
            raise Busy(_BUSY_TEXT)
        if self._total_bytes + size > LIMIT_BYTES:
            self._make_room(size, held)
        self._total_bytes += size
        self._by_client[client] = held
        self._reservations.setdefault(client, set()).add(reservation)

    def _make_room(self, size: int, held: int) -> None:
        """Cut answers of the client that holds most. :raises Busy: it holds no more than ``held``,
        which includes ``size``; so what it holds is room enough.
        """
        client = max(self._by_client, key=self._by_client.__getitem__)
        if self._by_client[client] <= held:
            raise Busy(_BUSY_TEXT)
        for reservation in sorted(
            self._reservations[client], key=operator.attrgetter("size"), reverse=True
        ):
            if self._total_bytes + size <= LIMIT_BYTES:
                break
            reservation.cut()

    def give_back(self, reservation: Reservation) -> None:
        client, size = reservation.client, reservation.size
        self._total_bytes -= size
        self._by_client[client] -= size
        self._reservations[client].remove(reservation)
        if not self._reservations[client]:
            del self._reservations[client], self._by_client[client]


class Reservation:
    """Memory for the answer to one request, given back at the end of its context."""

    __slots__ = ("_budget", "_is_cut", "_request", "size")

    def __init__(self, budget: SendBudget, request: web.BaseRequest) -> None:
        self.size = 0
        self._budget = budget
        self._request = request
        self._is_cut = False

    @property
    def client(self) -> str:
        return client_of(self._request)

    def reserve(self, size: int) -> None:
        """Of ``size`` bytes in all, which the answer holds now or soon. It never shrinks.

        :raises Busy: too much is held for now. :raises ServerError: it is too much at any time.
        """
        if size <= max(FREE_BYTES, self.size):
            return
        if size > CLIENT_LIMIT_BYTES:
            raise ServerError(f"the answer is over the limit of {CLIENT_LIMIT_BYTES} bytes")
        if self._is_cut:
            raise Busy(_BUSY_TEXT)
        size += -size % FREE_BYTES  # a text that grows is counted once for many pieces
        self._budget.take(self, size - self.size)
        self.size = size

    def cut(self) -> None:
        """Others need the memory: end the connection, and with it whatever fills it."""
        self._is_cut = True
        self._give_back()
        if self._request.transport is not None:
            self._request.transport.abort()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self.size:
            self._budget.give_back(self)
            self.size = 0


RESERVATION: web.RequestKey[Reservation] = web.RequestKey("reservation", Reservation)
"""Of the request that is being answered. The boundary makes it and gives it back."""


async def sent(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """``response``, sent but for what its transport may hold, if it is a long one; others are left
    to aiohttp.

    :raises Busy: it would have to wait, and too much does already.
    :raises ConnectionResetError: the client is gone, or reads too slowly.
    """
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes | bytearray) or len(body) <= FREE_BYTES:
        return response
    if response.prepared or request.method == hdrs.METH_HEAD:
        return response
    request[RESERVATION].reserve(len(body))
    return await _in_slices(request, response, body)


async def _in_slices(
    request: web.Request, response: web.StreamResponse, body: bytes | bytearray
) -> web.StreamResponse:
    sliced = web.StreamResponse(status=response.status, headers=response.headers)
    sliced.content_length = len(body)
    pace = Pace()
    await pace.keep(sliced.prepare(request))
    rest = memoryview(body)
    while rest:
        await pace.keep(sliced.write(rest[:_SLICE_BYTES]), min(len(rest), _SLICE_BYTES))
        rest = rest[_SLICE_BYTES:]
    return sliced


class Pace:
    """How long one client may still make a long answer wait."""

    def __init__(self) -> None:
        self._allowance = WaitAllowance(GRACE_S, SLOWEST_BYTES_PER_S)

    async def keep(self, writing: Awaitable[object], size: int = 0) -> None:
        """Wait for ``writing``, after which the client has taken ``size`` bytes more, or nearly.

        :raises ConnectionResetError: it takes them too slowly, or is gone.
        """
        try:
            await self._allowance.wait(writing)
        except TimeoutError:
            raise ConnectionResetError from None
        self._allowance.earn(size)
