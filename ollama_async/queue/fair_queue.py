"""Who runs next: the queued requests of one model, and how a full queue is shared by clients.

The order is round-robin between clients, first come first served within one. Before all others go
requests that had a place and lost it without fault.
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
    and the worker has not confirmed that yet. ``deaths``: how many workers died under it.
    ``crash``: of the last death, of which it is a suspect, to be tried for ``trial_s``.
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

    def suspect(self, crash: Crash, now: float) -> None:
        """A worker has died under the request, which may be to blame."""
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
        """Number of requests by load options, which are few however long the queue is."""
        return self._load_options

    def plans(
        self, options: LoadOptions, plan: Callable[[LoadOptions], Sequence[Plan]]
    ) -> Sequence[Plan]:
        """The plans for ``options``, made again only when these change."""
        if self._plans is None or self._plans[0] != options:
            self._plans = (options, plan(options))
        return self._plans[1]

    def add(self, request: QueuedRequest) -> None:
        """Queue the request behind all of its client; a new client behind all clients."""
        self._clients.put(request.client, request.id, request)
        self._load_options[request.load_options] += 1

    def put_back(self, request: QueuedRequest) -> None:
        """Queue the request before all others: it had a place and lost it without fault."""
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
        """The requests that can be next: those put back, then each client's first, in order."""
        yield from self._returned.values()
        yield from self._clients.heads()

    def first(self, can_run: Callable[[QueuedRequest], bool]) -> QueuedRequest | None:
        """The next request of those that ``can_run``; it remains queued."""
        return next(filter(can_run, self.heads()), None)

    def serve(self, request: QueuedRequest) -> None:
        """Remove the request that :meth:`first` returned; its client goes behind all others."""
        self.remove(request)
        self._clients.move_to_end(request.client)


class Share(NamedTuple):
    """Compares first by queued requests, then by those queued or placed."""

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

    :meth:`update` is O(1). :meth:`largest` looks at the distinct shares of clients with queued
    requests. These are few however many clients there are: n of them take n²/2 requests.
    """

    def __init__(self) -> None:
        self._requests: dict[str, _Requests] = {}
        self._clients_with: dict[Share, dict[str, None]] = {}

    def update(self, request: QueuedRequest, status: Literal["queued", "placed", "ended"]) -> None:
        """The request is queued now, or has a place, or has ended."""
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
        """The largest share of any client with a queued request."""
        return max(self._clients_with, default=Share(0, 0))

    def can_displace(self, client: str) -> bool:
        """Whether ``client`` would have less with one more queued request than another has now."""
        share = self.of(client)
        return Share(share.queued + 1, share.total + 1) < self.largest()

    def displaced_by(self, newcomer: QueuedRequest) -> QueuedRequest:
        """The request to reject when the queue is full: the newest queued one of the client with
        the largest share, or the ``newcomer``, which is queued, if its client now has as much.
        """
        if self.of(newcomer.client) >= self.largest():
            return newcomer
        client = next(reversed(self._clients_with[self.largest()]))
        queued = self._requests[client].queued
        return queued[max(queued)]
