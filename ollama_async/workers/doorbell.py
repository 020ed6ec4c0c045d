"""A doorbell: a pipe whose bytes mean "look at the ring again", and nothing else.

It is a hint. Rings that come before the other side looks merge into one, and a side that has looked
knows no more than what the ring's indices say. So: publish, then ring; clear, then look.

Why no ``eventfd``: it is one open file for both sides, so its flags are shared, and a side that
fills the counter and clears ``O_NONBLOCK`` makes the other one's write wait for ever. The two ends
of a pipe are two open files. Each side sets and uses its own, and what the other does to the other
end (fill it, empty it, close it, change its flags) can neither block nor fail a call here.
"""

from __future__ import annotations

import contextlib
import os
import select

_CLEAR_BYTES = 1 << 16
"""What a pipe holds by default: bounds a read even if the other side enlarged the pipe."""


class _End:
    """Owns ``fd``: close-on-exec, non-blocking."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self.fd = fd

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class DoorbellWriter(_End):
    """The end that rings."""

    def notify(self) -> None:
        """Wake the other side. Never waits."""
        try:  # noqa: SIM105  # once per flush; suppress() would cost as much as the call
            os.write(self.fd, b"!")
        except (BlockingIOError, BrokenPipeError):
            pass  # it is full of rings already, or the other side is gone


class DoorbellReader(_End):
    """The end that is rung, for a loop. ``fd`` is readable from a ring until it is cleared."""

    def clear(self) -> None:
        """Stop ringing. The caller must look at the ring afterwards. Never waits."""
        try:  # noqa: SIM105  # as above
            os.read(self.fd, _CLEAR_BYTES)
        except BlockingIOError:
            pass  # nobody rang


class BlockingDoorbellReader(DoorbellReader):
    """The end that is rung, for a thread."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._interruption = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._interruption, select.POLLIN)

    def wait(self, timeout_s: float) -> None:
        """Block the calling thread until it rings, is interrupted, or ``timeout_s`` have passed.
        Does not clear.
        """
        self._poll.poll(timeout_s * 1000)

    def interrupt(self) -> None:
        """End :meth:`wait`, now and from now on. Any thread; not after :meth:`close`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._interruption, 1)

    def close(self) -> None:
        super().close()
        if self._interruption >= 0:
            os.close(self._interruption)
            self._interruption = -1


def make_doorbell() -> tuple[DoorbellReader, DoorbellWriter]:
    """Both ends of a new one.

    :raises OSError: there are no descriptors left; nothing is left behind.
    """
    reader, writer = os.pipe()
    return DoorbellReader(reader), DoorbellWriter(writer)
