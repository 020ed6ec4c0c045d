"""One worker as the pool uses it: which request is whose, on the way from the pipe to the sinks.

- Runs in: the gateway, on its loop.
- Owns: the link, and from a request's start to the worker's last word the way to its sink.
- Tasks: none of its own; the pool runs :meth:`Runner.load` and :meth:`Runner.stop` and owns both.
- Talks to: the link below, the pool above.
- Dies when: the worker is gone.

Every text goes through :meth:`pieces`: one look-up and one call, because a busy server does this a
hundred thousand times a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Protocol

import msgspec

from ollama_async.core.errors import EngineFailed, ServerError, WorkerDied, from_code
from ollama_async.queue.backend import Finish, Job, Sink, Target
from ollama_async.workers.client import LinkEvents
from ollama_async.workers.load_spec import ResourceLimits
from ollama_async.workers.messages import (
    Delta,
    Done,
    Failed,
    Heartbeat,
    PackedSubmit,
    Ready,
    ToolCallDelta,
)

log = logging.getLogger(__name__)


class Worker(Protocol):
    """What is needed of a :class:`~.client.WorkerLink`, whose contract it is."""

    has_aborted: bool

    async def start(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        bounds: ResourceLimits,
        load_timeout_s: float,
    ) -> Ready: ...

    def submit(self, request: PackedSubmit, num_predict: int) -> None: ...

    def cancel(self, request_id: int) -> None: ...

    async def stop(self, grace_s: float) -> None: ...

    @property
    def is_gone(self) -> bool: ...

    async def closed(self) -> None: ...


MakeWorker = Callable[[LinkEvents, int], Worker]
"""A worker that tells its events to the first argument; the second is its generation."""


class Entry:
    """A submitted job. ``submitted_ns`` and ``admitted_ns`` (perf_counter) begin and end the step
    that admitted it. ``is_deaf``: its sink hears nothing more. ``runner``: who has it now.
    """

    __slots__ = (
        "admitted_ns",
        "is_deaf",
        "job",
        "runner",
        "sink",
        "submitted_ns",
        "ticket",
        "was_started",
    )

    def __init__(self, ticket: int, job: Job, sink: Sink) -> None:
        self.ticket = ticket
        self.job = job
        self.sink = sink
        self.submitted_ns = self.admitted_ns = perf_counter_ns()
        self.runner: Runner | None = None
        self.is_deaf = False
        self.was_started = False


class RunnerEvents(Protocol):
    """What the pool hears of its runners, on the loop."""

    def ended(self, entry: Entry) -> None:
        """The worker's last word on the entry has come; its slot is free."""

    def lost(self, runner: Runner, reason: str, *, has_aborted: bool) -> None:
        """The ready worker died by itself; ``has_aborted``: by an assertion. Comes once."""


class Runner:
    """See the module. ``number`` is the scheduler's, and the child's generation.

    ``shown_expiry``: when it was said to expire, wall clock, after its last ``shown_use``.
    ``is_stopping``: the scheduler wants it to end. ``is_being_killed``: it hangs. Either way its
    end is told by whoever ends it, and by nobody else.
    """

    def __init__(
        self, number: int, target: Target, owner: RunnerEvents, make_worker: MakeWorker
    ) -> None:
        self.number = number
        self.target = target
        self.entries: dict[int, Entry] = {}
        self.facts: Ready | None = None
        self.last_vitals: Heartbeat | None = None
        self.ready_ns = 0
        self.is_stopping = False
        self.is_being_killed = False
        self.died_early = ""
        self.shown_use: tuple[float, float] | None = None
        self.shown_expiry = 0.0
        self._owner = owner
        self._worker = make_worker(self, number)
        self._texts: dict[int, Callable[[str], None]] = {}

    async def load(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        bounds: ResourceLimits,
        load_timeout_s: float,
    ) -> Ready:
        """Start the worker. If this fails, for whatever reason, no process is left, except one that
        not even SIGKILL ends (see :attr:`is_gone`).

        :raises ServerError: the reason.
        """
        ready = await self._worker.start(
            argv, environ, bounds=bounds, load_timeout_s=load_timeout_s
        )
        if self.died_early:
            raise WorkerDied(self.died_early)
        if ready.slots < 1:
            await self._worker.stop(0.0)
            raise EngineFailed("the model worker has no slots")
        self.facts = ready
        self.ready_ns = perf_counter_ns()
        for warning in ready.warnings:
            log.warning("%s: %s", self.target.name, warning)
        return ready

    async def stop(self, grace_s: float) -> None:
        """End the worker; nothing is heard of it from now on."""
        self._texts.clear()
        await self._worker.stop(grace_s)

    @property
    def is_gone(self) -> bool:
        """Whether there is no process that holds memory."""
        return self._worker.is_gone

    async def gone(self) -> None:
        """Wait for that; a process that SIGKILL does not end may take for ever."""
        await self._worker.closed()

    def run(self, entry: Entry, inference: msgspec.Raw) -> None:
        """Send the request.

        :raises ServerError: it cannot be sent; the entry is not running. (A worker that died a
            moment ago is no error here: ``lost`` is on its way and answers for the entry.)
        """
        entry.runner = self
        self.entries[entry.ticket] = entry
        self._texts[entry.ticket] = entry.sink.text
        try:
            submit = PackedSubmit(entry.ticket, inference, entry.job.client)
            self._worker.submit(submit, entry.job.num_predict)
        except WorkerDied:
            pass
        except ServerError:
            self._take(entry.ticket)
            raise
        except Exception as fault:  # the boundary "request": it must cost nobody else a slot
            log.exception("sending request %d", entry.ticket)
            self._take(entry.ticket)
            raise EngineFailed(f"the request cannot be sent to a worker: {fault}") from fault

    def cancel(self, ticket: int) -> None:
        """Ask the worker to end the request; its sink is deaf from now on."""
        self._texts.pop(ticket, None)
        self._worker.cancel(ticket)

    def silence(self, ticket: int) -> None:
        """Forget an entry that was answered for in another way."""
        self._take(ticket)

    # What the link says.

    def pieces(self, items: list[tuple[int, Delta]]) -> None:
        texts = self._texts
        for ticket, piece in items:
            emit = texts.get(ticket)
            if emit is not None:
                try:
                    if isinstance(piece, str):
                        emit(piece)
                    else:
                        part = piece.call if isinstance(piece, ToolCallDelta) else piece
                        self.entries[ticket].sink.part(part)
                except Exception:  # one sink's fault must not cost the others their text
                    log.exception("sink of request %d", ticket)

    def started(self, request_id: int) -> None:
        entry = self.entries.get(request_id)
        if entry is not None and not entry.is_deaf:
            entry.sink.started(max(self.ready_ns, entry.admitted_ns) - entry.submitted_ns)

    def done(self, done: Done) -> None:
        entry = self._take(done.id)
        if entry is None:
            return
        try:
            self._owner.ended(entry)
        finally:
            self._finish(entry, done)

    def _finish(self, entry: Entry, done: Done) -> None:
        if entry.is_deaf:
            return
        if done.reason == "cancel":
            entry.sink.failed(EngineFailed("the worker gave the request up"))
        else:
            entry.sink.finished(Finish(done.reason, done.usage, done.context, done.is_repetition))

    def failed(self, failed: Failed) -> None:
        entry = self._take(failed.id)
        if entry is None:
            return
        try:
            self._owner.ended(entry)
        finally:
            if not entry.is_deaf:
                entry.sink.failed(from_code(failed.code, failed.message))

    def vitals(self, vitals: Heartbeat) -> None:
        self.last_vitals = vitals

    def died(self, reason: str) -> None:
        if self.facts is None:
            self.died_early = reason
        elif not (self.is_stopping or self.is_being_killed):
            self._owner.lost(self, reason, has_aborted=self._worker.has_aborted)

    def _take(self, ticket: int) -> Entry | None:
        self._texts.pop(ticket, None)
        return self.entries.pop(ticket, None)
