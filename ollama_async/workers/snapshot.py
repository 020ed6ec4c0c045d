"""What the queue and the workers look like from outside at one moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from ollama_async.queue.backend import LoadedModel, Snapshot
from ollama_async.queue.keep_alive import shown_expiry_s
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState
from ollama_async.workers.runner import Runner

_DRIFT_S = 1.0


def take_snapshot(state: SchedulerState, runners: Mapping[int, Runner], now: float) -> Snapshot:
    """``now`` is of the clock that the scheduler is told. Promises count as running."""
    running: Counter[str] = Counter()
    for instance in state.instances.values():
        running[instance.target.name] += len(instance.requests)
    return Snapshot(
        waiting=state.waiting,
        capacity=state.limits.max_queue,
        running=dict(running),
        loaded=[
            _describe(
                instance,
                runners[instance.id],
                _expires_at(state, instance, runners[instance.id], now),
            )
            for instance in state.instances.values()
            if instance.is_ready
        ],
        loading=sum(
            instance.phase in {Phase.COMMITTED, Phase.LOADING}
            for instance in state.instances.values()
        ),
    )


def _describe(instance: ModelInstance, runner: Runner, expires_at: float) -> LoadedModel:
    facts, vitals = runner.facts, runner.last_vitals
    assert facts is not None, "the scheduler was told that it is ready"
    return LoadedModel(
        target=instance.target,
        size=facts.weights_bytes + facts.cache_bytes + facts.compute_bytes,
        size_vram=facts.device_bytes,
        num_ctx=facts.num_ctx,
        slots=instance.slots,
        running=len(instance.requests),
        busy_slots=vitals.busy_slots if vitals else 0,
        cache_used=vitals.cache_used if vitals else 0.0,
        expires_at=expires_at,
    )


def _expires_at(
    state: SchedulerState, instance: ModelInstance, runner: Runner, now: float
) -> float:
    """Wall clock. It is found once for each use of the model, because two clocks are never read at
    one moment; and again when they have drifted apart (somebody set one, the machine slept).
    """
    expiry_s = shown_expiry_s(state, instance, now)
    moment = time.time() - (now - instance.idle_since) + expiry_s
    use = (instance.idle_since, expiry_s)
    if use != runner.shown_use or abs(moment - runner.shown_expiry) > _DRIFT_S:
        runner.shown_use, runner.shown_expiry = use, moment
    return runner.shown_expiry
