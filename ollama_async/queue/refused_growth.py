"""Contexts that a model could not be loaded with, although it was to grow to them.

To find that out costs those who are served two loads, one that fails and one to be served again. So
for a while whoever asks for as much is told the same at no cost.
"""

from __future__ import annotations

import msgspec

from ollama_async.queue.loading_policy import merge, outgrows
from ollama_async.queue.stay import Stay
from ollama_async.queue.ticket import Ticket

REMEMBERED_S = 60.0


class _Refused(msgspec.Struct, frozen=True):
    num_ctx: int
    code: str
    message: str
    until: float


class RefusedGrowth:
    """The smallest context of each model that was refused lately."""

    def __init__(self) -> None:
        self._refused: dict[str, _Refused] = {}

    def note(self, key: str, num_ctx: int, code: str, message: str, now: float) -> None:
        """A load with ``num_ctx`` was refused."""
        self._refused = {key: old for key, old in self._refused.items() if old.until > now}
        old = self._refused.get(key)
        num_ctx = min(num_ctx, old.num_ctx) if old else num_ctx
        self._refused[key] = _Refused(num_ctx, code, message, now + REMEMBERED_S)

    def find(self, ticket: Ticket, stay: Stay | None, now: float) -> tuple[str, str] | None:
        """Code and message for a ticket that would have the model, loaded as ``stay``, grow to what
        was refused; None: it would not.
        """
        refused = self._refused.get(ticket.request.target.key)
        if refused is None or refused.until <= now or stay is None:
            return None
        if not outgrows(ticket.load_options, stay.num_ctx):
            return None
        loaded = msgspec.structs.replace(stay.wish, num_ctx=stay.num_ctx)
        grown = merge(ticket.load_options, (), loaded, ticket.request.target).num_ctx or 0
        return (refused.code, refused.message) if grown >= refused.num_ctx else None
