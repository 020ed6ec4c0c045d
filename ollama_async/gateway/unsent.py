"""Answers that their clients have not taken yet: how many bytes they hold, and for how long.

The kernel's socket buffer takes an ordinary answer whole, so most hold nothing here. What it does
not take waits in this process, for as long as its client likes to read slowly. It is counted, over
all clients and for each, and it has to move.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable
from types import TracebackType

from aiohttp import hdrs, web

from ollama_async.errors import Busy, ServerError

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

_IPV6_NETWORK_BITS = 64
"""Whoever has one address of IPv6 has all of its network."""


class SendBudget:
    """How many bytes the answers of one server hold, and may hold."""

    def __init__(self) -> None:
        self._total_bytes = 0
        self._by_client: dict[str, int] = {}

    @property
    def reserved_bytes(self) -> int:
        return self._total_bytes

    def reservation(self, request: web.BaseRequest) -> Reservation:
        """For the answer to ``request``, of nothing yet. Leaving its context gives it back."""
        return Reservation(self, request.remote or "")

    def take(self, client: str, size: int) -> None:
        """:raises Busy: ``client``, or all together, would hold too much."""
        held = self._by_client.get(client, 0)
        if held + size > CLIENT_LIMIT_BYTES or self._total_bytes + size > LIMIT_BYTES:
            raise Busy("server busy, please try again: too many answers wait to be read")
        self._total_bytes += size
        self._by_client[client] = held + size

    def give_back(self, client: str, size: int) -> None:
        self._total_bytes -= size
        left = self._by_client[client] - size
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]


class Reservation:
    """Memory for one answer, given back at the end, all at once."""

    __slots__ = ("_address", "_budget", "_client", "_reserved_bytes")

    def __init__(self, budget: SendBudget, address: str) -> None:
        self._budget = budget
        self._address = address
        self._client = ""
        self._reserved_bytes = 0

    def reserve(self, size: int) -> None:
        """Of ``size`` bytes in all, which the answer holds now or soon. It never shrinks.

        :raises Busy: too much is held for now. :raises ServerError: it is too much at any time.
        """
        if size <= max(FREE_BYTES, self._reserved_bytes):
            return
        if size > CLIENT_LIMIT_BYTES:
            raise ServerError(f"the answer is over the limit of {CLIENT_LIMIT_BYTES} bytes")
        size += -size % FREE_BYTES  # a text that grows is counted once for many pieces
        self._client = self._client or _client(self._address)
        self._budget.take(self._client, size - self._reserved_bytes)
        self._reserved_bytes = size

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reserved_bytes:
            self._budget.give_back(self._client, self._reserved_bytes)
            self._reserved_bytes = 0


RESERVATION: web.RequestKey[Reservation] = web.RequestKey("reservation", Reservation)
"""Of the request that is being answered. The boundary makes it and gives it back."""


async def sent(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """``response``, sent but for what its transport may hold, if it is a long one; others are left
    to aiohttp.

    :raises Busy: it would have to wait, and too much does already.
    :raises ConnectionResetError: the client is gone, or reads too slowly.
    """
    body = response.body if isinstance(response, web.Response) else None
    is_long = isinstance(body, bytes) and len(body) > FREE_BYTES
    if not is_long or response.prepared or request.method == hdrs.METH_HEAD:
        return response
    assert isinstance(body, bytes)
    request[RESERVATION].reserve(len(body))
    return await _in_slices(request, response, body)


async def _in_slices(
    request: web.Request, response: web.StreamResponse, body: bytes
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
        self._allowance_s = GRACE_S

    async def keep(self, writing: Awaitable[object], size: int = 0) -> None:
        """Wait for ``writing``, after which the client has taken ``size`` bytes more, or nearly.

        :raises ConnectionResetError: it takes them too slowly, or is gone.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._allowance_s):
                await writing
        except TimeoutError:
            raise ConnectionResetError from None
        left = self._allowance_s - (loop.time() - began) + size / SLOWEST_BYTES_PER_S
        self._allowance_s = min(GRACE_S, left)


def _client(address: str) -> str:
    """Who counts as one client."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped:
        return address
    return str(ipaddress.ip_network((int(found), _IPV6_NETWORK_BITS), strict=False))
