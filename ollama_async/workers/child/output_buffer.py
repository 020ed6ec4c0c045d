"""What the step thread has to say, sent together: one publication for a step, or for several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ollama_async.core.conversation import Thought
from ollama_async.core.errors import EngineFailed
from ollama_async.workers.frames import FrameTooLarge
from ollama_async.workers.messages import (
    MAX_DELTAS,
    Delta,
    Deltas,
    Done,
    Failed,
    Started,
    ToolCallDelta,
    ToParent,
)

FLUSH_PERIOD_S = 0.0003
"""Steps that are faster than this share a publication: waking the gateway costs more than a step
of a tiny model."""

_TEXT_PART = 32 << 10
"""Characters of a text that surely fit into a frame."""


class Outbox:
    """Collects messages in the order in which a request may hear them: that it has started, its
    text, its end. Everything else (tokens, vitals, errors from intake) is said with the ends.
    """

    def __init__(self, send: Callable[[Sequence[ToParent]], None]) -> None:
        self._send = send
        self._started: list[ToParent] = []
        self._ends: list[ToParent] = []
        self._failed: set[int] = set()
        self._flushed_at_s = 0.0
        self.items: list[tuple[int, Delta]] = []
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
        for start in range(0, len(self.items), MAX_DELTAS):
            messages.append(Deltas(self.items[start : start + MAX_DELTAS]))
        messages += self._ends
        self._flushed_at_s = now_s
        if messages:
            self._started, self._ends, self.items = [], [], []
            self._send_all(messages)

    def _send_all(self, messages: Sequence[ToParent]) -> None:
        if not self._failed:
            try:
                self._send(messages)
            except FrameTooLarge:
                pass  # nothing was sent
            else:
                return
        self._send_in_parts(messages)

    def _send_in_parts(self, messages: Sequence[ToParent]) -> None:
        """As :meth:`flush`, with long texts cut. A tool call that is too long fails its request,
        of which nothing more is said.
        """
        for message in messages:
            if isinstance(message, Deltas):
                for number, piece in _parts(message.items):
                    self._send_piece(number, piece)
            elif isinstance(message, Done | Failed) and message.id in self._failed:
                self._failed.discard(message.id)
            else:
                self._send([message])

    def _send_piece(self, number: int, piece: Delta) -> None:
        if number in self._failed:
            return
        try:
            self._send([Deltas([(number, piece)])])
        except FrameTooLarge as reason:
            self._failed.add(number)
            self._send([Failed(number, EngineFailed.code, f"tool call too long: {reason}")])


def _parts(items: Sequence[tuple[int, Delta]]) -> Iterator[tuple[int, Delta]]:
    for number, piece in items:
        if isinstance(piece, ToolCallDelta):
            yield number, piece
            continue
        text = piece if isinstance(piece, str) else piece.text
        for start in range(0, len(text), _TEXT_PART):
            part = text[start : start + _TEXT_PART]
            yield number, part if isinstance(piece, str) else Thought(part)
