"""The pipe without a process: both ends in one, for tests of either side.

It keeps the contracts of :class:`~.pipe.ParentEnd` and :class:`~.child.pipe.ChildEnd` and passes
the same conformance tests as the real one. Messages travel as bytes here, too, so that what cannot
be encoded fails and nobody shares an object with the other side.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from ollama_async.workers import frames
from ollama_async.workers.child.pipe import PipeClosed
from ollama_async.workers.messages import FromParent, ToChild, ToParent
from ollama_async.workers.pipe import PipeListener

_BATCH = 256


class MemoryPipe:
    """``parent`` lives on a loop, ``child`` in any thread; ``capacity`` counts waiting messages."""

    def __init__(self, capacity: int = 4096) -> None:
        up: deque[bytes] = deque()
        down: deque[bytes] = deque()
        changed = threading.Condition()
        self.parent = MemoryParentEnd(up, down, changed)
        self.child = MemoryChildEnd(down, up, changed, capacity, self.parent)


class MemoryParentEnd:
    """:class:`~.pipe.ParentEnd`."""

    def __init__(
        self, inbound: deque[bytes], outbound: deque[bytes], changed: threading.Condition
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._changed = changed
        self._decoder: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: PipeListener | None = None

    @property
    def unsent_bytes(self) -> int:
        with self._changed:
            return sum(map(len, self._outbound))

    def open(self, listener: PipeListener) -> None:
        with self._changed:
            self._listener = listener
            self._loop = asyncio.get_running_loop()
        self._take()

    def send(self, *messages: FromParent) -> None:
        encoded = [_encode(message, frames.TO_CHILD_LIMIT_BYTES) for message in messages]
        with self._changed:
            if self._listener is not None:
                self._outbound.extend(encoded)
                self._changed.notify_all()

    def read_some(self) -> bool:
        with self._changed:
            listener = self._listener
            if listener is None:
                return False
            count = min(_BATCH, len(self._inbound))
            batch = [self._decoder.decode(self._inbound.popleft()) for _ in range(count)]
            self._changed.notify_all()
        if batch:
            listener.received(batch)
        return bool(batch)

    def close(self) -> None:
        with self._changed:
            self._listener = None
            self._outbound.clear()

    def wake(self) -> None:
        """The child has sent something; called from its thread."""
        if self._loop is not None and self._listener is not None:
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        if self.read_some() and self._loop is not None:
            self._loop.call_soon(self._take)


class MemoryChildEnd:
    """:class:`~.child.pipe.ChildEnd`."""

    def __init__(
        self,
        inbound: deque[bytes],
        outbound: deque[bytes],
        changed: threading.Condition,
        capacity: int,
        parent: MemoryParentEnd,
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._changed = changed
        self._capacity = capacity
        self._parent = parent
        self._decoder: msgspec.msgpack.Decoder[ToChild] = msgspec.msgpack.Decoder(ToChild)
        self._sending = threading.Lock()
        self._is_closed = False

    def receive(self, timeout_s: float) -> ToChild | None:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._inbound:
                left_s = deadline - time.monotonic()
                if self._is_closed:
                    raise PipeClosed
                if left_s <= 0:
                    return None
                self._changed.wait(left_s)
            return self._decoder.decode(self._inbound.popleft())

    def send(self, messages: Sequence[ToParent]) -> None:
        encoded = [
            _encode(message, frames.TO_PARENT_LIMIT_BYTES, frames.TO_PARENT_LIST_LIMIT_BYTES)
            for message in messages
        ]
        with self._sending:  # as in the real pipe: what is sent together stays together
            for data in encoded:
                self._put(data)

    def _put(self, data: bytes) -> None:
        with self._changed:
            while len(self._outbound) >= self._capacity and not self._is_closed:
                self._changed.wait()  # close() ends it
            if self._is_closed:
                raise PipeClosed
            self._outbound.append(data)
            self._parent.wake()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _encode(message: msgspec.Struct, limit_bytes: int, list_limit_bytes: int = 0) -> bytes:
    data = frames.encode([message], limit_bytes=limit_bytes, list_limit_bytes=list_limit_bytes)
    return bytes(data[frames.HEADER.size :])
