"""A request while it is in the queue's hands."""

from __future__ import annotations

from ollama_async.queue.crash import TRIAL_MARGIN_S, Crash
from ollama_async.queue.events import Requested
from ollama_async.queue.loading_policy import normal


class Ticket:
    """From admission to its end. ``id`` also tells age: a smaller one came earlier.

    ``load_options`` are the request's in normal form. ``is_running``: a worker has been told of it.
    ``crash``: a worker died under it, and it is to be tried for ``trial_s`` whether it was the
    reason; None: nobody suspects it. ``deaths``: how many workers died under it. ``is_leaving``:
    its client has gone, the worker has been told and has not confirmed yet.
    """

    __slots__ = (
        "crash",
        "deaths",
        "id",
        "is_leaving",
        "is_running",
        "load_options",
        "request",
        "started_at",
        "trial_s",
    )

    def __init__(self, request: Requested, *, has_gpus: bool) -> None:
        self.id = request.ticket
        self.request = request
        self.load_options = normal(request.load_options, request.target, has_gpus=has_gpus)
        self.started_at = 0.0
        self.is_running = False
        self.crash: Crash | None = None
        self.trial_s = 0.0
        self.deaths = 0
        self.is_leaving = False

    def suspect(self, crash: Crash, now: float) -> None:
        """A worker has died under it, and it may be to blame."""
        self.crash = crash
        self.trial_s = now - self.started_at + TRIAL_MARGIN_S
        self.deaths += 1

    def __repr__(self) -> str:
        return f"<Ticket {self.id} {self.request.client} {self.request.target.key}>"
