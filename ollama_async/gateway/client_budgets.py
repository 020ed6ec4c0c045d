"""Bounds the memory and the time that one client, and all clients together, cost the gateway.

A :class:`ByteBudget` counts large bodies until they are answered, or answers that clients have not
read. (An ordinary answer fits the kernel's socket buffer; the rest of a longer one is held here.) A
:class:`WaitAllowance` bounds how long the gateway waits for a client while bytes move.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from ollama_async.core.errors import Busy, ServerError
from ollama_async.gateway.client_identity import client_of

T = TypeVar("T")

SEND_LIMIT_BYTES = 320 << 20
"""Of all unread answers together."""

CLIENT_SEND_LIMIT_BYTES = SEND_LIMIT_BYTES // 2
"""Of one client's unread answers. The longest description of a model fits: 64 licences of 1 MiB,
contained twice, and a vocabulary."""

FREE_BYTES = 32 << 10
"""Of each answer; they are not counted. Half of a transport's high-water mark, so that a short
answer with its head never waits."""


class ByteBudget(msgspec.Struct, kw_only=True, eq=False):
    """Bytes that the requests of one server hold and may hold, by client and in total.

    A reservation of up to ``free_bytes`` is not counted. Larger ones are counted in steps of
    ``step_bytes``, so that one that grows is counted once for many pieces.
    """

    limit_bytes: int
    client_limit_bytes: int
    busy_text: str
    free_bytes: int = 0
    step_bytes: int = 1
    reserved_bytes: int = 0
    _by_client: dict[str, int] = {}
    _reservations: dict[str, set[Reservation]] = {}

    def charge(self, reservation: Reservation, size: int) -> None:
        """:raises Busy: the client, or all together, would hold too much."""
        client = reservation.client
        held = self._by_client.get(client, 0) + size
        if held > self.client_limit_bytes:
            raise Busy(self.busy_text)
        if self.reserved_bytes + size > self.limit_bytes:
            self._make_space(size, held)
        self.reserved_bytes += size
        self._by_client[client] = held
        self._reservations.setdefault(client, set()).add(reservation)

    def release(self, reservation: Reservation) -> None:
        client, size = reservation.client, reservation.size
        self.reserved_bytes -= size
        self._by_client[client] -= size
        self._reservations[client].remove(reservation)
        if not self._reservations[client]:
            del self._reservations[client], self._by_client[client]

    def _make_space(self, size: int, held: int) -> None:  # noqa: ARG002  # for subclasses
        """Free ``size`` bytes for a client that then holds ``held``. :raises Busy: impossible."""
        raise Busy(self.busy_text)


class SendBudget(ByteBudget):
    """The budget of unread answers. When it is exhausted, answers of the client that holds most are
    aborted in favour of one that holds less.
    """

    limit_bytes: int = SEND_LIMIT_BYTES
    client_limit_bytes: int = CLIENT_SEND_LIMIT_BYTES
    busy_text: str = "server busy, please try again: too many answers wait to be read"
    free_bytes: int = FREE_BYTES
    step_bytes: int = FREE_BYTES

    def charge(self, reservation: Reservation, size: int) -> None:
        """:raises ServerError: the answer alone is over its client's limit."""
        if reservation.size + size > self.client_limit_bytes:
            raise ServerError(f"the answer is over the limit of {self.client_limit_bytes} bytes")
        super().charge(reservation, size)

    def _make_space(self, size: int, held: int) -> None:
        """Abort answers of the client that holds most. That always suffices: they are more than
        ``held``, which includes ``size``.
        """
        client = max(self._by_client, key=self._by_client.__getitem__)
        if self._by_client[client] <= held:
            raise Busy(self.busy_text)
        by_size = operator.attrgetter("size")
        for reservation in sorted(self._reservations[client], key=by_size, reverse=True):
            if self.reserved_bytes + size <= self.limit_bytes:
                break
            reservation.abort()


SEND_BUDGET: web.AppKey[SendBudget] = web.AppKey("send_budget", SendBudget)


class Reservation:
    """What one request holds of a budget, until the end of its context.

    ``interrupt`` makes the handler end with an error, while there is one.
    """

    def __init__(self, budget: ByteBudget, request: web.BaseRequest) -> None:
        self.size = 0
        self.interrupt: Callable[[], object] | None = None
        self._budget = budget
        self._request = request
        self._is_aborted = False

    @property
    def client(self) -> str:
        return client_of(self._request)

    def reserve(self, size: int) -> None:
        """Hold ``size`` bytes in all; a reservation never shrinks.

        :raises Busy: too much is reserved at present.
        :raises ServerError: the size exceeds what one client may ever hold.
        """
        if size <= max(self._budget.free_bytes, self.size):
            return
        if self._is_aborted:
            raise Busy(self._budget.busy_text)
        size += -size % self._budget.step_bytes
        self._budget.charge(self, size - self.size)
        self.size = size

    def abort(self) -> None:
        """Release the bytes, and end the answer that holds them: by an error, or by closing the
        connection if a part of it has been sent.
        """
        self._is_aborted = True
        self._release()
        if self.interrupt is not None and not self._request.writer.output_size:
            self.interrupt()
        elif self._request.transport is not None:
            self._request.transport.abort()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if self.size:
            self._budget.release(self)
            self.size = 0


SEND_RESERVATION: web.RequestKey[Reservation] = web.RequestKey("send_reservation", Reservation)
"""What the answer to a request holds. The middleware makes and releases it."""

BODY_RESERVATION: web.RequestKey[Reservation] = web.RequestKey("body_reservation", Reservation)
"""What the body of a request holds, likewise."""


class WaitAllowance:
    """Bounds the total time that one client may make the gateway wait.

    It starts with ``grace_s``, grows by a second for every ``bytes_per_s`` bytes that moved, and
    never exceeds ``grace_s``.
    """

    def __init__(self, grace_s: float, bytes_per_s: float) -> None:
        self._grace_s = grace_s
        self._bytes_per_s = bytes_per_s
        self._left_s = grace_s

    async def wait(self, moving: Awaitable[T]) -> T:
        """What ``moving`` returns. :raises TimeoutError: it takes longer than the allowance."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(self._left_s):
            moved = await moving
        self._left_s -= loop.time() - began
        return moved

    def earn(self, size: int) -> None:
        """``size`` bytes moved."""
        self._left_s = min(self._grace_s, self._left_s + size / self._bytes_per_s)
