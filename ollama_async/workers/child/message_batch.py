"""Buffers messages of the step thread, so that one publication serves a step, or several."""

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
    ToParent,
)

FLUSH_PERIOD_S = 0.0003
"""Faster steps share a publication: waking the gateway costs more than a step of a tiny model."""

_TEXT_PART = 32 << 10
"""Characters of a text that always fit into a frame."""


class MessageBatch:
    """Orders messages as each request must receive them: start, text, end.

    All other messages go with the ends. The step thread appends to ``deltas`` directly.
    """

    def __init__(self, send: Callable[[Sequence[ToParent]], None]) -> None:
        self.deltas: list[tuple[int, Delta]] = []
        self._send = send
        self._started: list[ToParent] = []
        self._ends: list[ToParent] = []
        self._failed: set[int] = set()
        self._flushed_at_s = 0.0

    def add(self, message: ToParent) -> None:
        (self._started if isinstance(message, Started) else self._ends).append(message)

    def flush_if_due(self, now_s: float) -> None:
        if now_s - self._flushed_at_s >= FLUSH_PERIOD_S:
            self.flush(now_s)

    def flush(self, now_s: float) -> None:
        """Send everything; blocks while the parent does not read.

        :raises PipeClosed: the worker is being shut down.
        """
        messages = self._started
        for start in range(0, len(self.deltas), MAX_DELTAS):
            messages.append(Deltas(self.deltas[start : start + MAX_DELTAS]))
        messages += self._ends
        self._flushed_at_s = now_s
        if messages:
            self._started, self._ends, self.deltas = [], [], []
            if self._failed:
                self._send_in_parts(messages)
                return
            try:
                self._send(messages)
            except FrameTooLarge:  # nothing was sent
                self._send_in_parts(messages)

    def _send_in_parts(self, messages: Sequence[ToParent]) -> None:
        """Send one by one, with long texts split. Another part that is too long, such as a tool
        call, fails its request, which gets no further message.
        """
        for message in messages:
            if isinstance(message, Deltas):
                for number, delta in _split(message.items):
                    if number in self._failed:
                        continue
                    try:
                        self._send([Deltas([(number, delta)])])
                    except FrameTooLarge as reason:
                        self._failed.add(number)
                        text = f"a part of the answer is too long: {reason}"
                        self._send([Failed(number, EngineFailed.code, text)])
            elif isinstance(message, Done | Failed) and message.id in self._failed:
                self._failed.discard(message.id)
            else:
                self._send([message])


def _split(items: Sequence[tuple[int, Delta]]) -> Iterator[tuple[int, Delta]]:
    for number, delta in items:
        if not isinstance(delta, str | Thought):
            yield number, delta
            continue
        text = delta if isinstance(delta, str) else delta.text
        for start in range(0, len(text), _TEXT_PART):
            part = text[start : start + _TEXT_PART]
            yield number, part if isinstance(delta, str) else Thought(part)
