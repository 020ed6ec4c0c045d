"""The order in which waiting requests get slots and cells.

Requests are admitted in order of arrival. One whose cells do not fit yet lets later ones pass that
do, at most :data:`OVERTAKEN` of them; then all wait for it. So a large request waits for a bounded
number of others, and a small one passes it while there is room for both. One that should wait for
a prompt with the same prefix holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from ollama_async.workers.child.mailbox import PreparedRequest
from ollama_async.workers.child.prefix_query import PrefixQuery

OVERTAKEN = 16


class WaitingRequest(NamedTuple):
    request: PreparedRequest
    query: PrefixQuery


class Outcome(Enum):
    """Of an attempt to begin a request, which may also have failed at once."""

    BEGUN = auto()
    LACKS_CELLS = auto()
    WAITS_FOR_PREFIX = auto()


class AdmissionQueue:
    """Requests that wait, in order of arrival. Step thread only."""

    def __init__(self) -> None:
        self._waiting: list[WaitingRequest] = []
        self._overtaken = (0, 0)  # the request that waits for cells, and how many have passed it

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: PreparedRequest, query: PrefixQuery) -> None:
        self._waiting.append(WaitingRequest(request, query))

    def remove(self, request_id: int) -> PreparedRequest | None:
        """The request, which waits no more; None: it does not wait here."""
        for waiting in self._waiting:
            if waiting.request.id == request_id:
                self._waiting.remove(waiting)
                return waiting.request
        return None

    def admit(self, begin: Callable[[WaitingRequest], Outcome]) -> None:
        """Try to begin the requests whose turn it is."""
        blocked_id = 0
        for waiting in [*self._waiting]:
            outcome = begin(waiting)
            if outcome is Outcome.LACKS_CELLS:
                blocked_id = blocked_id or waiting.request.id
            elif outcome is Outcome.BEGUN:
                self._waiting.remove(waiting)
                if blocked_id:
                    self._count_overtaking(blocked_id)
            if blocked_id and self._overtaken == (blocked_id, OVERTAKEN):
                return

    def _count_overtaking(self, blocked_id: int) -> None:
        overtaken, count = self._overtaken
        self._overtaken = blocked_id, count + 1 if overtaken == blocked_id else 1
