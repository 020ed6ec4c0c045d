"""The pool owns all workers, performs the scheduler's effects and reports the outcomes as events.

It runs on the gateway's loop and owns the scheduler, all workers, one timer, and a task for each
load and stop in progress. When it is closed, no process, descriptor, timer or task is left.

The effects of an event are performed before the next event is handled. An effect that fails is
queued as an event. Sinks are called last, because their owners may submit or cancel at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter_ns
from typing import Any, assert_never

import msgspec

from ollama_async.core.conversation import Usage
from ollama_async.core.errors import (
    Busy,
    EngineFailed,
    LoadFailed,
    ServerError,
    ShuttingDown,
    from_code,
)
from ollama_async.hw.placement import CPU
from ollama_async.queue import events
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
from ollama_async.queue.memory_budget import Limits, Plan, Planner
from ollama_async.queue.scheduler import Scheduler
from ollama_async.workers.cache_memory import CacheMemory
from ollama_async.workers.client import WorkerClient
from ollama_async.workers.load_plan import LoadPlan
from ollama_async.workers.process import WorkerProcess
from ollama_async.workers.requests import SubmittedRequest
from ollama_async.workers.snapshot import Snapshots
from ollama_async.workers.transport import Transport

STOP_GRACE_S = 4.0
"""How long an idle worker may take to quit before it is killed."""

_CLOSE_MARGIN_S = 30.0
"""More than a stop can take beyond its grace: the kernel may need ten seconds to end a process."""

_PREDECESSOR_WAIT_S = 1.0
"""How long a load waits for the prompt cache of the worker before, which ends in milliseconds."""

_Outcome = tuple[SubmittedRequest, ServerError | Finish]
"""The end of a request, passed to its sink once all effects are performed."""

log = logging.getLogger(__name__)


class Pool:
    """The :class:`~ollama_async.queue.backend.InferenceBackend`. Create it on a running loop.

    ``load_timeout_s`` and ``stall_timeout_s``: see :class:`~.client.WorkerClient`. ``cache_bytes``:
    limit of a model's prompt cache.
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
        cache_bytes: int = 0,
        make_transport: Callable[[], Transport] = WorkerProcess,
    ) -> None:
        self._scheduler = Scheduler(limits, self._plan)
        self._planner = planner
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
        self._without_kernels: set[str] = set()
        """Keys of models whose worker died as our own kernels may have let it."""
        self._snapshots = Snapshots()
        self._cache_memory = CacheMemory(cache_bytes)
        self._host_bytes = limits.capacity.get(CPU, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    def submit(self, job: Job, sink: Sink) -> Handle:
        """As in the protocol; the sink may get its end before this returns."""
        request = SubmittedRequest(next(self._ids), job, sink, self._cancel)
        self._requests[request.id] = request
        try:
            ends = self._handle(events.RequestArrived(request.id, job))
        except BaseException:  # a bug: the caller reports it
            self._requests.pop(request.id, None)
            raise
        request.admitted_ns = perf_counter_ns()
        refusal = next((result for other, result in ends if other is request), None)
        if isinstance(refusal, ServerError):
            request.is_detached = True  # the caller reports it
            if isinstance(refusal, LoadFailed):
                self._observe(self._observer.rejected, "no_capacity")
        for other, result in ends:
            other.end(result)
        if isinstance(refusal, ServerError):
            raise refusal
        return request

    async def unload(self, key: str) -> None:
        self._process(events.UnloadRequested(key))

    def snapshot(self) -> Snapshot:
        return self._snapshots.take(self._scheduler.state, self._clients, self._loop.time())

    async def drain(self, grace_s: float) -> None:
        """Refuse new requests, fail queued ones, and give running ones ``grace_s`` seconds. Returns
        when every worker is gone. If it is cancelled, :meth:`close` finishes it.
        """
        self._process(events.ShutdownRequested(grace_s))
        async with asyncio.timeout(grace_s + self._stop_grace_s + _CLOSE_MARGIN_S):
            while self._clients or self._tasks:
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        """End everything now. What does not end in time, or if cancelled, is killed. Idempotent."""
        try:
            await self.drain(0.0)
        except TimeoutError:
            log.error("%d workers did not end", len(self._tasks))  # noqa: TRY400
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # A task that was cancelled before its first step has not begun to stop its worker.
            stops = [client.stop(0.0) for client in self._clients.values()]
            await asyncio.gather(*stops, return_exceptions=True)
            self._clients.clear()
            self._cache_memory.close()
            self._set_timer(None)

    def _process(self, event: events.Event) -> None:
        """Handle the event, then pass the ends of requests to their sinks."""
        for request, result in self._handle(event):
            request.end(result)

    def _handle(self, event: events.Event) -> list[_Outcome]:
        """Handle the event and those that its effects cause. After a bug in the scheduler, the
        effects decided before it are performed.

        :raises Exception: such a bug, if the event is a new request.
        """
        ends: list[_Outcome] = []
        pending = deque([event])
        while pending:
            event = pending.popleft()
            try:
                effects = self._scheduler.handle(event, self._loop.time())
            except Exception:
                if isinstance(event, events.RequestArrived):
                    raise
                log.exception("%s", event)
                effects = self._scheduler.state.effects
            for effect in effects:
                try:
                    self._perform(effect, ends)
                except Exception as fault:  # the boundary "effect": the others are performed
                    if not isinstance(fault, ServerError):
                        log.exception("%s", effect)
                    self._recover(effect, fault, ends, pending)
        self._changed.set()
        return ends

    def _perform(self, effect: events.Effect, ends: list[_Outcome]) -> None:
        match effect:
            case events.Start(request_id, instance_id):
                request = self._requests[request_id]
                if not request.was_started:
                    request.was_started = True
                    waited_s = (perf_counter_ns() - request.submitted_ns) / 1e9
                    self._observe(self._observer.waited, request.job.target.name, waited_s)
                self._clients[instance_id].submit(request)
            case events.Complete(request_id):
                ends.append((self._requests.pop(request_id), Finish("load", Usage(), [])))
            case events.Abort(request_id, instance_id):
                self._clients[instance_id].cancel(request_id)
            case events.Reject(request_id, reason, retry_after_s):
                busy = Busy(retry_after_s=retry_after_s)
                refusal = busy if reason == "full" else ShuttingDown(events.SHUTDOWN_TEXT)
                ends.append((self._requests.pop(request_id), refusal))
                self._observe(self._observer.rejected, reason)
            case events.Fail(request_id, code, message):
                self._fail(request_id, from_code(code, message), ends)
            case events.Load(instance_id, target, plan):
                assert isinstance(plan, LoadPlan)
                client = self._make_client(instance_id, target, self, self._make_transport())
                self._clients[instance_id] = client
                self._create_task(self._load(client, plan))
            case events.Stop(instance_id, reason):
                client = self._clients[instance_id]
                client.detach()
                self._create_task(self._stop(client, reason))
            case events.WakeAt(at):
                self._set_timer(at)
            case _:
                assert_never(effect)

    def _recover(
        self,
        effect: events.Effect,
        fault: Exception,
        ends: list[_Outcome],
        pending: deque[events.Event],
    ) -> None:
        """An effect failed: neither the scheduler nor a client must wait for its outcome."""
        error = fault
        if not isinstance(error, ServerError):
            error = EngineFailed(f"a fault of the server: {fault!r}")
        match effect:
            case events.Start() | events.Complete() | events.Reject() | events.Fail():
                self._fail(effect.request_id, error, ends)
                if isinstance(effect, events.Start):
                    pending.append(events.RequestEnded(effect.request_id))
            case events.Abort(request_id, instance_id):
                if client := self._clients.get(instance_id):
                    client.fail(f"a cancel could not be sent: {fault!r}: killed")
                else:
                    pending.append(events.RequestEnded(request_id))
            case events.Load(instance_id):
                self._clients.pop(instance_id, None)
                pending.append(events.WorkerLoadFailed(instance_id, LoadFailed.code, repr(fault)))
            case events.Stop(instance_id):
                pending.append(events.WorkerStopped(instance_id))
            case events.WakeAt():
                pass

    def _fail(self, request_id: int, error: ServerError, ends: list[_Outcome]) -> None:
        """End a request with an error, unless it has ended; a worker may be running it."""
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

    def _cancel(self, request: SubmittedRequest) -> None:
        if request.id not in self._requests or request.is_detached:
            return
        request.is_detached = True
        self._process(events.RequestCancelled(request.id))
        if request.id not in self._scheduler.state.requests:
            self._requests.pop(request.id, None)

    def request_ended(self, request: SubmittedRequest) -> None:
        self._requests.pop(request.id, None)
        self._process(events.RequestEnded(request.id))

    def worker_lost(self, worker: WorkerClient, reason: str, *, has_aborted: bool) -> None:
        log.error("%s: %s", worker.target.name, reason)
        self._clients.pop(worker.instance_id, None)
        self._observe(self._observer.worker_died, worker.target.name)
        self._observe(self._observer.unloaded, worker.target.name, "crashed")
        self._remember_fault(worker)
        running = list(worker.requests.values())
        restartable = frozenset(request.id for request in running if request.try_restart())
        for request in running:
            if request.is_detached:
                self._requests.pop(request.id, None)
        is_gone = worker.is_gone
        if is_gone:
            self._cache_memory.take_back(worker.instance_id)
        self._process(
            events.WorkerLost(
                worker.instance_id, reason, restartable, is_gone=is_gone, has_aborted=has_aborted
            )
        )
        self._share_cache_memory()
        if not is_gone:
            self._create_task(self._wait_lingering(worker))

    async def _load(self, client: WorkerClient, plan: LoadPlan) -> None:
        """Start the worker and report the outcome. If it is stopped meanwhile, the stop reports."""
        name = client.target.name
        if client.target.key in self._without_kernels:
            spec = msgspec.structs.replace(plan.spec, avoids_kernels=True)
            plan = msgspec.structs.replace(plan, spec=spec)
        log.info("%s: loading, %d slots of %d tokens", name, plan.slots, plan.num_ctx)
        began_ns = perf_counter_ns()
        event: events.WorkerReady | events.WorkerLoadFailed
        try:
            await self._wait_for_predecessor(client)
            ready = await client.start(self._add_cache_memory(client.instance_id, plan))
        except Exception as fault:  # the boundary "task supervisor": its requests must be failed
            error = fault if isinstance(fault, ServerError) else LoadFailed(repr(fault))
            if error is not fault:
                log.exception("loading %s", name)
            event = events.WorkerLoadFailed(
                client.instance_id, error.code, error.message, client.is_gone
            )
            self._remember_fault(client)
        else:
            if ready.kernels:
                log.info("%s: kernels: %s", name, ready.kernels)
            event = events.WorkerReady(client.instance_id, ready.slots, ready.num_ctx)
        took_s = (perf_counter_ns() - began_ns) / 1e9
        has_failed = isinstance(event, events.WorkerLoadFailed)
        outcome = "cancelled" if client.is_stopping else "failed" if has_failed else "ok"
        self._observe(self._observer.loaded, name, outcome, took_s)
        if client.is_stopping:
            return
        log.info("%s: load %s after %.2f s", name, outcome, took_s)
        if has_failed:
            self._clients.pop(client.instance_id, None)
            if client.is_gone:
                self._cache_memory.take_back(client.instance_id, is_kept=False)
        self._process(event)
        self._share_cache_memory()
        if isinstance(event, events.WorkerLoadFailed) and not event.is_gone:
            await self._wait_lingering(client)

    def _remember_fault(self, worker: WorkerClient) -> None:
        """Later loads of the model do without our own kernels if they may be to blame."""
        if worker.blames_kernels and worker.target.key not in self._without_kernels:
            log.warning("%s: from now on with stock kernels", worker.target.name)
            self._without_kernels.add(worker.target.key)

    async def _stop(self, client: WorkerClient, reason: str) -> None:
        try:
            await client.stop(self._stop_grace_s)
        except Exception:  # as above: the memory must not stay reserved
            log.exception("stopping %s", client.target.name)
        self._clients.pop(client.instance_id, None)
        log.info("%s: unloaded (%s)", client.target.name, reason)
        self._observe(self._observer.unloaded, client.target.name, reason)
        if client.is_gone:
            self._cache_memory.take_back(client.instance_id)
            self._process(events.WorkerStopped(client.instance_id))
            self._share_cache_memory()
        else:
            self._process(events.WorkerLost(client.instance_id, "it does not stop", is_gone=False))
            await self._wait_lingering(client)

    async def _wait_lingering(self, client: WorkerClient) -> None:
        """Report the exit of a process that SIGKILL did not end; until then its memory is taken."""
        log.error("%s: its process still holds its memory", client.target.name)
        await client.wait_gone()
        log.info("%s: its process is gone at last", client.target.name)
        self._cache_memory.take_back(client.instance_id)
        self._process(events.WorkerStopped(client.instance_id))
        self._share_cache_memory()

    async def _wait_for_predecessor(self, client: WorkerClient) -> None:
        """A worker of the same model that is ending has its prompt cache until it is gone."""
        for other in list(self._clients.values()):
            if other.is_stopping and not other.is_gone and other.target.key == client.target.key:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PREDECESSOR_WAIT_S):
                        await other.wait_gone()
                    self._cache_memory.take_back(other.instance_id)

    def _add_cache_memory(self, instance_id: int, plan: LoadPlan) -> LoadPlan:
        """The plan with memory for a prompt cache, for which the other caches may have to give way;
        without, if there is none.
        """
        plan = self._cache_memory.lend(instance_id, plan)
        spec = msgspec.structs.replace(plan.spec, cache_bytes=self._share_cache_memory())
        return msgspec.structs.replace(plan, spec=spec) if spec.cache_fd >= 0 else plan

    def _share_cache_memory(self) -> int:
        """Divide among the prompt caches what models leave free; returns the share of each."""
        instances = self._scheduler.state.instances.values()
        demand = sum(instance.plan.demand.get(CPU, 0) for instance in instances)
        share = self._cache_memory.share_out(self._host_bytes - demand)
        for client in self._clients.values():
            client.limit_cache(share)
        return share

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
            self._timer = self._loop.call_at(at, self._process, events.TimerFired())

    def _plan(self, target: Target, options: LoadOptions) -> Sequence[Plan]:
        """The planner, with its faults logged; the scheduler turns them into refusals."""
        try:
            return self._planner(target, options)
        except ServerError:
            raise
        except Exception:
            log.exception("planning %s", target.name)
            raise
