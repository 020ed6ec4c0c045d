"""The state of the queue and the workers at one moment, for metrics, health and ``/api/ps``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from ollama_async.queue.backend import LoadedModel, Snapshot
from ollama_async.queue.keep_alive import shown_expiry_s
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState
from ollama_async.workers.client import WorkerClient

_DRIFT_S = 1.0


class Snapshots:
    """Takes snapshots, and remembers when each model was shown to expire.

    That moment is wall-clock time. It is computed once for each use of the model, because two
    clocks are never read at one moment, and again when they have drifted apart (somebody set one,
    the machine slept).
    """

    def __init__(self) -> None:
        self._expiries: dict[int, tuple[tuple[float, float], float]] = {}  # by worker: use, moment

    def take(
        self, state: SchedulerState, clients: Mapping[int, WorkerClient], now: float
    ) -> Snapshot:
        """``now`` is of the scheduler's clock. Promises of a slot count as running."""
        instances = state.instances.values()
        running: Counter[str] = Counter()
        for instance in instances:
            running[instance.target.name] += len(instance.requests)
        ready = [instance for instance in instances if instance.is_ready]
        self._expiries = {instance.id: self._expiry(state, instance, now) for instance in ready}
        return Snapshot(
            queued=state.queued,
            capacity=state.limits.max_queue,
            running=dict(running),
            loaded=[
                _describe(instance, clients[instance.id], self._expiries[instance.id][1])
                for instance in ready
            ],
            loading=sum(
                instance.phase in {Phase.COMMITTED, Phase.LOADING} for instance in instances
            ),
        )

    def _expiry(
        self, state: SchedulerState, instance: ModelInstance, now: float
    ) -> tuple[tuple[float, float], float]:
        expiry_s = shown_expiry_s(state, instance, now)
        use = (instance.idle_since, expiry_s)
        moment = time.time() - (now - instance.idle_since) + expiry_s
        shown = self._expiries.get(instance.id)
        if shown is None or shown[0] != use or abs(moment - shown[1]) > _DRIFT_S:
            return use, moment
        return shown


def _describe(instance: ModelInstance, client: WorkerClient, expires_at: float) -> LoadedModel:
    facts, heartbeat = client.facts, client.heartbeat
    assert facts is not None, "the scheduler knows it as ready"
    return LoadedModel(
        target=instance.target,
        size=facts.weights_bytes + facts.cache_bytes + facts.compute_bytes,
        size_vram=facts.device_bytes,
        num_ctx=facts.num_ctx,
        slots=instance.slots,
        running=len(instance.requests),
        busy_slots=heartbeat.busy_slots if heartbeat else 0,
        cache_used=heartbeat.cache_used if heartbeat else 0.0,
        expires_at=expires_at,
    )
