"""The parent's end of the connection to a worker: frames through two rings, on the event loop.

- Runs in: the gateway process, on its loop. Nothing here ever waits.
- Owns: both rings and doorbells; what did not fit into a full ring; timers.
- Talks to: :mod:`.child.pipe`, over two rings and two doorbells (one wakes the parent, one the
  child).
- Dies when: closed, or when the child wrote nonsense (``broken``, once).

**Waking.** The writer publishes, then rings; the woken side clears the bell, then looks. A ring
that comes between clearing and looking only causes one more look. The kernel's lock around the
pipe orders the index before the wake-up, so there is something to read when a bell rings. Both
sides look again without a bell every half a second all the same: a notification is a hint. A child
that rings on and on without data is broken.

**A full ring.** The reader does not ring when it makes space. The writer polls: a child after 2 ms,
the parent after 1 ms, doubling to 32 ms while nothing moves. A ring of a megabyte that is read
every 2 ms carries 500 MB/s, far more than either side can decode, so a second protocol with a flag
("waiting for space") and a second kind of doorbell would buy nothing.

**Fairness.** One callback reads at most 16 KiB from the ring, some 1 500 small frames or 2 ms of
decoding and delivering. Then the loop goes round before it reads more.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing

from ollama_async.workers import frames
from ollama_async.workers.doorbell import DoorbellReader, DoorbellWriter, make_doorbell
from ollama_async.workers.messages import FromParent, ToParent
from ollama_async.workers.ring import Ring, RingCorrupt

READ_BYTES = 16 << 10
RECHECK_S = 0.5
_FULL_RECHECK_S = 0.001
_FULL_RECHECK_MAX_S = 0.032
_MAX_EMPTY_WAKEUPS = 1000
"""An honest child publishes before it rings, so at least every second ring has data."""

RING_BYTES = 1 << 20


class ParentPipe:
    """Takes over rings and bells, and closes them.

    ``recheck_s`` is how long a lost doorbell may go unnoticed.
    """

    def __init__(
        self,
        *,
        inbound: Ring,
        outbound: Ring,
        bell_in: DoorbellReader,
        bell_out: DoorbellWriter,
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
        self._full_recheck_s = _FULL_RECHECK_S
        self._empty_wakeups = 0
        self._loop: asyncio.AbstractEventLoop
        self._received: Callable[[list[ToParent]], None] | None = None
        self._broken: Callable[[str], None]
        self._next_read: asyncio.Handle | None = None
        self._recheck_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None

    def open(
        self, received: Callable[[list[ToParent]], None], broken: Callable[[str], None]
    ) -> None:
        """Begin to listen; on the running loop, once.

        ``received`` gets the next messages, in order, never empty. ``broken`` is called at most
        once, with a reason, if the child wrote what cannot be read; nothing is received after it.
        Neither may raise.
        """
        self._received = received
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._bell_in.fd, self._on_doorbell)
        self._recheck_timer = self._loop.call_later(self._recheck_s, self._recheck)

    def send(self, *messages: FromParent) -> None:
        """Queue the messages and write as much as fits into the ring; never waits.

        The caller bounds what it sends: what does not fit is held here.

        :raises FrameTooLarge: a message is over the limit; none of these were sent.
        """
        data = frames.encode(messages, limit_bytes=frames.TO_CHILD_LIMIT_BYTES)
        if self._received is None:
            return  # closed or broken; the death is reported elsewhere
        self._unsent.append(memoryview(data))
        if self._retry_timer is None:
            self._flush()

    def read_some(self) -> bool:
        """Deliver up to 16 KiB of what is in the ring; True while there may be more.

        For what a dead child left behind; otherwise the loop does it.
        """
        received = self._received
        if received is None:
            return False
        try:
            data = self._inbound.read(READ_BYTES)
            messages = self._frames.feed(data) if data else None
        except (RingCorrupt, frames.FrameCorrupt) as reason:
            self._fail(str(reason))
            return False
        if data:
            self._empty_wakeups = 0
        if messages:
            received(messages)
        return len(data) == READ_BYTES

    def close(self) -> None:
        """Stop listening and free everything. Unsent bytes are dropped. Idempotent."""
        self._detach()
        for part in (self._inbound, self._outbound, self._bell_in, self._bell_out):
            part.close()

    def _on_doorbell(self) -> None:
        self._bell_in.clear()
        self._empty_wakeups += 1
        if self._empty_wakeups > _MAX_EMPTY_WAKEUPS:
            self._fail("it rings without sending anything")
            return
        self._read()

    def _read(self) -> None:
        """Read once; if there is more, again when the loop has gone round."""
        if self._next_read is not None:
            self._next_read.cancel()
            self._next_read = None
        if self.read_some() and self._received is not None:
            self._next_read = self._loop.call_soon(self._read)

    def _recheck(self) -> None:
        self._recheck_timer = self._loop.call_later(self._recheck_s, self._recheck)
        if self._unsent:
            self._bell_out.notify()  # the last one may have been lost
        self._read()

    def _flush(self) -> None:
        """Write until all is written or the ring is full; then retry later."""
        self._retry_timer = None
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
            self._fail(str(reason))
            return
        if written:
            self._bell_out.notify()
            self._full_recheck_s = _FULL_RECHECK_S
        if self._unsent:
            self._retry_timer = self._loop.call_later(self._full_recheck_s, self._flush)
            self._full_recheck_s = min(2 * self._full_recheck_s, _FULL_RECHECK_MAX_S)

    def _fail(self, reason: str) -> None:
        is_open = self._received is not None
        self._detach()
        if is_open:
            self._broken(reason)

    def _detach(self) -> None:
        """No callback comes after this."""
        if self._received is None:
            return
        self._received = None
        self._unsent.clear()
        self._loop.remove_reader(self._bell_in.fd)
        for handle in (self._next_read, self._recheck_timer, self._retry_timer):
            if handle is not None:
                handle.cancel()
        self._next_read = self._recheck_timer = self._retry_timer = None


class Channel:
    """What a worker and its parent share: two rings, two doorbells, one lifeline. Made before the
    child, closed after its death. ``pipe`` is the parent's end, not opened yet.

    The lifeline is an ordinary pipe of which only the parent holds the writing end: when that is
    gone, whatever the reason, the child reads end-of-file. All descriptors are close-on-exec; the
    child gets the five it needs by ``pass_fds``.

    No open file that the parent uses is one that the child holds: flags that the child sets on its
    ends concern the child only. The parent keeps the child's ends of the doorbells open, unused, so
    that a child that closes them does not leave the loop with a descriptor that is readable for
    ever.

    :raises OSError: there are no descriptors or no memory left; nothing is left behind.
    """

    def __init__(self) -> None:
        with ExitStack() as made:
            down = made.enter_context(closing(Ring.create(RING_BYTES)))
            up = made.enter_context(closing(Ring.create(RING_BYTES)))
            child_bell_in, bell_out = _ends(made)
            bell_in, child_bell_out = _ends(made)
            self._lifeline_child, self._lifeline = os.pipe()
            made.pop_all()
        self.pipe = ParentPipe(inbound=up, outbound=down, bell_in=bell_in, bell_out=bell_out)
        self._child_ends = child_bell_in, child_bell_out
        self._child_fds = {
            "ring-in": down.fd,
            "ring-out": up.fd,
            "bell-in": child_bell_in.fd,
            "bell-out": child_bell_out.fd,
            "lifeline": self._lifeline_child,
        }

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors to hand to the child; valid until :meth:`spawned`."""
        return tuple(self._child_fds.values())

    def argv(self, *, generation: int) -> list[str]:
        """The options that :func:`ollama_async.workers.child.process_setup.attach` reads."""
        options = {**self._child_fds, "parent": os.getpid(), "generation": generation}
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def spawned(self) -> None:
        """The child has its copies: close the end of the lifeline that only it needs."""
        if self._lifeline_child >= 0:
            os.close(self._lifeline_child)
            self._lifeline_child = -1

    def cut_lifeline(self) -> None:
        """Make the child see that it has no parent: it ends at once. Idempotent."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def close(self) -> None:
        """Free everything. Idempotent."""
        self.spawned()
        self.cut_lifeline()
        self.pipe.close()
        for end in self._child_ends:
            end.close()


def _ends(made: ExitStack) -> tuple[DoorbellReader, DoorbellWriter]:
    listener, ringer = make_doorbell()
    return made.enter_context(closing(listener)), made.enter_context(closing(ringer))
