"""A request while it is in the queue's hands."""

from __future__ import annotations

from ollama_async.queue.events import Requested
from ollama_async.queue.wishes import normal


class Ticket:
    """From admission to its end. ``id`` also tells age: a smaller one came earlier.

    ``needs`` are the request's in normal form. ``was_restarted``: a worker died under it once.
    ``is_leaving``: its client has gone, the worker has been told and has not confirmed yet.
    """

    __slots__ = ("id", "is_leaving", "needs", "request", "started_at", "was_restarted")

    def __init__(self, request: Requested) -> None:
        self.id = request.ticket
        self.request = request
        self.needs = normal(request.needs, request.target)
        self.started_at = 0.0
        self.was_restarted = False
        self.is_leaving = False

    def __repr__(self) -> str:
        return f"<Ticket {self.id} {self.request.client} {self.request.target.key}>"
