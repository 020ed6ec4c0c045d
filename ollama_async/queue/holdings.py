"""How much each client holds, over all models: what a full queue is shared out by."""

from __future__ import annotations

from typing import NamedTuple

from ollama_async.queue.ticket import Ticket


class Holding(NamedTuple):
    """Compares first by what waits, then by what waits or has a place."""

    waiting: int
    total: int


class _Tickets(NamedTuple):
    waiting: dict[int, Ticket]
    placed: dict[int, Ticket]

    @property
    def holding(self) -> Holding:
        return Holding(len(self.waiting), len(self.waiting) + len(self.placed))


class Holdings:
    """Every ticket is told to :meth:`wait` or :meth:`hold`, and in the end to :meth:`release`.

    These are O(1). :meth:`largest` looks at the distinct holdings of those who wait, of which there
    are few however many clients there are: n of them take at least n²/2 tickets.
    """

    def __init__(self) -> None:
        self._clients: dict[str, _Tickets] = {}
        self._filed: dict[str, Holding] = {}
        self._holders: dict[Holding, dict[str, None]] = {}

    def wait(self, ticket: Ticket) -> None:
        """The ticket waits now."""
        tickets = self._clients.setdefault(ticket.request.client, _Tickets({}, {}))
        tickets.placed.pop(ticket.id, None)
        tickets.waiting[ticket.id] = ticket
        self._file(ticket.request.client, tickets)

    def hold(self, ticket: Ticket) -> None:
        """The ticket has a place now."""
        tickets = self._clients.setdefault(ticket.request.client, _Tickets({}, {}))
        tickets.waiting.pop(ticket.id, None)
        tickets.placed[ticket.id] = ticket
        self._file(ticket.request.client, tickets)

    def release(self, ticket: Ticket) -> None:
        """The ticket has ended."""
        client = ticket.request.client
        tickets = self._clients[client]
        tickets.waiting.pop(ticket.id, None)
        tickets.placed.pop(ticket.id, None)
        self._file(client, tickets)
        if not tickets.holding.total:
            del self._clients[client]

    def of(self, client: str) -> Holding:
        tickets = self._clients.get(client)
        return tickets.holding if tickets else Holding(0, 0)

    def largest(self) -> Holding:
        """The largest holding of anybody who has something waiting."""
        return max(self._holders, default=Holding(0, 0))

    def may_displace(self, client: str) -> bool:
        """Whether ``client`` would hold less with one more waiting than somebody else does now."""
        mine = self.of(client)
        return Holding(mine.waiting + 1, mine.total + 1) < self.largest()

    def last_of_largest(self) -> Ticket:
        """The newest waiting ticket of who holds most; there must be one who waits."""
        client = next(reversed(self._holders[self.largest()]))
        waiting = self._clients[client].waiting
        return waiting[max(waiting)]

    def _file(self, client: str, tickets: _Tickets) -> None:
        before = self._filed.pop(client, None)
        if before is not None:
            holders = self._holders[before]
            del holders[client]
            if not holders:
                del self._holders[before]
        if tickets.waiting:
            holding = self._filed[client] = tickets.holding
            self._holders.setdefault(holding, {})[client] = None
