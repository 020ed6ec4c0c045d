"""What the step thread has to say, sent together: one publication for a step, or for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ollama_async.workers.messages import Piece, Pieces, Started, ToParent

FLUSH_PERIOD_S = 0.0003
"""Steps that are faster than this share a publication: waking the gateway costs more than a step
of a tiny model."""


class Outbox:
    """Collects messages in the order in which a request may hear them: that it has started, its
    text, its end. Everything else (tokens, vitals, errors from intake) is said with the ends.
    """

    def __init__(self, send: Callable[[Sequence[ToParent]], None]) -> None:
        self._send = send
        self._started: list[ToParent] = []
        self._ends: list[ToParent] = []
        self._flushed_at_s = 0.0
        self.items: list[tuple[int, Piece]] = []
        """What answers say in this publication; the step thread appends here directly."""

    def say(self, message: ToParent) -> None:
        (self._started if isinstance(message, Started) else self._ends).append(message)

    def flush_if_due(self, now_s: float) -> None:
        if now_s - self._flushed_at_s >= FLUSH_PERIOD_S:
            self.flush(now_s)

    def flush(self, now_s: float) -> None:
        """Send what there is; blocks while the parent does not read.

        :raises PipeClosed: the worker is being taken down.
        """
        messages = self._started
        if self.items:
            messages.append(Pieces(self.items))
        messages += self._ends
        self._flushed_at_s = now_s
        if messages:
            self._started, self._ends, self.items = [], [], []
            self._send(messages)
