"""What can happen to the queue. Past tense: the scheduler is told, it is never asked.

Every worker that a ``Load`` effect named ends in exactly one of :class:`WorkerRefused`,
:class:`WorkerLost` and :class:`WorkerStopped`, sent when its process is reaped and its memory free.
Of a process that even SIGKILL does not end one of the first two says so, also where it was told to
stop, and the third follows.
"""

from __future__ import annotations

import msgspec

from ollama_async.queue.backend import LoadOptions, Target


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """A client wants a place. ``ticket`` is unique for ever and grows with time.

    ``loads_only``: nothing is to be run, the ticket ends when the model is ready.
    """

    ticket: int
    client: str
    target: Target
    load_options: LoadOptions = LoadOptions()
    keep_alive_s: float | None = None
    loads_only: bool = False


class Cancelled(msgspec.Struct, frozen=True):
    """The client left. An unknown or ended ticket is no error."""

    ticket: int


class Ended(msgspec.Struct, frozen=True):
    """The worker has said its last word about the ticket: the slot is free."""

    ticket: int


class WorkerReady(msgspec.Struct, frozen=True):
    """``slots`` and ``num_ctx`` (tokens per slot) are what there really is."""

    worker: int
    slots: int
    num_ctx: int


class WorkerRefused(msgspec.Struct, frozen=True):
    """The load failed; ``code`` as in :mod:`ollama_async.core.errors`."""

    worker: int
    code: str
    message: str
    is_gone: bool = True


class WorkerLost(msgspec.Struct, frozen=True):
    """A ready worker is dead, or one that was told to stop does not end. ``restartable``: tickets
    of which no byte has reached a client. ``has_aborted``: it ended itself, so whatever it ran has
    the next one do the same.
    """

    worker: int
    message: str
    restartable: frozenset[int] = frozenset()
    is_gone: bool = True
    has_aborted: bool = False


class WorkerStopped(msgspec.Struct, frozen=True):
    """A ``Stop`` effect is done, or the process is gone at last that a word before said is not."""

    worker: int


class UnloadAsked(msgspec.Struct, frozen=True):
    """Let the model's running requests end, then stop it."""

    key: str


class TimePassed(msgspec.Struct, frozen=True):
    """The moment of the last ``WakeAt`` has come."""


class ShutdownAsked(msgspec.Struct, frozen=True):
    """No new work; what runs may go on for ``grace_s`` seconds. A second one only shortens it."""

    grace_s: float


Event = (
    Requested
    | Cancelled
    | Ended
    | WorkerReady
    | WorkerRefused
    | WorkerLost
    | WorkerStopped
    | UnloadAsked
    | TimePassed
    | ShutdownAsked
)
