"""Snapshots of the queue and the workers, for metrics, health and ``/api/ps``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from ollama_async.queue.backend import LoadedModel, Snapshot
from ollama_async.queue.eviction import keep_alive_s
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState
from ollama_async.workers.client import WorkerClient
from ollama_async.workers.messages import Heartbeat

_DRIFT_S = 1.0


class Snapshots:
    """Takes snapshots. Each model's expiry is wall-clock time, computed once for each use of the
    model, and again when the clocks have drifted apart (one was set, or the machine slept).
    """

    def __init__(self) -> None:
        self._expiries: dict[int, tuple[tuple[float, float], float]] = {}
        """By instance: last use and time until the expiry, and the expiry itself."""

    def take(
        self, state: SchedulerState, clients: Mapping[int, WorkerClient], now: float
    ) -> Snapshot:
        """``now`` is of the scheduler's clock. Promised places count as running."""
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
                _loaded_model(instance, clients[instance.id], self._expiries[instance.id][1])
                for instance in ready
            ],
            loading=sum(
                instance.phase in {Phase.COMMITTED, Phase.LOADING} for instance in instances
            ),
        )

    def _expiry(
        self, state: SchedulerState, instance: ModelInstance, now: float
    ) -> tuple[tuple[float, float], float]:
        expiry_s = _shown_expiry_s(state, instance, now)
        use = (instance.idle_since, expiry_s)
        expires_at = time.time() - (now - instance.idle_since) + expiry_s
        shown = self._expiries.get(instance.id)
        if shown is None or shown[0] != use or abs(expires_at - shown[1]) > _DRIFT_S:
            return use, expires_at
        return shown


def _shown_expiry_s(state: SchedulerState, instance: ModelInstance, now: float) -> float:
    """Seconds from the last use until the expiry. A request that runs for longer than
    ``keep_alive`` extends it by another ``keep_alive``, and so on. An instance that will stop has
    expired already.
    """
    if instance.stop_when_unused is not None:
        return -1.0
    duration_s = keep_alive_s(state, instance)
    used_s = now - instance.idle_since
    if instance.requests and 0 < duration_s <= used_s:
        return duration_s * (used_s // duration_s + 1)
    return duration_s


def _loaded_model(instance: ModelInstance, client: WorkerClient, expires_at: float) -> LoadedModel:
    facts, heartbeat = client.facts, client.heartbeat or Heartbeat(0, 0.0)
    assert facts is not None, "the scheduler knows it as ready"
    return LoadedModel(
        target=instance.target,
        size=facts.weights_bytes + facts.cache_bytes + facts.compute_bytes,
        size_vram=facts.device_bytes,
        num_ctx=facts.num_ctx,
        slots=instance.slots,
        running=len(instance.requests),
        busy_slots=heartbeat.busy_slots,
        cache_used=heartbeat.cache_used,
        expires_at=expires_at,
    )
