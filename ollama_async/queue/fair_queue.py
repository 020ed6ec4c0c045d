"""Those who wait for one model: round-robin between clients, first come first served within one.
Before them all go those who had a place and lost it without fault, in their order.

A client with a thousand tickets delays another's first by at most one turn.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from ollama_async.queue.backend import LoadOptions
from ollama_async.queue.plan import Plan
from ollama_async.queue.ticket import Ticket

_Tickets = OrderedDict[int, Ticket]


class Line:
    """The order is that of ``_clients``; whoever is served goes to its end.

    Joining, leaving and being served are O(1) when the first client's head will do.
    """

    def __init__(self) -> None:
        self._returned: _Tickets = OrderedDict()
        self._clients: OrderedDict[str, _Tickets] = OrderedDict()
        self._wishes: Counter[LoadOptions] = Counter()
        self._length = 0
        self._planned: tuple[LoadOptions, Sequence[Plan]] | None = None

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Ticket]:
        """Every ticket, client by client."""
        yield from self._returned.values()
        for tickets in self._clients.values():
            yield from tickets.values()

    @property
    def wishes(self) -> Mapping[LoadOptions, int]:
        """How many tickets wish what; few distinct wishes, however long the line."""
        return self._wishes

    def plans(self, wish: LoadOptions, make: Callable[[], Sequence[Plan]]) -> Sequence[Plan]:
        """The plans for what the line wishes together, made once while that is the same."""
        if self._planned is None or self._planned[0] != wish:
            self._planned = (wish, make())
        return self._planned[1]

    def join(self, ticket: Ticket) -> None:
        """Stand behind everyone of the same client; a new client behind all clients."""
        self._clients.setdefault(ticket.request.client, OrderedDict())[ticket.id] = ticket
        self._count(ticket, 1)

    def rejoin(self, ticket: Ticket) -> None:
        """Stand in front of everyone: the ticket had a place and lost it without fault."""
        self._returned[ticket.id] = ticket
        self._returned.move_to_end(ticket.id, last=False)
        self._count(ticket, 1)

    def leave(self, ticket: Ticket) -> bool:
        """Take the ticket out, wherever it stands. False: it does not wait here."""
        client = ticket.request.client
        tickets = self._clients.get(client)
        if self._returned.pop(ticket.id, None) is not None:
            pass
        elif tickets is None or tickets.pop(ticket.id, None) is None:
            return False
        elif not tickets:
            del self._clients[client]
        self._count(ticket, -1)
        return True

    def first(self, is_served: Callable[[Ticket], bool]) -> Ticket | None:
        """Whose turn it is among the clients whose first ticket ``is_served``; it stays in line."""
        return next(filter(is_served, self.heads()), None)

    def heads(self) -> Iterator[Ticket]:
        """Who was returned, then each client's first ticket, in the order of turns. Nobody behind
        them can be next.
        """
        yield from self._returned.values()
        for tickets in self._clients.values():
            yield next(iter(tickets.values()))

    def serve(self, ticket: Ticket) -> None:
        """The ticket that :meth:`first` named leaves, and its client goes behind all others."""
        self.leave(ticket)
        if ticket.request.client in self._clients:
            self._clients.move_to_end(ticket.request.client)

    def _count(self, ticket: Ticket, change: int) -> None:
        self._length += change
        self._wishes[ticket.load_options] += change
        if not self._wishes[ticket.load_options]:
            del self._wishes[ticket.load_options]
