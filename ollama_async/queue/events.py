"""Events that the scheduler handles and effects that it returns.

Effects are performed in order and never refused: an effect that fails is reported by an event.

Every worker of a :class:`Load` ends in exactly one of :class:`WorkerLoadFailed`,
:class:`WorkerLost` and :class:`WorkerStopped`, sent when its process is reaped and its memory free.
If not even SIGKILL ends the process, one of the first two comes with ``is_gone=False``, also for a
worker that is stopping. :class:`WorkerStopped` then follows when it has exited.

``request_id`` is never reused and grows with time. ``instance_id`` numbers model instances.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ollama_async.queue.backend import Job, Target
from ollama_async.queue.memory_budget import Plan

RejectReason = Literal["full", "draining"]
StopReason = Literal["idle", "requested", "evicted", "reload", "shutdown"]

SHUTDOWN_TEXT = "server is shutting down"


class RequestArrived(msgspec.Struct, frozen=True):
    request_id: int
    job: Job


class RequestCancelled(msgspec.Struct, frozen=True):
    """The client has disconnected. An unknown or ended request is no error."""

    request_id: int


class RequestEnded(msgspec.Struct, frozen=True):
    """The worker has ended the request; its slot is free."""

    request_id: int


class WorkerReady(msgspec.Struct, frozen=True):
    """``slots`` and ``num_ctx`` (tokens per slot) are the engine's."""

    instance_id: int
    slots: int
    num_ctx: int


class WorkerLoadFailed(msgspec.Struct, frozen=True):
    """``code`` as in :mod:`ollama_async.core.errors`."""

    instance_id: int
    code: str
    message: str
    is_gone: bool = True


class WorkerLost(msgspec.Struct, frozen=True):
    """A ready worker has died, or a stopping one does not exit.

    ``restartable``: requests of which no byte has reached a client. ``has_aborted``: the worker
    aborted itself, as it would again for the same request.
    """

    instance_id: int
    message: str
    restartable: frozenset[int] = frozenset()
    is_gone: bool = True
    has_aborted: bool = False


class WorkerStopped(msgspec.Struct, frozen=True):
    """The process has exited after a :class:`Stop`, or after ``is_gone=False``."""

    instance_id: int


class UnloadRequested(msgspec.Struct, frozen=True):
    """Stop the model once its running requests have ended. ``key`` is the target's."""

    key: str


class TimerFired(msgspec.Struct, frozen=True):
    """The time of the last :class:`WakeAt` has come."""


class ShutdownRequested(msgspec.Struct, frozen=True):
    """No new work; running requests get ``grace_s`` seconds. A second one can only shorten that."""

    grace_s: float


Event = (
    RequestArrived
    | RequestCancelled
    | RequestEnded
    | WorkerReady
    | WorkerLoadFailed
    | WorkerLost
    | WorkerStopped
    | UnloadRequested
    | TimerFired
    | ShutdownRequested
)


class Start(msgspec.Struct, frozen=True):
    """Run the request on a ready worker, which has a free slot."""

    request_id: int
    instance_id: int


class Complete(msgspec.Struct, frozen=True):
    """The request, which only loads, has ended: its model is ready."""

    request_id: int


class Abort(msgspec.Struct, frozen=True):
    """Cancel a running request. Its slot is taken until :class:`RequestEnded`."""

    request_id: int
    instance_id: int


class Reject(msgspec.Struct, frozen=True):
    """The request has ended: it cannot be queued. ``retry_after_s`` is at least 1."""

    request_id: int
    reason: RejectReason
    retry_after_s: int


class Fail(msgspec.Struct, frozen=True):
    """The request has ended with an error; ``code`` as in :mod:`ollama_async.core.errors`."""

    request_id: int
    code: str
    message: str


class Load(msgspec.Struct, frozen=True):
    """Start a worker for a new model instance."""

    instance_id: int
    target: Target
    plan: Plan


class Stop(msgspec.Struct, frozen=True):
    """End the worker. It runs no requests, except those being aborted."""

    instance_id: int
    reason: StopReason


class WakeAt(msgspec.Struct, frozen=True):
    """Send :class:`TimerFired` at this time, which replaces the last one. None: never."""

    at: float | None


Effect = Start | Complete | Abort | Reject | Fail | Load | Stop | WakeAt
