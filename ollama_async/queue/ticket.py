"""A request while it is in the queue's hands."""

from __future__ import annotations

from ollama_async.queue.crash import Crash
from ollama_async.queue.events import Requested
from ollama_async.queue.wishes import normal


class Ticket:
    """From admission to its end. ``id`` also tells age: a smaller one came earlier.

    ``needs`` are the request's in normal form. ``is_running``: a worker has been told of it.
    ``crash``: a worker died under it, so it runs alone from now on. ``is_leaving``: its client has
    gone, the worker has been told and has not confirmed yet.
    """

    __slots__ = (
        "crash",
        "id",
        "is_leaving",
        "is_running",
        "needs",
        "request",
        "started_at",
    )

    def __init__(self, request: Requested, *, has_gpus: bool) -> None:
        self.id = request.ticket
        self.request = request
        self.needs = normal(request.needs, request.target, has_gpus=has_gpus)
        self.started_at = 0.0
        self.is_running = False
        self.crash: Crash | None = None
        self.is_leaving = False

    def __repr__(self) -> str:
        return f"<Ticket {self.id} {self.request.client} {self.request.target.key}>"
