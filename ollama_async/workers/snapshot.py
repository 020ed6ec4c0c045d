"""Snapshots of the queue and the workers, for metrics, health and ``/api/ps``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from ollama_async.queue.backend import LoadedModel, Snapshot
from ollama_async.queue.keep_alive import shown_expiry_s
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState
from ollama_async.workers.client import WorkerClient
from ollama_async.workers.messages import Heartbeat

_DRIFT_S = 1.0


class Snapshots:
    """Takes snapshots. Each model's expiry is wall-clock time, computed once for each use of the
    model, and again when the clocks have drifted apart (one was set, or the machine slept).
    """

    def __init__(self) -> None:
        self._shown: dict[tuple[int, float, float], float] = {}
        """The expiry by instance, last use, and time from that until the expiry."""

    def take(
        self, state: SchedulerState, clients: Mapping[int, WorkerClient], now: float
    ) -> Snapshot:
        """``now`` is of the scheduler's clock. Promised places count as running."""
        running: Counter[str] = Counter()
        loaded: list[LoadedModel] = []
        shown, self._shown = self._shown, {}
        for instance in state.instances.values():
            running[instance.target.name] += len(instance.requests)
            if instance.is_ready:
                use = (instance.id, instance.idle_since, shown_expiry_s(state, instance, now))
                expires_at = time.time() - (now - instance.idle_since) + use[2]
                if use in shown and abs(expires_at - shown[use]) <= _DRIFT_S:
                    expires_at = shown[use]
                self._shown[use] = expires_at
                loaded.append(_loaded_model(instance, clients[instance.id], expires_at))
        phases = Counter(instance.phase for instance in state.instances.values())
        return Snapshot(
            queued=state.queued,
            capacity=state.limits.max_queue,
            running=dict(running),
            loaded=loaded,
            loading=phases[Phase.COMMITTED] + phases[Phase.LOADING],
        )


def _loaded_model(instance: ModelInstance, client: WorkerClient, expires_at: float) -> LoadedModel:
    facts, heartbeat = client.facts, client.heartbeat or Heartbeat(0, 0.0)
    assert facts is not None, "the scheduler knows it as ready"
    return LoadedModel(
        target=instance.target,
        size=facts.weights_bytes + facts.cache_bytes + facts.compute_bytes,
        size_vram=facts.device_bytes,
        num_ctx=facts.num_ctx,
        slots=instance.slots,
        kernels=("own" if facts.has_own_kernels else "stock") if facts.kernels else "",
        running=len(instance.requests),
        busy_slots=heartbeat.busy_slots,
        cache_used=heartbeat.cache_used,
        expires_at=expires_at,
        stored_bytes=heartbeat.stored_bytes,
        stored_states=heartbeat.stored_states,
    )
