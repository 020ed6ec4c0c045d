"""The transport interface: one worker, and the connection that carries its messages.

:class:`~ollama_async.workers.process.WorkerProcess` implements it. Nothing above this interface
depends on a worker being a process on this machine.
"""

from __future__ import annotations

from typing import Protocol

from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.messages import FromParent, ToParent

REAP_DEADLINE_S = 10.0
"""Time limit for a worker's end after SIGKILL."""


class TransportListener(Protocol):
    """Callbacks of a transport, on the loop. They must not raise."""

    def received(self, messages: list[ToParent]) -> None:
        """The next messages, in order; never empty."""

    def progressed(self) -> None:
        """The worker is active: it printed something, at a bounded rate."""

    def broken(self, reason: str) -> None:
        """The worker sent undecodable data. Comes at most once; nothing is received after it."""

    def exited(self, reason: str, *, has_aborted: bool) -> None:
        """The worker has exited; what it had sent is still delivered. Comes once.

        ``has_aborted``: by itself, as after a failed assertion.
        """

    def closed(self) -> None:
        """The worker is gone and its resources are freed. Comes once, after ``exited``."""


class Transport(Protocol):
    """One worker and the connection to it. On the loop only; starts once."""

    @property
    def pid(self) -> int:
        """The worker's pid, as its ``Hello`` must give it; 0 before :meth:`start`."""

    @property
    def has_faulted(self) -> bool:
        """Whether it ended by a fault of native code, such as an illegal instruction."""

    def start(self, plan: LoadPlan, *, generation: int, listener: TransportListener) -> None:
        """Start the worker and begin to listen.

        :raises LoadFailed: it cannot be started; nothing is left behind and no callback comes.
        """

    def send(self, message: FromParent) -> None:
        """Queue a message; never waits. Dropped if the worker is gone.

        :raises FrameTooLarge: it is longer than the worker accepts.
        """

    def kill(self) -> None:
        """Kill the worker; returns before it is gone. What it had sent is not delivered."""

    async def stop(self, grace_s: float) -> None:
        """Request a quit, kill after the grace, wait for ``closed`` (with a limit, in case not even
        SIGKILL ends it). A cancelled stop kills at once. Idempotent, also after the end.
        """

    def mark_ready(self) -> None:
        """The model is loaded: output so far was about loading, not about the worker's death."""

    def last_output(self) -> list[str]:
        """The few last printed lines that explain the worker's death."""
