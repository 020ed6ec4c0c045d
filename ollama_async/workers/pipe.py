"""The parent's end of the pipe: frames through the rings, on the event loop.

- Runs in: the gateway process, on its loop. Nothing here ever waits.
- Owns: what did not fit into a full ring; the loop's interest in the bell; two timers.
- Talks to: :mod:`.child.pipe`, over two rings and two doorbells (one wakes the parent, one the
  child).
- Dies when: :meth:`ParentPipe.close` is called, or the child wrote nonsense (``broken``, once).

**Waking.** The writer publishes, then rings; the woken side clears the bell, then looks. A ring
that comes between clearing and looking only causes one more look. The kernel's lock around the
pipe orders the index before the wake-up, so a bell cannot be heard before there is something to
see. Both sides look again without a bell every half a second all the same: a notification is a
hint. A child that rings on and on without having said anything is broken.

**A full ring.** The reader does not ring when it makes room. The writer looks again by itself: a
child after 2 ms, the parent after 1 ms, doubling to 32 ms while nothing moves. A ring of a megabyte
that is looked at every 2 ms carries 500 MB/s, far more than either side can decode, so a second
protocol with a flag ("I wait for room") and a second kind of ring would buy nothing.

**Fairness.** One callback takes at most 16 KiB out of the ring, some 1 500 small frames or 2 ms of
decoding and delivering, and then lets the loop go round before it takes more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from ollama_async.workers import frames
from ollama_async.workers.doorbell import Listener, Ringer
from ollama_async.workers.messages import FromParent, ToParent
from ollama_async.workers.ring import Ring, RingCorrupt

GULP_BYTES = 16 << 10
RECHECK_S = 0.5
_ROOM_RECHECK_S = 0.001
_ROOM_RECHECK_MAX_S = 0.032
_MOST_IDLE_RINGS = 1000
"""An honest child publishes before it rings, so that every second ring finds something at least."""

TO_CHILD_RING_BYTES = 1 << 20
TO_PARENT_RING_BYTES = 1 << 20


class PipeListener(Protocol):
    """Who hears what the child says. Plain functions on the loop; they must not raise."""

    def received(self, messages: list[ToParent]) -> None:
        """The next messages, in order; never empty."""

    def broken(self, reason: str) -> None:
        """The child wrote what cannot be read. Comes at most once; nothing is received after."""


class ParentEnd(Protocol):
    """What the link needs of a pipe; :mod:`.memory_pipe` has another implementation."""

    @property
    def unsent_bytes(self) -> int: ...

    def open(self, listener: PipeListener) -> None:
        """Begin to listen. Must be called on the running loop, once."""

    def send(self, *messages: FromParent) -> None:
        """Queue the messages and put as much into the ring as fits; never waits.

        The caller bounds what it sends: here it is only held, ``unsent_bytes`` of it.

        :raises FrameTooLarge: a message is over the limit; none of these were sent.
        """

    def read_some(self) -> bool:
        """Deliver one gulp of what is in the ring; True while there may be more.

        For what a dead child left behind; otherwise the loop does it.
        """

    def close(self) -> None:
        """Stop listening and give everything back. Unsent bytes are dropped. Idempotent."""


class ParentPipe:
    """:class:`ParentEnd` over shared memory. Takes rings and bells over and closes them.

    ``recheck_s`` is how long a lost doorbell may go unnoticed.
    """

    def __init__(
        self,
        *,
        inbound: Ring,
        outbound: Ring,
        bell_in: Listener,
        bell_out: Ringer,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._bell_in = bell_in
        self._bell_out = bell_out
        self._recheck_s = recheck_s
        self._frames = frames.FrameReader[ToParent](
            ToParent,
            limit_bytes=frames.TO_PARENT_LIMIT_BYTES,
            list_limit_bytes=frames.TO_PARENT_LIST_LIMIT_BYTES,
        )
        self._unsent: deque[memoryview] = deque()
        self._room_recheck_s = _ROOM_RECHECK_S
        self._idle_rings = 0
        self._loop: asyncio.AbstractEventLoop
        self._listener: PipeListener | None = None
        self._more: asyncio.Handle | None = None
        self._recheck: asyncio.TimerHandle | None = None
        self._room: asyncio.TimerHandle | None = None

    @property
    def unsent_bytes(self) -> int:
        return sum(map(len, self._unsent))

    def open(self, listener: PipeListener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._bell_in.fd, self._rung)
        self._recheck = self._loop.call_later(self._recheck_s, self._look_again)

    def send(self, *messages: FromParent) -> None:
        data = frames.encode(messages, limit_bytes=frames.TO_CHILD_LIMIT_BYTES)
        if self._listener is None:
            return  # closed or broken: the link tells of the death by itself
        self._unsent.append(memoryview(data))
        if self._room is None:
            self._flush()

    def read_some(self) -> bool:
        listener = self._listener
        if listener is None:
            return False
        try:
            data = self._inbound.read(GULP_BYTES)
            messages = self._frames.feed(data) if data else None
        except (RingCorrupt, frames.FrameCorrupt) as reason:
            self._break(str(reason))
            return False
        if data:
            self._idle_rings = 0
        if messages:
            listener.received(messages)
        return len(data) == GULP_BYTES

    def close(self) -> None:
        self._silence()
        for part in (self._inbound, self._outbound, self._bell_in, self._bell_out):
            part.close()

    def _rung(self) -> None:
        self._bell_in.clear()
        self._idle_rings += 1
        if self._idle_rings > _MOST_IDLE_RINGS:
            self._break("it rings without a word")
            return
        self._take()

    def _take(self) -> None:
        """Deliver one gulp; if there is more, come again when the loop has gone round."""
        if self._more is not None:
            self._more.cancel()
            self._more = None
        if self.read_some() and self._listener is not None:
            self._more = self._loop.call_soon(self._take)

    def _look_again(self) -> None:
        self._recheck = self._loop.call_later(self._recheck_s, self._look_again)
        if self._unsent:
            self._bell_out.ring()  # the last one may have been lost
        self._take()

    def _flush(self) -> None:
        """Write until all is written or the ring is full; then come again."""
        self._room = None
        written = 0
        try:
            while self._unsent:
                part = self._unsent[0]
                taken = self._outbound.write(part)
                written += taken
                if taken < len(part):
                    self._unsent[0] = part[taken:]
                    break
                self._unsent.popleft()
        except RingCorrupt as reason:
            self._break(str(reason))
            return
        if written:
            self._bell_out.ring()
            self._room_recheck_s = _ROOM_RECHECK_S
        if self._unsent:
            self._room = self._loop.call_later(self._room_recheck_s, self._flush)
            self._room_recheck_s = min(2 * self._room_recheck_s, _ROOM_RECHECK_MAX_S)

    def _break(self, reason: str) -> None:
        listener = self._listener
        self._silence()
        if listener is not None:
            listener.broken(reason)

    def _silence(self) -> None:
        """No callback of ours comes after this."""
        if self._listener is None:
            return
        self._listener = None
        self._unsent.clear()
        self._loop.remove_reader(self._bell_in.fd)
        for handle in (self._more, self._recheck, self._room):
            if handle is not None:
                handle.cancel()
        self._more = self._recheck = self._room = None
