"""Eviction policy: which loaded model makes space for which load.

A load evicts as few instances as possible, in the order of :meth:`Eviction._rank`. None of them may
have been loaded just now (:func:`evictable_at`) or be evicted for an older load. Instances in use
drain first: they finish their requests and start no new ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from ollama_async.queue.fair_queue import FairQueue, QueuedRequest
from ollama_async.queue.memory_budget import MemoryBudget, Plan
from ollama_async.queue.state import ModelInstance, Phase, SchedulerState

_PROTECTION_PER_LOAD = 3.0
_MIN_PROTECTION_S, _MAX_PROTECTION_S = 1.0, 30.0

_MIN_GROWTH = 1.25
"""A context that grows by less (near the memory limit, where it cannot double) waits until the
instance is evictable: small increments would cause many loads.
"""


def evictable_at(instance: ModelInstance) -> float:
    """When the protection of a loaded instance in use ends: three times as long as its load took,
    within bounds. So loading takes at most a quarter of the time, and waits for memory are bounded.
    """
    if not instance.is_ready:
        return instance.ready_at
    protection_s = _PROTECTION_PER_LOAD * instance.load_s
    return instance.ready_at + min(_MAX_PROTECTION_S, max(_MIN_PROTECTION_S, protection_s))


class PendingLoad(msgspec.Struct, frozen=True):
    """A load that queued requests need. ``first`` is the oldest of their clients' first requests;
    it determines the load's priority.

    ``replaced``: the model's loaded instance, which does not satisfy them. ``is_growth``: they need
    a larger context. ``replaced`` is not protected from enough growth, since contexts never shrink.
    """

    first: QueuedRequest
    queue: FairQueue
    replaced: ModelInstance | None = None
    is_growth: bool = False


class Feasibility(IntEnum):
    """How soon a load is possible, best first. COMMIT: nothing that it evicts is in use. DRAIN:
    victims have running requests. WAIT: some victims are still protected. BLOCKED: older loads
    have reserved the memory.
    """

    COMMIT = 0
    DRAIN = 1
    WAIT = 2
    BLOCKED = 3


class Choice(msgspec.Struct, frozen=True):
    """A plan for a load, and the instances to evict for it."""

    plan: Plan
    victims: list[ModelInstance]
    feasibility: Feasibility


class Eviction:
    """Chooses victims for one load after the other, oldest first, at one moment."""

    def __init__(self, state: SchedulerState, now: float) -> None:
        self._state = state
        self._now = now
        self._instances = [
            instance
            for instance in state.instances.values()
            if instance.phase is not Phase.STOPPING
        ]
        self._budget = MemoryBudget(state.limits, _plans(self._instances))

    def choose(self, load: PendingLoad, plans: Sequence[Plan]) -> Choice:
        """The best feasibility; among equals the first plan that evicts no other model, else the
        first. Unless it is BLOCKED, younger loads cannot have its memory.
        """

        def evicts_others(choice: Choice) -> bool:
            return any(victim is not load.replaced for victim in choice.victims)

        choices = [self._choice(load, plan) for plan in plans]
        best = min(choices, key=lambda choice: (choice.feasibility, evicts_others(choice)))
        if best.feasibility is not Feasibility.BLOCKED:
            is_now = best.feasibility is Feasibility.COMMIT
            self._budget.add(best.plan, _plans(best.victims), is_now=is_now)
            self._instances = [other for other in self._instances if other not in best.victims]
        return best

    def _choice(self, load: PendingLoad, plan: Plan) -> Choice:
        victims = self._victims(plan, load.replaced)
        if victims is None:
            return Choice(plan, [], Feasibility.BLOCKED)
        if not all(self._can_evict(victim, load, plan) for victim in victims):
            return Choice(plan, victims, Feasibility.WAIT)
        is_unused = all(victim.is_unused for victim in victims)
        return Choice(plan, victims, Feasibility.COMMIT if is_unused else Feasibility.DRAIN)

    def _victims(self, plan: Plan, replaced: ModelInstance | None) -> list[ModelInstance] | None:
        """What to evict so that ``plan`` fits: ``replaced`` always, then as few others as possible
        by rank. None: it does not fit beside older reservations.
        """
        if replaced is not None and replaced not in self._instances:
            return None
        victims = [replaced] if replaced else []
        candidates = [
            instance
            for instance in self._instances
            if not instance.phase.is_ending and instance is not replaced
        ]
        for candidate in sorted(candidates, key=self._rank):
            if self._has_space(plan, victims):
                break
            victims.append(candidate)
        if not self._has_space(plan, victims):
            return None
        for victim in [victim for victim in victims if victim is not replaced]:
            rest = [other for other in victims if other is not victim]
            if self._has_space(plan, rest):
                victims = rest
        return victims

    def _has_space(self, plan: Plan, victims: Sequence[ModelInstance]) -> bool:
        return self._budget.has_space(plan, _plans(victims))

    def _can_evict(self, instance: ModelInstance, load: PendingLoad, plan: Plan) -> bool:
        """Whether the instance may be stopped, or drained, for the load."""
        if not (instance.is_ready or instance.is_unused):
            return False  # it is loading, and its places are promised
        if evictable_at(instance) <= self._now or instance.stop_when_unused is not None:
            return True
        if instance is load.replaced:
            return load.is_growth and plan.num_ctx >= _MIN_GROWTH * instance.num_ctx
        return self._state.is_idle(instance)

    def _rank(self, instance: ModelInstance) -> tuple[float, ...]:
        """Eviction order: idle instances (least recently used first, those to be kept forever
        last), those that will stop, those in use by the age of their load, so that models take
        turns, and last those that cannot be evicted yet.
        """
        if self._state.is_idle(instance):
            is_pinned = instance.keep_alive_s == math.inf
            return (0, is_pinned, instance.idle_since, instance.id)
        if instance.stop_when_unused is not None:
            return (1, instance.id)
        if instance.is_ready:
            return (2, evictable_at(instance) > self._now, instance.ready_at, instance.id)
        return (3, instance.id)


def _plans(instances: Sequence[ModelInstance]) -> list[Plan]:
    return [instance.plan for instance in instances]
