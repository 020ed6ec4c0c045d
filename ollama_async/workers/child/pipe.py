"""The child's end of the pipe: plain blocking calls for threads.

- Runs in: the worker process (tests also run it in a thread).
- Threads: one thread receives; any thread sends, one at a time.
- Talks to: :mod:`ollama_async.workers.pipe`, whose docstring says who rings when.
- Dies when: the process ends, with the parent (see :mod:`.attach`); a blocked ``send`` then never
  returns, which is why it needs no deadline of its own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ollama_async.workers import frames
from ollama_async.workers.doorbell import BlockingListener, Ringer
from ollama_async.workers.messages import ToChild, ToParent
from ollama_async.workers.ring import Ring

RECHECK_S = 0.5
_ROOM_RECHECK_S = 0.002
_GULP_BYTES = 1 << 20


class PipeClosed(Exception):
    """The end was closed while, or before, it was used."""


class ChildEnd(Protocol):
    """What the worker's threads need of a pipe."""

    def receive(self, timeout_s: float) -> ToChild | None:
        """The next message; None when ``timeout_s`` have passed without one. 0 only looks.

        One thread only.

        :raises RingCorrupt, FrameCorrupt: what the parent wrote cannot be read; give up.
        :raises PipeClosed: this end is closed.
        """

    def send(self, messages: Sequence[ToParent]) -> None:
        """Hand the messages over in this order with one doorbell: send what belongs together
        together. Blocks while the ring is full, other senders behind it. Any thread.

        :raises FrameTooLarge: one of them is over the limit; none of them were sent.
        :raises RingCorrupt: the parent's index is impossible; give up.
        :raises PipeClosed: this end is closed; a part may have been sent.
        """

    def close(self) -> None:
        """End blocked calls with :class:`PipeClosed` and give everything back. Idempotent."""


class ChildPipe:
    """:class:`ChildEnd` over shared memory. Takes rings and bells over."""

    def __init__(
        self,
        *,
        inbound: Ring,
        outbound: Ring,
        bell_in: BlockingListener,
        bell_out: Ringer,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._bell_in = bell_in
        self._bell_out = bell_out
        self._recheck_s = recheck_s
        self._frames = frames.FrameReader[ToChild](ToChild, limit_bytes=frames.TO_CHILD_LIMIT_BYTES)
        self._received: deque[ToChild] = deque()
        self._receiving = threading.Lock()
        self._sending = threading.Lock()
        self._closed = threading.Event()

    def receive(self, timeout_s: float) -> ToChild | None:
        with self._receiving:
            deadline = time.monotonic() + timeout_s
            while not self._received:
                if self._closed.is_set():
                    raise PipeClosed
                self._bell_in.clear()
                data = self._inbound.read(_GULP_BYTES)
                if data:
                    self._received.extend(self._frames.feed(data))
                    continue
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return None
                self._bell_in.wait(min(left_s, self._recheck_s))
            return self._received.popleft()

    def send(self, messages: Sequence[ToParent]) -> None:
        data = frames.encode(
            messages,
            limit_bytes=frames.TO_PARENT_LIMIT_BYTES,
            list_limit_bytes=frames.TO_PARENT_LIST_LIMIT_BYTES,
        )
        with self._sending:
            if self._closed.is_set():
                raise PipeClosed
            taken = self._outbound.write(data)
            self._bell_out.ring()
            if taken < len(data):
                self._send_rest(memoryview(data)[taken:])

    def _send_rest(self, rest: memoryview) -> None:
        """The ring is full: look for room every 2 ms; what fits is published at once."""
        while not self._closed.wait(_ROOM_RECHECK_S):
            taken = self._outbound.write(rest)
            if taken:
                self._bell_out.ring()
                rest = rest[taken:]
            if not rest:
                return
        raise PipeClosed

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._bell_in.interrupt()
        with self._receiving, self._sending:
            for part in (self._inbound, self._outbound, self._bell_in, self._bell_out):
                part.close()
