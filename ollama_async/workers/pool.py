"""The owner of all workers: performs what the scheduler decides and reports the outcome to it.

- Runs in: the gateway, on its loop; every method.
- Owns: the scheduler, every worker (nothing else starts or stops one), one timer.
- Tasks: one for each load and each stop under way, in ``_tasks``, awaited by :meth:`Pool.close`.
- Talks to: sinks of the gateway above, worker clients below, the observer beside.
- Dies when: closed; then no process, descriptor, timer or task is left.

An event goes to the scheduler and its effects are performed before anything else happens. An
effect that cannot be performed becomes an event, which waits for its turn: effects do not see each
other's faults. Sinks are called last, because their owners may submit or cancel at once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
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
from ollama_async.workers.client import WorkerClient
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.process import WorkerProcess
from ollama_async.workers.requests import SubmittedRequest
from ollama_async.workers.snapshot import Snapshots
from ollama_async.workers.transport import Transport

STOP_GRACE_S = 4.0
"""How long an idle worker may take to quit before it is killed."""

_CLOSE_MARGIN_S = 30.0
"""More than a stop can take: its grace, and ten seconds until the kernel frees the process."""

_MAX_TIMER_S = 86_400.0
"""Loops cannot wait for ever; being woken in vain once a day costs nothing."""

_Outcome = tuple[SubmittedRequest, ServerError | Finish]
"""What a sink gets, once all effects are performed."""

log = logging.getLogger(__name__)


class Pool:
    """Implements :class:`~ollama_async.queue.backend.InferenceBackend`. Make it on a running loop.

    ``load_timeout_s`` and ``stall_timeout_s``: see :class:`~.client.WorkerClient`.
    ``make_transport`` makes the connection to a worker that is to be started.
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
        make_transport: Callable[[], Transport] = WorkerProcess,
    ) -> None:
        self._scheduler = Scheduler(limits, _logged(planner))
        self._observer = observer
        self._stop_grace_s = stop_grace_s
        self._make_transport = make_transport
        self._make_client = partial(
            WorkerClient, load_timeout_s=load_timeout_s, stall_timeout_s=stall_timeout_s
        )
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._requests: dict[int, SubmittedRequest] = {}
        self._clients: dict[int, WorkerClient] = {}
        self._snapshots = Snapshots()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    # -- the backend -------------------------------------------------------------------------

    def submit(self, job: Job, sink: Sink) -> Handle:
        """See :class:`~ollama_async.queue.backend.InferenceBackend`.

        The sink may get its end before this returns.

        :raises WorkerDied: the model's workers keep crashing; it will be tried again later.
        """
        request = SubmittedRequest(next(self._ids), job, sink, self._cancel)
        self._requests[request.id] = request
        try:
            ends = self._handle(RequestArrived(request.id, job))
        except BaseException:  # a fault of ours: the caller tells the client
            self._requests.pop(request.id, None)
            raise
        request.admitted_ns = perf_counter_ns()
        refusal = next((result for other, result in ends if other is request), None)
        if isinstance(refusal, ServerError):
            request.is_detached = True  # the caller tells the client
            if isinstance(refusal, LoadFailed):
                self._observe(self._observer.rejected, "no_capacity")
        for other, result in ends:
            other.end(result)
        if isinstance(refusal, ServerError):
            raise refusal
        return request

    async def unload(self, key: str) -> None:
        self._process(UnloadRequested(key))

    def snapshot(self) -> Snapshot:
        return self._snapshots.take(self._scheduler.state, self._clients, self._loop.time())

    # -- life --------------------------------------------------------------------------------

    async def drain(self, grace_s: float) -> None:
        """Accept no new work, fail what waits, give what runs ``grace_s`` seconds, then stop all.

        Returns when every worker is gone. May be cancelled; then :meth:`close` finishes it.
        """
        self._process(ShutdownRequested(grace_s))
        limit_s = grace_s + self._stop_grace_s + _CLOSE_MARGIN_S
        async with asyncio.timeout(None if math.isinf(limit_s) else limit_s):
            while self._clients or self._tasks:
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
        stops = [client.stop(0.0) for client in self._clients.values()]
        await asyncio.gather(*stops, return_exceptions=True)
        self._clients.clear()
        if self._timer is not None:
            self._timer.cancel()

    # -- the loop of events and effects ------------------------------------------------------

    def _process(self, event: Event) -> None:
        """The event, its effects, and then what the sinks get of it."""
        for request, result in self._handle(event):
            request.end(result)

    def _handle(self, event: Event) -> list[_Outcome]:
        """After a fault of the scheduler, the effects that it had decided on are performed.

        :raises Exception: such a fault, if the event is a new request.
        """
        ends: list[_Outcome] = []
        events = deque([event])
        while events:
            event = events.popleft()
            try:
                effects = self._scheduler.handle(event, self._loop.time())
            except Exception:
                if isinstance(event, RequestArrived):
                    raise
                log.exception("%s", event)
                effects = self._scheduler.state.effects
            for effect in effects:
                try:
                    self._perform(effect, ends, events)
                except Exception as fault:  # the boundary "effect": the others are performed
                    log.exception("%s", effect)
                    self._recover(effect, fault, ends, events)
        self._changed.set()
        return ends

    def _perform(  # noqa: C901  # one case per effect
        self, effect: Effect, ends: list[_Outcome], events: deque[Event]
    ) -> None:
        match effect:
            case Start(request_id, instance_id):
                request = self._requests[request_id]
                if not request.was_started:
                    request.was_started = True
                    waited_s = (perf_counter_ns() - request.submitted_ns) / 1e9
                    self._observe(self._observer.waited, request.job.target.name, waited_s)
                try:
                    self._clients[instance_id].submit(request)
                except ServerError as error:
                    ends.append((self._requests.pop(request_id), error))
                    events.append(RequestEnded(request_id))
            case Complete(request_id):
                ends.append((self._requests.pop(request_id), Finish("load", Usage(), [])))
            case Abort(request_id, instance_id):
                self._clients[instance_id].cancel(request_id)
            case Reject(request_id, reason, retry_after_s):
                busy = Busy(retry_after_s=retry_after_s)
                refusal = busy if reason == "full" else ShuttingDown(SHUTDOWN_TEXT)
                ends.append((self._requests.pop(request_id), refusal))
                self._observe(self._observer.rejected, reason)
            case Fail(request_id, code, message):
                self._fail(request_id, from_code(code, message), ends)
            case Load(instance_id, target, plan):
                assert isinstance(plan, LoadPlan)
                client = self._make_client(instance_id, target, self, self._make_transport())
                self._clients[instance_id] = client
                self._create_task(self._load(client, plan))
            case Stop(instance_id, reason):
                client = self._clients[instance_id]
                client.detach()
                self._create_task(self._stop(client, reason))
            case WakeAt(at):
                self._set_timer(at)
            case _:
                assert_never(effect)

    def _recover(
        self, effect: Effect, fault: Exception, ends: list[_Outcome], events: deque[Event]
    ) -> None:
        """After an effect that could not be performed: neither the scheduler nor a client must wait
        for it.
        """
        error = EngineFailed(f"a fault of the server: {fault!r}")
        match effect:
            case Start(request_id) | Complete(request_id) | Reject(request_id) | Fail(request_id):
                self._fail(request_id, error, ends)
                if isinstance(effect, Start):
                    events.append(RequestEnded(request_id))
            case Abort(request_id, instance_id):
                if client := self._clients.get(instance_id):
                    client.fail(f"a cancel could not be sent: {fault!r}: killed")
                else:
                    events.append(RequestEnded(request_id))
            case Load(instance_id):
                self._clients.pop(instance_id, None)
                events.append(WorkerLoadFailed(instance_id, LoadFailed.code, repr(fault)))
            case Stop(instance_id):
                events.append(WorkerStopped(instance_id))
            case WakeAt():
                pass

    def _fail(self, request_id: int, error: ServerError, ends: list[_Outcome]) -> None:
        """End a request, which a worker may have, with an error, unless it has ended."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            ends.append((request, error))
            for client in self._clients.values():
                client.forget(request_id)

    def _observe(self, report: Callable[..., None], *facts: object) -> None:
        """Report to the observer; its faults are logged."""
        try:
            report(*facts)
        except Exception:  # the boundary "observer"
            log.exception("observer")

    # -- requests ----------------------------------------------------------------------------

    def _cancel(self, request: SubmittedRequest) -> None:
        if request.id not in self._requests or request.is_detached:
            return
        request.is_detached = True
        self._process(RequestCancelled(request.id))
        if request.id not in self._scheduler.state.requests:
            self._requests.pop(request.id, None)

    def request_ended(self, request: SubmittedRequest) -> None:
        """See :class:`~.client.ClientOwner`."""
        self._requests.pop(request.id, None)
        self._process(RequestEnded(request.id))

    def worker_lost(self, worker: WorkerClient, reason: str, *, has_aborted: bool) -> None:
        """See :class:`~.client.ClientOwner`."""
        log.error("%s: %s", worker.target.name, reason)
        self._clients.pop(worker.instance_id, None)
        self._observe(self._observer.worker_died, worker.target.name)
        self._observe(self._observer.unloaded, worker.target.name, "crashed")
        running = list(worker.requests.values())
        restartable = frozenset(request.id for request in running if request.try_restart())
        for request in running:
            if request.is_detached:
                self._requests.pop(request.id, None)
        is_gone = worker.is_gone
        self._process(
            WorkerLost(
                worker.instance_id, reason, restartable, is_gone=is_gone, has_aborted=has_aborted
            )
        )
        if not is_gone:
            self._create_task(self._wait_lingering(worker))

    # -- workers -----------------------------------------------------------------------------

    async def _load(self, client: WorkerClient, plan: LoadPlan) -> None:
        """Ends with WorkerReady or WorkerLoadFailed, unless the worker is stopped meanwhile: then
        the stop reports the end.
        """
        name = client.target.name
        log.info("%s: loading, %d slots of %d tokens", name, plan.slots, plan.num_ctx)
        began_ns = perf_counter_ns()
        event: Event
        try:
            ready = await client.start(plan)
        except Exception as fault:  # the boundary "task supervisor": what waits must be failed
            error = fault if isinstance(fault, ServerError) else LoadFailed(repr(fault))
            if error is not fault:
                log.exception("loading %s", name)
            event = WorkerLoadFailed(client.instance_id, error.code, error.message, client.is_gone)
        else:
            event = WorkerReady(client.instance_id, ready.slots, ready.num_ctx)
        took_s = (perf_counter_ns() - began_ns) / 1e9
        if client.is_stopping:
            self._observe(self._observer.loaded, name, "cancelled", took_s)
            return
        outcome = "ok" if isinstance(event, WorkerReady) else "failed"
        self._observe(self._observer.loaded, name, outcome, took_s)
        log.info("%s: load %s after %.2f s", name, outcome, took_s)
        if isinstance(event, WorkerLoadFailed):
            self._clients.pop(client.instance_id, None)
        self._process(event)
        if isinstance(event, WorkerLoadFailed) and not event.is_gone:
            await self._wait_lingering(client)

    async def _stop(self, client: WorkerClient, reason: str) -> None:
        try:
            await client.stop(self._stop_grace_s)
        except Exception:  # as above: a stop that fails must not leave the memory reserved
            log.exception("stopping %s", client.target.name)
        self._clients.pop(client.instance_id, None)
        log.info("%s: unloaded (%s)", client.target.name, reason)
        self._observe(self._observer.unloaded, client.target.name, reason)
        if client.is_gone:
            self._process(WorkerStopped(client.instance_id))
        else:
            self._process(WorkerLost(client.instance_id, "it does not stop", is_gone=False))
            await self._wait_lingering(client)

    async def _wait_lingering(self, client: WorkerClient) -> None:
        """Not even SIGKILL ends the process: its memory stays reserved until it goes."""
        log.error("%s: its process still holds its memory", client.target.name)
        await client.wait_gone()
        log.info("%s: its process is gone at last", client.target.name)
        self._process(WorkerStopped(client.instance_id))

    # -- tasks and time ----------------------------------------------------------------------

    def _create_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of the pool failed", exc_info=error)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            at = min(at, self._loop.time() + _MAX_TIMER_S)
            self._timer = self._loop.call_at(at, self._process, TimerFired())


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
