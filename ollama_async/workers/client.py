"""The client of one worker: starts it, sends it requests, delivers its answers, ends it.

It runs on the gateway's loop, without tasks: the transport calls back, and timers detect a worker
that hangs. Every fault here kills the worker, and is reported when it is gone.

States::

    NEW ── start ──▶ STARTING ── Ready ──▶ READY ── stop ──▶ STOPPING
                         │ fault             │ fault       (from any state)
                         └──────────┬────────┘
                                    ▼
                                 FAILING ── gone, or even SIGKILL does not end it ──▶ LOST

A start ends with Ready or Refused, with the worker's exit, or with a timeout that progress resets.
A client starts once.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

from ollama_async.core.errors import (
    EngineFailed,
    LoadFailed,
    ServerError,
    TooLarge,
    WorkerDied,
    from_code,
)
from ollama_async.core.safe_text import replace_unprintable
from ollama_async.queue.backend import Finish, Start, Target
from ollama_async.workers import messages
from ollama_async.workers.frames import FrameTooLarge
from ollama_async.workers.limits import (
    Handshake,
    MessageRate,
    OutputLimits,
    ProtocolViolation,
    check_done,
    check_heartbeat,
    unexpected,
)
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.requests import SubmittedRequest
from ollama_async.workers.transport import REAP_DEADLINE_S, Transport

CRASH_TEXT = (
    "model runner has unexpectedly stopped, this may be due to resource limitations"
    " or an internal error, check ollama server logs for details"
)
"""Ollama's sentence; details follow after a colon."""

_WATCH_PERIOD_S = 1.0
_MAX_ERROR_CHARACTERS = 4000
_MAX_REASON_CHARACTERS = 300

log = logging.getLogger(__name__)


class ClientOwner(Protocol):
    """Callbacks to the owner of workers, on the loop."""

    def request_ended(self, request: SubmittedRequest) -> None:
        """The worker has ended the request; its slot is free. Its sink gets the end afterwards."""

    def worker_lost(self, worker: WorkerClient, reason: str, *, has_aborted: bool) -> None:
        """The ready worker ended without being stopped; ``has_aborted``: by an assertion.

        It is gone, or not even SIGKILL ends it (see :attr:`WorkerClient.is_gone`). ``reason`` is a
        text for clients. Comes once, and is the only end that its requests get.
        """


class _State(enum.Enum):
    NEW = enum.auto()
    STARTING = enum.auto()
    READY = enum.auto()
    FAILING = enum.auto()  # killed for a fault that is not reported yet
    LOST = enum.auto()  # exited or killed for a fault, and reported
    STOPPING = enum.auto()  # by the owner; nothing is reported


class WorkerClient:
    """``instance_id`` is also the worker's generation. ``facts`` describe the loaded model.

    ``load_timeout_s`` limits a load without progress. A worker is killed if it has requests and
    sends nothing, or does not confirm a cancel, for ``stall_timeout_s``.
    """

    def __init__(
        self,
        instance_id: int,
        target: Target,
        owner: ClientOwner,
        transport: Transport,
        *,
        load_timeout_s: float = math.inf,
        stall_timeout_s: float = math.inf,
    ) -> None:
        self.instance_id = instance_id
        self.target = target
        self.requests: dict[int, SubmittedRequest] = {}
        self.facts: messages.Ready | None = None
        self.heartbeat: messages.Heartbeat | None = None
        self._cache_bytes: int | None = None
        self._owner = owner
        self._transport = transport
        self._load_timeout_s = load_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._state = _State.NEW
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[messages.Ready] = self._loop.create_future()
        self._ready_ns = 0
        self._gone = asyncio.Event()
        self._handshake: Handshake
        self._load_timeout: asyncio.Timeout | None = None
        self._limits = OutputLimits(0)
        self._rate = MessageRate(self._loop.time())
        self._texts: dict[int, Callable[[str], None]] = {}
        self._received_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._cancels: dict[int, asyncio.TimerHandle] = {}
        self._reason = ""
        self._has_aborted = False

    @property
    def pid(self) -> int:
        """0 before the start."""
        return self._transport.pid

    @property
    def blames_kernels(self) -> bool:
        """Whether it died as faulty kernels of ours would let it: by a fault of native code, or in
        an assertion while the model was loaded.
        """
        if self.facts is None:
            return self._transport.has_faulted or self._has_aborted
        return self._transport.has_faulted and self.facts.has_own_kernels

    @property
    def is_stopping(self) -> bool:
        """Whether the owner stopped it, also once it is gone."""
        return self._state is _State.STOPPING

    @property
    def is_gone(self) -> bool:
        """Whether there is no process. One in an uninterruptible driver or disk call survives
        SIGKILL for a while: see :meth:`wait_gone`.
        """
        return not self.pid or self._gone.is_set()

    async def start(self, plan: LoadPlan) -> messages.Ready:
        """Start the worker and wait until it is ready.

        If this fails or is cancelled, the worker is killed and gone when it raises, unless not even
        SIGKILL ends it. (A second cancellation does not wait.)

        :raises ServerError: the worker cannot be started, refused the model, violated the protocol,
            exited, made no progress, or was stopped.
        """
        if self._state is not _State.NEW:
            raise LoadFailed("the model worker was stopped before it started")
        self._transport.start(plan, generation=self.instance_id, listener=self)
        self._handshake = Handshake(generation=self.instance_id, pid=self.pid, limits=plan.limits)
        self._state = _State.STARTING
        if plan.spec.cache_fd >= 0:
            self._cache_bytes = plan.spec.cache_bytes
        try:
            async with asyncio.timeout(self._load_timeout_s) as self._load_timeout:
                ready = await self._ready
        except BaseException as reason:  # cancellation, too, ends the worker
            await self._abandon()
            if not isinstance(reason, TimeoutError):
                raise
            text = "timed out waiting for the model worker to start"
            text += f" - no progress for {self._load_timeout_s:g} s"
            raise LoadFailed(self._with_output(text)) from None
        finally:
            self._load_timeout = None
        if self._state not in {_State.READY, _State.FAILING}:  # it ended in the same loop iteration
            raise WorkerDied(self._crash_text())
        if ready.slots < 1:
            await self._abandon()
            raise EngineFailed("the model worker has no slots")
        self.facts = ready
        self._ready_ns = perf_counter_ns()
        for warning in ready.warnings:
            log.warning("%s: %s", self.target.name, warning)
        return ready

    def detach(self) -> None:
        """Report nothing more to the owner or to sinks; the owner ends the requests. A
        :meth:`start` in progress fails. :meth:`stop` must follow.
        """
        self._reason = self._reason or "stopped"
        self._state = _State.STOPPING
        self._texts.clear()
        self._cancel_timers()

    async def stop(self, grace_s: float) -> None:
        """:meth:`detach`, request a quit, kill after the grace. Idempotent.

        Returns when the worker is gone, or not even SIGKILL ends it. A cancelled stop kills at
        once.
        """
        was_gone = self.is_gone
        self.detach()
        if not was_gone:
            await self._transport.stop(grace_s)

    async def wait_gone(self) -> None:
        """Wait until :attr:`is_gone`, without a limit."""
        if not self.is_gone:
            await self._gone.wait()

    def fail(self, reason: str) -> None:
        """Kill the worker for a fault. The reason, which may quote the worker, is reported when it
        is gone. If it is ending already, this only kills it sooner.
        """
        if self.is_gone:
            return
        self._transport.kill()
        if self._state in {_State.STARTING, _State.READY}:
            self._state = _State.FAILING
            self._reason = self._reason or _readable(reason[:_MAX_REASON_CHARACTERS])
            self._loop.call_later(REAP_DEADLINE_S, self._report_end)

    async def _abandon(self) -> None:
        """After a failed start: kill, and wait as :meth:`stop` does."""
        if not self.is_gone:
            self._reason = self._reason or "stopped"
            if not self.is_stopping:
                self._state = _State.LOST
            self._transport.kill()
            await self._transport.stop(0.0)
        if not self._ready.cancel() and not self._ready.cancelled():
            self._ready.exception()  # mark as retrieved: it was set beside the cancellation

    def _report_end(self) -> None:
        """The worker is gone, or SIGKILL has not ended it in time: fail what waits for it."""
        was_reported = self._state not in {_State.STARTING, _State.READY, _State.FAILING}
        if not was_reported:
            self._state = _State.LOST
        if not self._ready.done():
            self._ready.set_exception(
                LoadFailed(self._with_output(f"model worker has terminated: {self._reason}"))
            )
        if not was_reported and self.facts is not None:
            log.error("worker %d died: %s", self.pid, self._reason)
            self._owner.worker_lost(self, self._crash_text(), has_aborted=self._has_aborted)

    def _crash_text(self) -> str:
        return self._with_output(f"{CRASH_TEXT}: {self._reason}")

    def _with_output(self, text: str) -> str:
        lines = self._transport.last_output()
        return ": ".join([text, "\n".join(lines)]) if lines else text

    def submit(self, request: SubmittedRequest) -> None:
        """Send the request; never waits. It ends with ``request_ended`` or ``worker_lost``.

        The owner sends no more requests than the worker has slots, which bounds the output buffer.

        :raises WorkerDied: the worker's end was reported already.
        :raises TooLarge: it does not fit into a frame.
        :raises ServerError: it cannot be sent.
        """
        if self._state not in {_State.READY, _State.FAILING}:
            raise WorkerDied(self._crash_text())
        task = request.job.task
        assert task is not None
        self.requests[request.id] = request
        if self._state is _State.FAILING:
            return  # it ends with the worker
        self._texts[request.id] = request.sink.text
        try:
            self._send(messages.PackedSubmit(request.id, task, request.job.client))
        except Exception as fault:  # the boundary "request": it must not keep its slot
            self.forget(request.id)
            if isinstance(fault, TooLarge):
                raise
            log.exception("sending request %d", request.id)
            raise EngineFailed(f"the request cannot be sent to a worker: {fault}") from fault
        if not self._limits:
            self._received_at = self._loop.time()  # a stall is counted from the first request
        job = request.job
        self._limits.begin(request.id, job.num_predict, job.vectors, job.logprobs)

    def cancel(self, request_id: int) -> None:
        """Cancel the request: its sink gets nothing more, and ``request_ended`` follows. A worker
        that does not end it in time is killed.
        """
        self._texts.pop(request_id, None)
        if self._state is not _State.READY or request_id not in self._limits:
            return
        self._transport.send(messages.Cancel(request_id))
        reason = f"no answer to a cancel for {self._stall_timeout_s:g} s: killed"
        self._cancels[request_id] = self._loop.call_later(self._stall_timeout_s, self.fail, reason)

    def limit_cache(self, size_bytes: int) -> None:
        """How much memory the worker's prompt cache may use; ignored until it is ready, and if it
        has none.
        """
        if self._state is _State.READY and self._cache_bytes not in {None, size_bytes}:
            self._cache_bytes = size_bytes
            self._transport.send(messages.LimitCache(size_bytes))

    def forget(self, request_id: int) -> SubmittedRequest | None:
        """Drop the request: nothing more is passed to its sink."""
        if timer := self._cancels.pop(request_id, None):
            timer.cancel()
        self._texts.pop(request_id, None)
        return self.requests.pop(request_id, None)

    def _send(self, message: messages.FromParent) -> None:
        try:
            self._transport.send(message)
        except FrameTooLarge as reason:
            raise TooLarge(f"request too large for a worker: {reason}") from reason

    def received(self, batch: list[messages.ToParent]) -> None:
        self._received_at = self._loop.time()
        for message in batch:
            try:
                if self._state is _State.READY:
                    self._receive(message)
                elif self._state is _State.STARTING:
                    self._receive_first(message)
            except ProtocolViolation as reason:
                self.fail(str(reason))
            except Exception:  # the boundary "worker message": the next one still counts
                log.exception("message of worker %d", self.pid)

    def progressed(self) -> None:
        if self._load_timeout is not None:
            self._load_timeout.reschedule(self._loop.time() + self._load_timeout_s)

    def broken(self, reason: str) -> None:
        self.fail(f"the worker sent data that cannot be decoded: {reason}")

    def exited(self, reason: str, *, has_aborted: bool) -> None:
        self._has_aborted = has_aborted and not self._reason
        self._reason = self._reason or reason

    def closed(self) -> None:
        self._gone.set()
        self._cancel_timers()
        self._report_end()

    def _cancel_timers(self) -> None:
        for timer in (self._watch, *self._cancels.values()):
            if timer is not None:
                timer.cancel()

    def _receive_first(self, message: messages.ToParent) -> None:
        """:raises ProtocolViolation: a message that does not belong to the handshake."""
        self._rate.count(self._loop.time())
        outcome = self._handshake.receive(message)
        self.progressed()
        if isinstance(outcome, messages.Ready):
            self._state = _State.READY
            self._transport.mark_ready()
            self._limits = OutputLimits(outcome.num_ctx)
            self._watch_stall()
            if not self._ready.done():
                self._ready.set_result(outcome)
        elif isinstance(outcome, messages.Refused):
            if not self._ready.done():
                error = from_code(outcome.code, _readable(outcome.message))
                self._ready.set_exception(error)
            self.fail("refused")

    def _receive(self, message: messages.ToParent) -> None:
        """:raises ProtocolViolation: an unexpected message, or more than was asked for."""
        match message:
            case messages.Deltas():
                self._limits.spend(message.items)
                self._deliver(message.items)
            case messages.Started():
                self._limits.start(message)
                request = self.requests.get(message.id)
                if request is not None and not request.is_detached:
                    begun_ns = max(self._ready_ns, request.admitted_ns, request.submitted_ns)
                    load_ns = begun_ns - request.submitted_ns
                    request.sink.started(Start(load_ns, message.prompt, message.cached))
            case messages.Done():
                check_done(message)
                self._end_request(message.id, _finish(message))
            case messages.Failed():
                error = from_code(message.code, _readable(message.message))
                self._end_request(message.id, error)
            case messages.Heartbeat():
                self._rate.count(self._loop.time())
                check_heartbeat(message)
                self.heartbeat = message
            case _:
                raise unexpected(message)

    def _deliver(self, items: list[tuple[int, messages.Delta]]) -> None:
        """The hot path: a busy server does this a hundred thousand times a second."""
        texts = self._texts
        for request_id, delta in items:
            emit = texts.get(request_id)
            if emit is not None:
                try:
                    if isinstance(delta, str):
                        emit(delta)
                    else:
                        part = delta.call if isinstance(delta, messages.ToolCallDelta) else delta
                        self.requests[request_id].sink.part(part)
                except Exception:  # the other sinks must get their text
                    log.exception("sink of request %d", request_id)

    def _end_request(self, request_id: int, result: Finish | ServerError) -> None:
        self._limits.end(request_id)
        request = self.forget(request_id)
        if request is None:
            return
        try:
            self._owner.request_ended(request)
        finally:
            request.end(result)

    def _watch_stall(self) -> None:
        """Kill a worker that has requests and sends nothing; called each second or more often."""
        if math.isinf(self._stall_timeout_s) or self._state is not _State.READY:
            return
        # A late loop has received first: descriptors are handled before timers.
        silent_s = self._loop.time() - self._received_at
        if self._limits and silent_s >= self._stall_timeout_s:
            self.fail(f"no message for {self._stall_timeout_s:g} s while requests ran: killed")
            return
        period_s = min(_WATCH_PERIOD_S, self._stall_timeout_s / 4)
        self._watch = self._loop.call_later(period_s, self._watch_stall)


def _finish(done: messages.Done) -> Finish | ServerError:
    if done.reason == "cancel":
        return EngineFailed("the worker cancelled the request")
    return Finish(done.reason, done.usage, done.context, done.is_repetition, done.stop_string)


def _readable(text: str) -> str:
    """A worker's error text, for clients and terminals."""
    return replace_unprintable(text[:_MAX_ERROR_CHARACTERS], keep="\n")
