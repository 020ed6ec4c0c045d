"""A doorbell: an ``eventfd`` that says "look at the ring again", and nothing else.

It is a hint. Rings that come before the other side looks melt into one, and a side that has looked
knows no more than what the ring's indices say. So: publish, then ring; clear, then look.
"""

from __future__ import annotations

import os
import select


class Doorbell:
    """One direction's bell. ``fd`` is readable while it has been rung and not been cleared."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._poll: select.poll | None = None

    @classmethod
    def create(cls) -> Doorbell:
        return cls(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    @classmethod
    def attach(cls, fd: int) -> Doorbell:
        """The bell behind a descriptor that was handed over."""
        os.set_inheritable(fd, False)
        return cls(fd)

    def ring(self) -> None:
        """Wake the other side. Never waits."""
        try:  # noqa: SIM105  # once per flush; suppress() would cost as much as the call
            os.eventfd_write(self.fd, 1)
        except BlockingIOError:
            pass  # the counter is at its end: it has been ringing all along

    def clear(self) -> None:
        """Stop ringing. Whoever clears must look at the ring afterwards. Never waits."""
        try:  # noqa: SIM105  # as above
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass  # nobody rang

    def wait(self, timeout_s: float) -> None:
        """Block the calling thread until it rings or ``timeout_s`` have passed. Does not clear."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.fd, select.POLLIN)
        self._poll.poll(timeout_s * 1000)

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
