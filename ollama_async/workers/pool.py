"""The owner of all workers: performs what the scheduler decides, tells it what came of it.

- Runs in: the gateway, on its loop; every method.
- Owns: the scheduler, every worker (nobody else starts or stops one), one timer.
- Tasks: one for each load and each stop under way, in ``_tasks``, awaited by :meth:`Pool.close`.
- Talks to: sinks of the gateway above, runners (and their links) below, the observer beside.
- Dies when: closed; then no process, descriptor, timer or task is left.

An event goes to the scheduler and its effects are performed before anything else happens. An
effect that cannot be performed is an event again, which waits for its turn: effects do not see each
other's faults. Sinks are told last, because what they are told may make their owners ask or cancel
at once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter_ns
from typing import Any, assert_never

from ollama_async.core.conversation import Usage
from ollama_async.core.errors import (
    Busy,
    EngineFailed,
    LoadFailed,
    ServerError,
    ShuttingDown,
    from_code,
)
from ollama_async.queue.backend import (
    Finish,
    Handle,
    Job,
    LoadOptions,
    Observer,
    Sink,
    Snapshot,
    Target,
)
from ollama_async.queue.events import (
    SHUTDOWN_TEXT,
    Abort,
    Complete,
    Effect,
    Event,
    Fail,
    Load,
    Reject,
    RequestArrived,
    RequestCancelled,
    RequestEnded,
    ShutdownRequested,
    Start,
    Stop,
    TimerFired,
    UnloadRequested,
    WakeAt,
    WorkerLoadFailed,
    WorkerLost,
    WorkerReady,
    WorkerStopped,
)
from ollama_async.queue.memory_budget import Limits, Plan, Planner
from ollama_async.queue.scheduler import Scheduler
from ollama_async.workers.client import CRASH_TEXT, LinkEvents, WorkerLink
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.runner import Entry, MakeWorker, Runner
from ollama_async.workers.snapshot import take_snapshot

STOP_GRACE_S = 4.0
"""How long an idle worker may take to end by itself before it is killed."""

_CLOSE_MARGIN_S = 30.0
"""More than a stop can take: its grace, and ten seconds until the kernel lets go of the process."""

_LONGEST_TIMER_S = 86_400.0
"""Loops cannot wait for ever; being woken in vain once a day costs nothing."""

_Word = tuple[Entry, ServerError | Finish]
"""What a sink will hear, once all effects are performed."""

log = logging.getLogger(__name__)


class Pool:
    """Implements :class:`~ollama_async.queue.backend.InferenceBackend`. Make it on a running loop.

    ``load_timeout_s``: a load without progress for so long is given up. ``stall_timeout_s``: a
    worker with work that is silent, or does not honour a cancel, for so long is killed.
    """

    def __init__(
        self,
        limits: Limits,
        planner: Planner,
        observer: Observer,
        *,
        load_timeout_s: float = math.inf,
        stall_timeout_s: float = math.inf,
        stop_grace_s: float = STOP_GRACE_S,
        make_worker: MakeWorker | None = None,
    ) -> None:
        self._scheduler = Scheduler(limits, _logged(planner))
        self._observer = observer
        self._load_timeout_s = load_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._stop_grace_s = stop_grace_s
        self._make_worker = make_worker or self._make_link
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._entries: dict[int, Entry] = {}
        self._runners: dict[int, Runner] = {}
        self._deadlines: dict[int, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    # -- the port ----------------------------------------------------------------------------

    def submit(self, job: Job, sink: Sink) -> Handle:
        """See the port. The sink may hear its only word before this returns.

        :raises WorkerDied: the model's workers keep crashing; it will be tried again later.
        """
        entry = Entry(next(self._numbers), job, sink)
        self._entries[entry.ticket] = entry
        try:
            words = self._handle(RequestArrived(entry.ticket, job))
        except BaseException:  # a fault of ours: the client is told by whoever called
            self._entries.pop(entry.ticket, None)
            raise
        refusals = [word for addressee, word in words if addressee is entry]
        if refusals and isinstance(refusals[0], ServerError):
            self._say([(other, word) for other, word in words if other is not entry])
            if isinstance(refusals[0], LoadFailed):
                self._note(self._observer.rejected, "no_capacity")
            raise refusals[0]
        entry.admitted_ns = perf_counter_ns()
        self._say(words)
        return _Handle(self, entry)

    async def unload(self, key: str) -> None:
        self._tell(UnloadRequested(key))

    def snapshot(self) -> Snapshot:
        return take_snapshot(self._scheduler.state, self._runners, self._loop.time())

    # -- life --------------------------------------------------------------------------------

    async def drain(self, grace_s: float) -> None:
        """Take no new work, fail what waits, let what runs go on for ``grace_s`` seconds, stop all.

        Returns when every worker is gone. May be cancelled; then :meth:`close` finishes it.
        """
        self._tell(ShutdownRequested(grace_s))
        limit_s = grace_s + self._stop_grace_s + _CLOSE_MARGIN_S
        async with asyncio.timeout(None if math.isinf(limit_s) else limit_s):
            while self._runners or self._tasks:
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        """End everything now. Idempotent. Afterwards no process, descriptor, task or timer is left.

        If this is cancelled, or a worker does not end in time, what is left is killed first.
        """
        try:
            await self.drain(0.0)
        except TimeoutError:
            log.error("%d workers did not end", len(self._tasks))  # noqa: TRY400  # no news
        finally:
            await self._kill_all()

    async def _kill_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A task that was cancelled before its first step has not even begun to stop its worker.
        stops = [runner.stop(0.0) for runner in self._runners.values()]
        await asyncio.gather(*stops, return_exceptions=True)
        self._runners.clear()
        for timer in (self._timer, *self._deadlines.values()):
            if timer is not None:
                timer.cancel()

    # -- the loop of events and effects ------------------------------------------------------

    def _tell(self, event: Event) -> None:
        """The event, its effects, and then what the sinks hear of it."""
        self._say(self._handle(event))

    def _handle(self, event: Event) -> list[_Word]:
        words: list[_Word] = []
        events = deque([event])
        while events:
            for effect in self._decide(events.popleft()):
                try:
                    self._perform(effect, words, events)
                except Exception as fault:  # the boundary "effect": the others are performed
                    log.exception("%s", effect)
                    self._amend(effect, fault, words, events)
        self._changed.set()
        return words

    def _decide(self, event: Event) -> list[Effect]:
        """The event's effects; after a fault of the scheduler those that it had decided on."""
        try:
            return self._scheduler.handle(event, self._loop.time())
        except Exception:
            if isinstance(event, RequestArrived):
                raise  # whoever called hears of it
            log.exception("%s", event)
            return self._scheduler.state.effects

    def _perform(  # noqa: C901  # one case per effect
        self, effect: Effect, words: list[_Word], events: deque[Event]
    ) -> None:
        match effect:
            case Start(ticket, worker):
                entry = self._entries[ticket]
                if error := self._start(entry, self._runners[worker]):
                    words.append((self._entries.pop(ticket), error))
                    events.append(RequestEnded(ticket))
            case Complete(ticket):
                words.append((self._entries.pop(ticket), Finish("load", Usage(), [])))
            case Abort(ticket, worker):
                self._abort(ticket, self._runners[worker])
            case Reject(ticket, reason, retry_after_s):
                busy = Busy(retry_after_s=retry_after_s)
                error = busy if reason == "full" else ShuttingDown(SHUTDOWN_TEXT)
                words.append((self._entries.pop(ticket), error))
                self._note(self._observer.rejected, reason)
            case Fail(ticket, code, message):
                entry = self._entries.pop(ticket)
                words.append((entry, from_code(code, message)))
                if entry.runner is not None:
                    entry.runner.silence(ticket)
            case Load(worker, target, plan):
                assert isinstance(plan, LoadPlan)
                runner = Runner(worker, target, self, self._make_worker)
                self._runners[worker] = runner
                self._own(self._load(runner, plan))
            case Stop(worker, reason):
                self._runners[worker].is_stopping = True
                self._own(self._stop(self._runners[worker], reason))
            case WakeAt(at):
                self._set_timer(at)
            case _:
                assert_never(effect)

    def _amend(
        self, effect: Effect, fault: Exception, words: list[_Word], events: deque[Event]
    ) -> None:
        """What became of an effect that could not be performed: the scheduler must not wait for it,
        nor a client.
        """
        match effect:
            case Start(ticket):
                self._fail(ticket, fault, words)
                events.append(RequestEnded(ticket))
            case Complete(ticket) | Reject(ticket) | Fail(ticket):
                self._fail(ticket, fault, words)
            case Abort(ticket, worker):
                if runner := self._runners.get(worker):
                    self._kill_soon(runner, f"a cancel could not be sent: {fault!r}")
                else:
                    events.append(RequestEnded(ticket))
            case Load(worker):
                self._runners.pop(worker, None)
                events.append(WorkerLoadFailed(worker, LoadFailed.code, repr(fault)))
            case Stop(worker):
                events.append(WorkerStopped(worker))
            case WakeAt():
                pass

    def _fail(self, ticket: int, fault: Exception, words: list[_Word]) -> None:
        """A fault of ours ends a request, unless it has had its word."""
        entry = self._entries.pop(ticket, None)
        if entry is not None:
            words.append((entry, EngineFailed(f"a fault of the server: {fault!r}")))
            if entry.runner is not None:
                entry.runner.silence(ticket)

    def _note(self, tell: Callable[..., None], *facts: object) -> None:
        """Tell the observer; a fault of its own is nobody else's."""
        try:
            tell(*facts)
        except Exception:  # the boundary "observer"
            log.exception("observer")

    def _say(self, words: list[_Word]) -> None:
        for entry, word in words:
            if entry.is_deaf:
                continue
            entry.is_deaf = True
            try:
                if isinstance(word, Finish):
                    entry.sink.finished(word)
                else:
                    entry.sink.failed(word)
            except Exception:  # one sink's fault must not cost the others their end
                log.exception("sink of request %d", entry.ticket)

    # -- requests ----------------------------------------------------------------------------

    def _start(self, entry: Entry, runner: Runner) -> ServerError | None:
        inference = entry.job.inference
        assert inference is not None
        if not entry.was_started:
            entry.was_started = True
            waited_ns = perf_counter_ns() - entry.submitted_ns
            self._note(self._observer.waited, entry.job.target.name, waited_ns / 1e9)
        try:
            runner.run(entry, inference)
        except ServerError as error:
            return error
        return None

    def cancel(self, entry: Entry) -> None:
        """The client left; see the port's ``Handle``."""
        if entry.ticket not in self._entries or entry.is_deaf:
            return
        entry.is_deaf = True
        self._tell(RequestCancelled(entry.ticket))
        if entry.ticket not in self._scheduler.state.requests:
            self._entries.pop(entry.ticket, None)

    def _abort(self, ticket: int, runner: Runner) -> None:
        runner.cancel(ticket)
        if not math.isinf(self._stall_timeout_s):
            self._deadlines[ticket] = self._loop.call_later(
                self._stall_timeout_s, self._give_up, ticket, runner
            )

    def _give_up(self, ticket: int, runner: Runner) -> None:
        """A cancel was not honoured: the engine hangs, or counts for nothing."""
        del self._deadlines[ticket]
        self._kill_soon(runner, f"no answer to a cancel for {self._stall_timeout_s:g} s")

    def _kill_soon(self, runner: Runner, reason: str) -> None:
        if not (runner.is_stopping or runner.is_being_killed):
            runner.is_being_killed = True
            self._own(self._kill(runner, reason))

    # What runners say.

    def ended(self, entry: Entry) -> None:
        self._entries.pop(entry.ticket, None)
        if timer := self._deadlines.pop(entry.ticket, None):
            timer.cancel()
        self._tell(RequestEnded(entry.ticket))

    def lost(self, runner: Runner, reason: str, *, has_aborted: bool) -> None:
        log.error("%s: %s", runner.target.name, reason)
        self._bury(runner)
        self._note(self._observer.worker_died, runner.target.name)
        self._note(self._observer.unloaded, runner.target.name, "crashed")
        running = list(runner.entries.values())
        restartable = frozenset(entry.ticket for entry in running if _may_restart(entry))
        for entry in running:
            if entry.is_deaf:
                self._entries.pop(entry.ticket, None)
        is_gone = runner.is_gone
        self._tell(
            WorkerLost(runner.number, reason, restartable, is_gone=is_gone, has_aborted=has_aborted)
        )
        if not is_gone:
            self._own(self._outwait(runner))

    # -- workers -----------------------------------------------------------------------------

    async def _load(self, runner: Runner, plan: LoadPlan) -> None:
        """Ends with WorkerReady or WorkerLoadFailed, unless the worker is stopped meanwhile: then
        that has the last word.
        """
        name = runner.target.name
        log.info("%s: loading, %d slots of %d tokens", name, plan.slots, plan.num_ctx)
        began_ns = perf_counter_ns()
        event: Event
        try:
            ready = await runner.load(
                plan.spec.to_argv(), plan.environ, plan.bounds, self._load_timeout_s
            )
        except ServerError as error:
            event = WorkerLoadFailed(runner.number, error.code, error.message, runner.is_gone)
            outcome = "failed"
        except Exception as error:  # the boundary "task supervisor": whoever waits must hear of it
            log.exception("loading %s", name)
            event = WorkerLoadFailed(runner.number, LoadFailed.code, repr(error), runner.is_gone)
            outcome = "failed"
        else:
            event, outcome = WorkerReady(runner.number, ready.slots, ready.num_ctx), "ok"
        took_s = (perf_counter_ns() - began_ns) / 1e9
        if runner.is_stopping:
            self._note(self._observer.loaded, name, "cancelled", took_s)
            return
        self._note(self._observer.loaded, name, outcome, took_s)
        log.info("%s: load %s after %.2f s", name, outcome, took_s)
        if outcome == "failed":
            self._bury(runner)
        self._tell(event)
        if isinstance(event, WorkerLoadFailed) and not event.is_gone:
            await self._outwait(runner)

    async def _stop(self, runner: Runner, reason: str) -> None:
        try:
            await runner.stop(self._stop_grace_s)
        except Exception:  # as above: a stop that fails must not leave the memory spoken for
            log.exception("stopping %s", runner.target.name)
        self._bury(runner)
        log.info("%s: unloaded (%s)", runner.target.name, reason)
        self._note(self._observer.unloaded, runner.target.name, reason)
        if runner.is_gone:
            self._tell(WorkerStopped(runner.number))
        else:
            self._tell(WorkerLost(runner.number, "it does not stop", is_gone=False))
            await self._outwait(runner)

    async def _outwait(self, runner: Runner) -> None:
        """The process does not end even by SIGKILL: its memory stays taken for as long."""
        log.error("%s: its process still holds its memory", runner.target.name)
        await runner.gone()
        log.info("%s: its process is gone at last", runner.target.name)
        self._tell(WorkerStopped(runner.number))

    async def _kill(self, runner: Runner, reason: str) -> None:
        try:
            await runner.stop(0.0)
        except Exception:  # as in `_stop`
            log.exception("killing %s", runner.target.name)
        if not runner.is_stopping:
            self.lost(runner, f"{CRASH_TEXT}: {reason}: killed", has_aborted=False)

    def _bury(self, runner: Runner) -> None:
        self._runners.pop(runner.number, None)
        for ticket in runner.entries:
            if timer := self._deadlines.pop(ticket, None):
                timer.cancel()

    def _make_link(self, events: LinkEvents, generation: int) -> WorkerLink:
        return WorkerLink(events, generation=generation, stall_timeout_s=self._stall_timeout_s)

    # -- tasks and time ----------------------------------------------------------------------

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._disown)

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the pool failed", exc_info=error)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            at = min(at, self._loop.time() + _LONGEST_TIMER_S)
            self._timer = self._loop.call_at(at, self._tell, TimerFired())


class _Handle:
    __slots__ = ("_entry", "_pool")

    def __init__(self, pool: Pool, entry: Entry) -> None:
        self._pool = pool
        self._entry = entry

    def cancel(self) -> None:
        self._pool.cancel(self._entry)


def _may_restart(entry: Entry) -> bool:
    if entry.is_deaf:
        return False
    try:
        return entry.sink.may_restart()
    except Exception:  # one sink's fault must not hide the death from the others
        log.exception("sink of request %d", entry.ticket)
        return False


def _logged(planner: Planner) -> Planner:
    """A planner whose faults are in the log; the scheduler makes refusals of them."""

    def plan(target: Target, options: LoadOptions) -> Sequence[Plan]:
        try:
            return planner(target, options)
        except ServerError:
            raise
        except Exception:
            log.exception("planning %s", target.name)
            raise

    return plan
