"""Keep-alive: when an idle model instance expires and is unloaded."""

from __future__ import annotations

import math

from ollama_async.queue.state import ModelInstance, SchedulerState


def keep_alive_s(state: SchedulerState, instance: ModelInstance) -> float:
    """How long the instance is kept when idle: as the last request that set it asked for, else the
    server's default; inf = never unload.
    """
    default_s = state.limits.keep_alive_s
    return default_s if instance.keep_alive_s is None else instance.keep_alive_s


def expires_at(state: SchedulerState, instance: ModelInstance) -> float:
    """When an idle instance is unloaded; inf while any request runs on it or waits for it. A load
    whose requests have all been cancelled is idle, too.
    """
    if not instance.is_unused or instance.target.key in state.queues:
        return math.inf
    return instance.idle_since + keep_alive_s(state, instance)


def shown_expiry_s(state: SchedulerState, instance: ModelInstance, now: float) -> float:
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
