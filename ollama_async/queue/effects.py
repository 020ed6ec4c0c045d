"""What the scheduler wants done. Imperative, in order, and never refused: failures are events."""

from __future__ import annotations

from typing import Literal

import msgspec

from ollama_async.queue.backend import Target
from ollama_async.queue.plan import Plan

RejectReason = Literal["full", "draining"]
StopReason = Literal["idle", "requested", "evicted", "reload", "shutdown"]


class Start(msgspec.Struct, frozen=True):
    """Run the ticket on a ready worker, which has a slot free."""

    ticket: int
    worker: int


class Complete(msgspec.Struct, frozen=True):
    """The model of a ticket that only loads is ready; the ticket has ended."""

    ticket: int


class Abort(msgspec.Struct, frozen=True):
    """Cancel a running ticket. Its slot is taken until ``Ended`` says otherwise."""

    ticket: int
    worker: int


class Reject(msgspec.Struct, frozen=True):
    """Turn the ticket away; it has ended. ``retry_after_s`` is at least 1."""

    ticket: int
    reason: RejectReason
    retry_after_s: int


class Fail(msgspec.Struct, frozen=True):
    """The ticket has ended with an error; ``code`` as in :mod:`ollama_async.core.errors`."""

    ticket: int
    code: str
    message: str


class Load(msgspec.Struct, frozen=True):
    """Start a worker; its number is new."""

    worker: int
    target: Target
    plan: Plan


class Stop(msgspec.Struct, frozen=True):
    """End the worker; whatever it still runs has been failed. ``WorkerStopped`` must follow."""

    worker: int
    reason: StopReason


class WakeAt(msgspec.Struct, frozen=True):
    """Send ``TimePassed`` at this time; replaces the one before. None: not needed."""

    at: float | None


Effect = Start | Complete | Abort | Reject | Fail | Load | Stop | WakeAt
