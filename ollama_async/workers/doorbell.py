"""A doorbell: a pipe whose bytes notify the reader of a ring buffer that there may be new data.

Notifications are hints and may be merged; only the ring's indices count. So the writer publishes,
then notifies; the reader clears, then reads the ring.

It is no ``eventfd``, because that is one open file for both sides: a side that fills the counter
and clears ``O_NONBLOCK`` would block the other one's write forever. The ends of a pipe are two open
files. Whatever a side does to its end can neither block nor fail the other side's calls.
"""

from __future__ import annotations

import contextlib
import os
import select

_CLEAR_BYTES = 1 << 16
"""A pipe's default size: bounds a read even if the other side enlarged the pipe."""


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
    """The notifying end."""

    def notify(self) -> None:
        """Wake the reader. Never waits."""
        try:  # noqa: SIM105  # once per flush; suppress() would cost as much as the call
            os.write(self.fd, b"!")
        except (BlockingIOError, BrokenPipeError):
            pass  # the pipe is full of notifications, or the reader is gone


class DoorbellReader(_End):
    """The notified end, for a loop: ``fd`` is readable from a notification until it is cleared."""

    def clear(self) -> None:
        """Clear notifications; the caller must then read the ring. Never waits."""
        try:  # noqa: SIM105  # as above
            os.read(self.fd, _CLEAR_BYTES)
        except BlockingIOError:
            pass


class BlockingDoorbellReader(DoorbellReader):
    """The notified end, for a thread."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._interruption = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(self._interruption, select.POLLIN)

    def wait(self, timeout_s: float) -> None:
        """Wait for a notification, :meth:`interrupt`, or ``timeout_s``. Does not clear."""
        self._poll.poll(timeout_s * 1000)

    def interrupt(self) -> None:
        """End this and all future calls of :meth:`wait`. Thread-safe; not after :meth:`close`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._interruption, 1)

    def close(self) -> None:
        super().close()
        if self._interruption >= 0:
            os.close(self._interruption)
            self._interruption = -1


def make_doorbell(stack: contextlib.ExitStack) -> tuple[DoorbellReader, DoorbellWriter]:
    """Both ends of a new doorbell, to be closed by ``stack``.

    :raises OSError: there are no descriptors left.
    """
    read_fd, write_fd = os.pipe()
    reader, writer = DoorbellReader(read_fd), DoorbellWriter(write_fd)
    stack.callback(reader.close)
    stack.callback(writer.close)
    return reader, writer
