"""Reconciles the scheduler's state, in the same way after every event.

Expired instances are stopped. Pending loads are committed, oldest first, or drain what they evict.
Free places are filled. Committed loads whose memory is free are started. The timer is set.

Draining is not stored, but derived each time from the queued requests. So it ends with the last
request that needs it, and new requests for the draining instance do not end it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ollama_async.core.errors import LoadFailed, ServerError, ShuttingDown
from ollama_async.queue.backend import LoadOptions
from ollama_async.queue.events import SHUTDOWN_TEXT, WakeAt
from ollama_async.queue.eviction import Eviction, Feasibility, PendingLoad, evictable_at
from ollama_async.queue.fair_queue import FairQueue, QueuedRequest
from ollama_async.queue.keep_alive import expires_at
from ollama_async.queue.loading_policy import exceeds_context, feasible_plans, merge, residence_s
from ollama_async.queue.memory_budget import MemoryBudget, Plan, Planner
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState


def reconcile(state: SchedulerState, planner: Planner, now: float) -> None:
    """Do what can be done now, and set the timer for the rest."""
    _stop_unused(state, now)
    retry_at = _commit_loads(state, planner, now)
    while _fill_places(state, now):
        retry_at = _commit_loads(state, planner, now)
    _start_loads(state, now)
    _set_timer(state, retry_at, now)


def _stop_unused(state: SchedulerState, now: float) -> None:
    for instance in list(state.current.values()):
        if state.kill_at <= now and instance.is_ready:
            for request in list(instance.requests.values()):
                state.fail(request, ShuttingDown(SHUTDOWN_TEXT))
        if instance.is_unused and instance.stop_when_unused:
            state.stop(instance, instance.stop_when_unused)
        elif expires_at(state, instance) <= now:
            state.stop(instance, "idle")


def _commit_loads(state: SchedulerState, planner: Planner, now: float) -> list[float]:
    """Returns when the instances to be evicted are evictable."""
    for instance in state.current.values():
        instance.is_draining = False
        residence_ends_at = instance.ready_at + residence_s(instance.load_s)
        instance.is_residence_over = instance.is_ready and residence_ends_at <= now
    retry_at: list[float] = []
    if not state.queues:
        return retry_at
    planned = _plan_loads(state, planner)
    eviction = Eviction(state, now)
    for load, options, plans in planned:
        choice = eviction.choose(load, plans)
        if choice.feasibility is Feasibility.COMMIT:
            for victim in choice.victims:
                state.stop(victim, "reload" if victim is load.replaced else "evicted")
            state.commit(load.first.target, options, choice.plan, now)
        elif choice.feasibility is not Feasibility.BLOCKED:
            for victim in choice.victims:
                victim.is_draining = choice.feasibility is Feasibility.DRAIN
                retry_at.append(evictable_at(victim))
    return retry_at


def _plan_loads(
    state: SchedulerState, planner: Planner
) -> list[tuple[PendingLoad, LoadOptions, Sequence[Plan]]]:
    """All pending loads with their plans, oldest first. A request without a plan fails, and another
    may then be first.
    """
    while True:
        found = [
            _pending_load(queue, state.current.get(key)) for key, queue in state.queues.items()
        ]
        loads = sorted((load for load in found if load), key=lambda load: load.first.id)
        planned = [(load, _plan(state, planner, load)) for load in loads]
        possible = [(load, *plans) for load, plans in planned if plans is not None]
        if len(possible) == len(loads):
            return possible


def _plan(
    state: SchedulerState, planner: Planner, load: PendingLoad
) -> tuple[LoadOptions, Sequence[Plan]] | None:
    """Plans for all queued requests, with a context that may grow, else for the first request
    alone. None: that has failed.
    """
    first, target = load.first, load.first.target

    def plans(options: LoadOptions) -> Sequence[Plan]:
        return feasible_plans(planner, state.limits.capacity, target, options)

    loaded_ctx = load.replaced.num_ctx if load.replaced else None
    merged = merge(first.load_options, load.queue.load_options, loaded_ctx, target)
    error: Exception | None = None
    for options in (merged, first.load_options):
        try:
            return options, load.queue.plans(options, plans)
        except Exception as fault:  # noqa: BLE001  # other requests must still be served
            error = fault
    if not isinstance(error, ServerError):
        error = LoadFailed(f"the load cannot be planned: {error!r}")
    state.fail(first, error)
    return None


def _fill_places(state: SchedulerState, now: float) -> bool:
    """True: requests that only load have ended, and no event will follow for those behind them."""
    before = len(state.requests)
    for instance in list(state.current.values()):
        state.fill(instance, now)
    return len(state.requests) < before


def _start_loads(state: SchedulerState, now: float) -> None:
    """Start the committed loads that fit beside all existing workers, stopping ones included."""
    instances = state.instances.values()
    committed = [each for each in instances if each.phase is Phase.COMMITTED]
    if not committed:
        return
    existing = (each.plan for each in instances if each.phase is not Phase.COMMITTED)
    budget = MemoryBudget(state.limits, existing)
    for instance in committed:
        if budget.has_space(instance.plan):
            budget.add(instance.plan)
            state.load(instance, now)


def _set_timer(state: SchedulerState, retry_at: Sequence[float], now: float) -> None:
    moments = [moment for moment in retry_at if moment > now]
    for instance in state.current.values():
        moments += [expires_at(state, instance), instance.trial_ends_at, state.kill_at]
    earliest = min(moments, default=math.inf)
    at = None if earliest == math.inf else earliest
    if at != state.wake_at:
        state.wake_at = at
        state.effects.append(WakeAt(at))


def _pending_load(queue: FairQueue, loaded: ModelInstance | None) -> PendingLoad | None:
    """The load that a model's queue needs. An instance that will stop is not replaced before."""
    heads: Iterable[QueuedRequest] = queue.heads()
    is_growth = False
    if loaded is not None:
        if loaded.stop_when_unused or all(map(loaded.satisfies, queue.load_options)):
            return None
        heads = [head for head in heads if not loaded.satisfies(head.load_options)]
        if not heads:
            return None
        is_growth = any(exceeds_context(head.load_options, loaded.num_ctx) for head in heads)
    return PendingLoad(min(heads, key=lambda request: request.id), queue, loaded, is_growth)
