"""What the step threads of all kinds of models share: their end, heartbeats, and idle waiting."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ollama_async.workers.child.mailbox import Mailbox
from ollama_async.workers.child.message_batch import MessageBatch
from ollama_async.workers.messages import Heartbeat, ToParent

HEARTBEAT_PERIOD_S = 1.0

P = TypeVar("P")


class StepLoop(ABC, Generic[P]):
    """Serves prepared requests (``P``). Only the step thread calls it, except for :meth:`stop`."""

    def __init__(
        self,
        mailbox: Mailbox[P],
        send: Callable[[Sequence[ToParent]], None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._mailbox = mailbox
        self._output = MessageBatch(send)
        self._clock_ns = clock_ns
        self._heartbeat_at_s = 0.0
        self._is_stopped = False

    def run(self) -> None:
        """Until :meth:`stop`; running requests get no further message.

        :raises PipeClosed: the parent's end is gone.
        """
        while not self._is_stopped:
            self.iterate()

    def stop(self) -> None:
        """Make :meth:`run` return after the current step. Any thread."""
        self._is_stopped = True
        self._mailbox.wake()

    @abstractmethod
    def iterate(self, idle_s: float = HEARTBEAT_PERIOD_S) -> None:
        """One iteration; sleeps up to ``idle_s`` if there is nothing to do."""

    @abstractmethod
    def _heartbeat(self) -> Heartbeat: ...

    def _add_heartbeat(self, now_s: float) -> bool:
        """If it is due. It should be sent at once."""
        if now_s < self._heartbeat_at_s:
            return False
        self._heartbeat_at_s = now_s + HEARTBEAT_PERIOD_S
        self._output.add(self._heartbeat())
        return True

    def _wait(self, idle_s: float, now_s: float) -> None:
        """For a message, at most until the next heartbeat."""
        self._mailbox.wait(min(idle_s, max(0.0, self._heartbeat_at_s - now_s)))
