"""The parent's end of the pipe to a worker: frames through two rings, on the event loop.

It never blocks. The child's end is :mod:`.child.pipe`.

**Wake-ups.** The writer publishes, then notifies; the reader clears the doorbell, then reads. A
notification between clearing and reading causes one more read. The kernel's lock around the
doorbell orders the index before the wake-up. Both sides also read every half second, because a
notification is only a hint. A child that keeps notifying without sending data is broken.

**Full rings.** The reader does not notify when it frees space. The writer polls: a child after 2
ms, the parent after 1 ms, doubling to 32 ms without progress. A ring of 1 MiB that is read every 2
ms carries 500 MB/s, more than either side can decode.

**Fairness.** One callback reads at most 16 KiB, some 1,500 small frames or 2 ms of work. Other
callbacks of the loop run before it reads more.
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
"""A correct child publishes before it notifies, so at least every second wake-up has data."""

RING_BYTES = 1 << 20


class ParentPipe:
    """Owns the rings and doorbells. ``recheck_s`` limits the delay by a lost notification."""

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
        """Begin to read, on the running loop; call it once.

        ``received`` gets the next messages, in order, never empty. ``broken`` is called at most
        once, with a reason, for undecodable data; nothing is received after it. Neither may raise.
        """
        self._received = received
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._bell_in.fd, self._on_doorbell)
        self._recheck_timer = self._loop.call_later(self._recheck_s, self._recheck)

    def send(self, *messages: FromParent) -> None:
        """Write as much as fits into the ring and buffer the rest, which the caller must bound.

        :raises FrameTooLarge: a message is over the limit; none of these were sent.
        """
        data = frames.encode(messages, limit_bytes=frames.TO_CHILD_LIMIT_BYTES)
        if self._received is None:
            return  # closed or broken, which is reported elsewhere
        self._unsent.append(memoryview(data))
        if self._retry_timer is None:
            self._flush()

    def read_some(self) -> bool:
        """Deliver up to 16 KiB from the ring; True while there may be more. Also called for what a
        dead child left behind.
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
        """Stop reading and free everything. Unsent bytes are dropped. Idempotent."""
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
        """Read once; if there is more, again in the next loop iteration."""
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
        """Write until all is written, or retry later if the ring is full."""
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
        """Stop all callbacks."""
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
    """The resources that a worker shares with its parent: two rings, two doorbells, one lifeline.
    ``pipe`` is the parent's end, not opened yet.

    The lifeline is a pipe of which only the parent has the writing end: when the parent is gone,
    the child reads end-of-file. All descriptors are close-on-exec; the child gets its five by
    ``pass_fds``.

    The parent uses no open file of the child, so flags that the child sets on its ends do not
    affect the parent. But it keeps the child's ends of the doorbells open: otherwise a child that
    closes them would make the parent's ends permanently readable.

    :raises OSError: there are no descriptors or no memory left; nothing is left behind.
    """

    def __init__(self) -> None:
        with ExitStack() as stack:
            down = stack.enter_context(closing(Ring.create(RING_BYTES)))
            up = stack.enter_context(closing(Ring.create(RING_BYTES)))
            child_bell_in, bell_out = make_doorbell(stack)
            bell_in, child_bell_out = make_doorbell(stack)
            child_lifeline, lifeline = os.pipe()
            self._child_lifeline = stack.enter_context(os.fdopen(child_lifeline, "rb", 0))
            self.lifeline = stack.enter_context(os.fdopen(lifeline, "wb", 0))
            self._resources = stack.pop_all()
        self.pipe = ParentPipe(inbound=up, outbound=down, bell_in=bell_in, bell_out=bell_out)
        self._child_fds = {
            "ring-in": down.fd,
            "ring-out": up.fd,
            "bell-in": child_bell_in.fd,
            "bell-out": child_bell_out.fd,
            "lifeline": child_lifeline,
        }

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The child's descriptors; valid until :meth:`close_child_lifeline`."""
        return tuple(self._child_fds.values())

    def argv(self, *, generation: int) -> list[str]:
        """The options that :func:`ollama_async.workers.child.process_setup.attach` reads."""
        options = {**self._child_fds, "parent": os.getpid(), "generation": generation}
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def close_child_lifeline(self) -> None:
        """The child has been started and has its copies."""
        self._child_lifeline.close()

    def close(self) -> None:
        """Free everything. Idempotent."""
        self.pipe.close()
        self._resources.close()
