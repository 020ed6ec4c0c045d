"""What carries messages between the gateway and one worker: the interface.

:class:`~ollama_async.workers.process.WorkerProcess` is the implementation: a child process and two
rings in shared memory. Nothing above this interface knows that a worker is a process on this
machine.
"""

from __future__ import annotations

from typing import Protocol

from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.messages import FromParent, ToParent

REAP_DEADLINE_S = 10.0
"""How long to wait for a worker to end after SIGKILL."""


class TransportListener(Protocol):
    """Callbacks of a transport, on the loop. They must not raise."""

    def received(self, messages: list[ToParent]) -> None:
        """The next messages, in order; never empty."""

    def progressed(self) -> None:
        """The worker is active: it printed something, at a bounded rate."""

    def broken(self, reason: str) -> None:
        """The worker sent what cannot be decoded. Comes at most once; nothing is received after."""

    def exited(self, reason: str, *, has_aborted: bool) -> None:
        """The worker has ended. What it had sent before is still delivered. Comes once.

        ``reason`` is for people; ``has_aborted``: it ended itself, as a failed assertion does.
        """

    def closed(self) -> None:
        """The worker is gone and everything of it is freed. Comes once, after ``exited``."""


class Transport(Protocol):
    """One worker and the connection to it. On the loop only; starts once."""

    @property
    def pid(self) -> int:
        """What the worker's ``Hello`` must carry; 0 before :meth:`start`."""

    def start(self, plan: LoadPlan, *, generation: int, listener: TransportListener) -> None:
        """Start the worker and begin to listen.

        :raises LoadFailed: it cannot be started; nothing is left behind, and nothing is called.
        """

    def send(self, message: FromParent) -> None:
        """Queue a message; never waits. Dropped if the worker is gone.

        :raises FrameTooLarge: it is longer than the worker accepts.
        """

    def kill(self) -> None:
        """End the worker at once; returns before it is gone. What it had sent is not delivered."""

    async def stop(self, grace_s: float) -> bool:
        """Request a quit, kill after the grace, wait; whether the worker is gone.

        False: not even killing ends it (a driver holds it). ``closed`` comes when it goes.
        Cancelled, it kills at once. May be called again, and after the end.
        """

    def mark_ready(self) -> None:
        """The model is loaded: output so far was about loading, not about the worker's death."""

    def last_output(self) -> list[str]:
        """What the worker printed about its death, in few lines."""
