"""What the queue and the workers look like from outside at one moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from ollama_async.queue.backend import LoadedModel, Snapshot
from ollama_async.queue.state import Books
from ollama_async.queue.stay import Phase, Stay
from ollama_async.workers.runner import Runner

_DRIFT_S = 1.0


def take_snapshot(books: Books, runners: Mapping[int, Runner], now: float) -> Snapshot:
    """``now`` is of the clock that the scheduler is told. Promises count as running."""
    running: Counter[str] = Counter()
    for stay in books.stays.values():
        running[stay.target.name] += len(stay.tickets)
    return Snapshot(
        waiting=books.waiting,
        capacity=books.limits.max_queue,
        running=dict(running),
        loaded=[
            _describe(
                stay, runners[stay.worker], _expires_at(books, stay, runners[stay.worker], now)
            )
            for stay in books.stays.values()
            if stay.is_ready
        ],
        loading=sum(
            stay.phase in {Phase.COMMITTED, Phase.LOADING} for stay in books.stays.values()
        ),
    )


def _describe(stay: Stay, runner: Runner, expires_at: float) -> LoadedModel:
    facts, vitals = runner.facts, runner.last_vitals
    assert facts is not None, "the scheduler was told that it is ready"
    return LoadedModel(
        target=stay.target,
        size=facts.weights_bytes + facts.cache_bytes + facts.compute_bytes,
        size_vram=facts.device_bytes,
        num_ctx=facts.num_ctx,
        slots=stay.slots,
        running=len(stay.tickets),
        busy_slots=vitals.busy_slots if vitals else 0,
        cache_used=vitals.cache_used if vitals else 0.0,
        expires_at=expires_at,
    )


def _expires_at(books: Books, stay: Stay, runner: Runner, now: float) -> float:
    """Wall clock. It is found once for each use of the model, because two clocks are never read at
    one moment; and again when they have drifted apart (somebody set one, the machine slept).
    """
    stays_s = _stays_s(books.expires_after_s(stay), stay, now)
    moment = time.time() - (now - stay.idle_since) + stays_s
    use = (stay.idle_since, stays_s)
    if use != runner.shown_use or abs(moment - runner.shown_expiry) > _DRIFT_S:
        runner.shown_use, runner.shown_expiry = use, moment
    return runner.shown_expiry


def _stays_s(keep_alive_s: float, stay: Stay, now: float) -> float:
    """How long the model stays from its last use. A running request that takes longer than that
    has it stay for another ``keep_alive``; a model that leaves has expired already.
    """
    if stay.leaving is not None:
        return -1.0
    used_s = now - stay.idle_since
    if stay.tickets and 0 < keep_alive_s <= used_s:
        return keep_alive_s * (used_s // keep_alive_s + 1)
    return keep_alive_s
