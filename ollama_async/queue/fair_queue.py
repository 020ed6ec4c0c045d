"""Fair queueing: the queued requests of one model, and how clients share a full queue.

The order is round-robin between clients, first come first served within one. Requests that lost
their place without fault go before all others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from ollama_async.core.round_robin import RoundRobin
from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.queue.crash_backoff import TRIAL_MARGIN_S, Crash
from ollama_async.queue.memory_budget import Plan


class QueuedRequest(msgspec.Struct, eq=False):
    """A request from admission to its end: first queued, then placed. A smaller ``id`` is older.

    ``load_options`` are normalized. ``loads_only``: it ends as soon as the model is ready.
    ``is_running``: it has been started on a worker. ``is_aborting``: its client has disconnected,
    and the worker has not confirmed the cancel. ``deaths``: how many workers died under it.
    ``crash``: the death of which it is a suspect, to be tried for ``trial_s``.
    """

    id: int
    client: str
    target: Target
    load_options: LoadOptions
    keep_alive_s: float | None
    loads_only: bool
    started_at: float = 0.0
    is_running: bool = False
    is_aborting: bool = False
    deaths: int = 0
    crash: Crash | None = None
    trial_s: float = 0.0

    def record_death(self, crash: Crash, now: float) -> None:
        """A worker has died under the request, which is now a suspect."""
        self.crash = crash
        self.trial_s = now - self.started_at + TRIAL_MARGIN_S
        self.deaths += 1


class FairQueue:
    """Adding, removing and serving are O(1) if the first client's first request can be served."""

    def __init__(self) -> None:
        self._returned: OrderedDict[int, QueuedRequest] = OrderedDict()
        self._clients: RoundRobin[int, QueuedRequest] = RoundRobin()
        self._load_options: Counter[LoadOptions] = Counter()
        self._plans: tuple[LoadOptions, Sequence[Plan]] | None = None

    def __len__(self) -> int:
        return len(self._returned) + len(self._clients)

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Every request, client by client."""
        yield from self._returned.values()
        yield from self._clients

    @property
    def load_options(self) -> Mapping[LoadOptions, int]:
        """Number of requests by load options; there are few different ones."""
        return self._load_options

    def plans(
        self, options: LoadOptions, plan: Callable[[LoadOptions], Sequence[Plan]]
    ) -> Sequence[Plan]:
        """The plans for ``options``, computed when these change."""
        if self._plans is None or self._plans[0] != options:
            self._plans = (options, plan(options))
        return self._plans[1]

    def add(self, request: QueuedRequest) -> None:
        """Queue the request behind its client's others, and a new client behind all clients."""
        self._clients.put(request.client, request.id, request)
        self._load_options[request.load_options] += 1

    def put_back(self, request: QueuedRequest) -> None:
        """Queue a request that lost its place without fault before all others."""
        self._returned[request.id] = request
        self._returned.move_to_end(request.id, last=False)
        self._load_options[request.load_options] += 1

    def remove(self, request: QueuedRequest) -> None:
        if self._returned.pop(request.id, None) is None:
            self._clients.remove(request.id)
        self._load_options[request.load_options] -= 1
        if not self._load_options[request.load_options]:
            del self._load_options[request.load_options]

    def heads(self) -> Iterator[QueuedRequest]:
        """The candidates for the next place, in order: those put back, then each client's first."""
        yield from self._returned.values()
        yield from self._clients.heads()

    def first(self, can_run: Callable[[QueuedRequest], bool]) -> QueuedRequest | None:
        """The first of :meth:`heads` that ``can_run``."""
        return next(filter(can_run, self.heads()), None)

    def end_turn(self, client: str) -> None:
        """A request of the client got a place: the client goes behind all others."""
        self._clients.move_to_end(client)


class Share(NamedTuple):
    """A client's number of queued requests, and of queued and placed ones."""

    queued: int
    total: int


class _Requests(NamedTuple):
    queued: dict[int, QueuedRequest]
    placed: dict[int, QueuedRequest]

    @property
    def share(self) -> Share:
        return Share(len(self.queued), len(self.queued) + len(self.placed))


class ClientShares:
    """How many requests each client has, over all models.

    :meth:`update` is O(1). :meth:`largest` compares the distinct shares of clients with queued
    requests, which are few: n distinct ones take n²/2 requests.
    """

    def __init__(self) -> None:
        self._requests: dict[str, _Requests] = {}
        self._clients_with: dict[Share, dict[str, None]] = {}

    def update(self, request: QueuedRequest, status: Literal["queued", "placed", "ended"]) -> None:
        """Record the request's new status."""
        client = request.client
        requests = self._requests.setdefault(client, _Requests({}, {}))
        if requests.queued:
            clients = self._clients_with[requests.share]
            del clients[client]
            if not clients:
                del self._clients_with[requests.share]
        requests.queued.pop(request.id, None)
        requests.placed.pop(request.id, None)
        if status == "queued":
            requests.queued[request.id] = request
        elif status == "placed":
            requests.placed[request.id] = request
        if requests.queued:
            self._clients_with.setdefault(requests.share, {})[client] = None
        elif not requests.placed:
            del self._requests[client]

    def of(self, client: str) -> Share:
        requests = self._requests.get(client)
        return requests.share if requests else Share(0, 0)

    def largest(self) -> Share:
        """The largest share among clients with queued requests."""
        return max(self._clients_with, default=Share(0, 0))

    def can_displace(self, client: str) -> bool:
        """Whether ``client`` would have less with one more queued request than another has now."""
        share = self.of(client)
        return Share(share.queued + 1, share.total + 1) < self.largest()

    def displaced_by(self, newcomer: QueuedRequest) -> QueuedRequest:
        """The request to reject when the queue is over its limit: the ``newcomer`` (queued already)
        if its client has the largest share, else the newest queued one of the client that has it.
        """
        if self.of(newcomer.client) >= self.largest():
            return newcomer
        client = next(reversed(self._clients_with[self.largest()]))
        queued = self._requests[client].queued
        return queued[max(queued)]
