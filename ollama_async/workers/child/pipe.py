"""The child's end of the pipe: blocking calls for threads.

- Threads: one thread receives; any thread sends, one at a time.
- Communicates with: :mod:`ollama_async.workers.pipe`, which documents when each side rings.
- Dies when: the process ends, with its parent (see :mod:`.process_setup`). A blocked ``send`` then
  never returns, so it needs no deadline.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from ollama_async.workers import frames
from ollama_async.workers.doorbell import BlockingDoorbellReader, DoorbellWriter
from ollama_async.workers.messages import ToChild, ToParent
from ollama_async.workers.ring import Ring

RECHECK_S = 0.5
_SPACE_RECHECK_S = 0.002
_READ_BYTES = 1 << 20


class PipeClosed(Exception):
    """The end was closed before or during the call."""


class ChildPipe:
    """The child's end, over shared memory. Owns the rings and bells."""

    def __init__(
        self,
        *,
        inbound: Ring,
        outbound: Ring,
        bell_in: BlockingDoorbellReader,
        bell_out: DoorbellWriter,
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
        """The next message; None if ``timeout_s`` pass without one (0: do not wait). One thread.

        :raises RingCorrupt, FrameCorrupt: what the parent wrote cannot be read; give up.
        :raises PipeClosed: this end is closed.
        """
        with self._receiving:
            deadline = time.monotonic() + timeout_s
            while not self._received:
                if self._closed.is_set():
                    raise PipeClosed
                self._bell_in.clear()
                data = self._inbound.read(_READ_BYTES)
                if data:
                    self._received.extend(self._frames.feed(data))
                    continue
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return None
                self._bell_in.wait(min(left_s, self._recheck_s))
            return self._received.popleft()

    def send(self, messages: Sequence[ToParent]) -> None:
        """Send messages in this order with one doorbell. Blocks while the ring is full, and other
        senders with it. Any thread.

        :raises FrameTooLarge: one of them is over the limit; none were sent.
        :raises RingCorrupt: the parent's index is impossible; give up.
        :raises PipeClosed: this end is closed; a part may have been sent.
        """
        data = frames.encode(
            messages,
            limit_bytes=frames.TO_PARENT_LIMIT_BYTES,
            list_limit_bytes=frames.TO_PARENT_LIST_LIMIT_BYTES,
        )
        with self._sending:
            if self._closed.is_set():
                raise PipeClosed
            taken = self._outbound.write(data)
            self._bell_out.notify()
            if taken < len(data):
                self._send_rest(memoryview(data)[taken:])

    def _send_rest(self, rest: memoryview) -> None:
        """The ring is full: check for space every 2 ms; what fits is published at once."""
        while not self._closed.wait(_SPACE_RECHECK_S):
            taken = self._outbound.write(rest)
            if taken:
                self._bell_out.notify()
                rest = rest[taken:]
            if not rest:
                return
        raise PipeClosed

    def close(self) -> None:
        """End blocked calls with :class:`PipeClosed`, and free everything. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._bell_in.interrupt()
        with self._receiving, self._sending:
            for part in (self._inbound, self._outbound, self._bell_in, self._bell_out):
                part.close()
