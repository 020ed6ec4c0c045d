"""Memory accounting: how much the loads take, and whether one more fits.

Memory counts as taken from the commitment of a load until its worker is being stopped. (A worker
starts only when the bytes are free, see :mod:`.reconciler`.) A worker that does not stop counts
until its process is gone.

Older loads have priority: what they will free and take is a *reservation*. A younger load may go
ahead only if it fits both now and after all reservations, so it never delays an older one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from ollama_async.hw.placement import CPU
from ollama_async.queue.backend import LoadOptions, Target

_MODELS_PER_DEVICE = 3
"""Ollama's default: three models for each GPU, three on a machine without one."""

_MODELS = "models"
"""The number of models is a device, of which each model takes one byte."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One way to load a model. ``demand`` maps device ids to bytes; ``num_ctx`` is tokens per slot.
    Subclasses add what the worker needs.
    """

    demand: dict[str, int]
    slots: int
    num_ctx: int


Planner = Callable[[Target, LoadOptions], Sequence[Plan]]
"""Every way to load a model, best first: on each device, perhaps also with a smaller context.

It has no side effects. Requests for the model fail with the ``ServerError`` that it raises.
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """``capacity`` maps device ids to bytes for models; ``max_loaded`` 0 means three models for
    each GPU; ``keep_alive_s`` is the default of requests.
    """

    max_queue: int
    capacity: Mapping[str, int]
    max_loaded: int = 0
    keep_alive_s: float = 300.0

    @property
    def gpus(self) -> int:
        return sum(device != CPU for device in self.capacity)

    @property
    def models(self) -> int:
        """How many models may be in memory at a time."""
        return self.max_loaded or _MODELS_PER_DEVICE * max(1, self.gpus)


class MemoryBudget:
    """Memory that is committed now, and that will be after all reservations."""

    def __init__(self, limits: Limits, plans: Iterable[Plan]) -> None:
        self._capacity = {**limits.capacity, _MODELS: limits.models}
        self._now: Counter[str] = Counter()
        _add(self._now, plans)
        self._later = self._now.copy()

    def has_space(self, plan: Plan, freed: Iterable[Plan] = ()) -> bool:
        """Whether ``plan`` fits, now and later, once the plans in ``freed`` are unloaded."""
        needed: Counter[str] = Counter()
        _add(needed, freed, sign=-1)
        _add(needed, [plan])
        return all(
            used[device] + needed[device] <= self._capacity.get(device, 0)
            for used in (self._now, self._later)
            for device in (*plan.demand, _MODELS)
        )

    def add(self, plan: Plan, freed: Sequence[Plan] = (), *, is_now: bool = True) -> None:
        """Commit ``plan``, or reserve it until the plans in ``freed`` are unloaded."""
        for used in (self._now, self._later) if is_now else (self._later,):
            _add(used, [plan])
            _add(used, freed, sign=-1)


def _add(usage: Counter[str], plans: Iterable[Plan], sign: int = 1) -> None:
    for plan in plans:
        usage[_MODELS] += sign
        for device, size_bytes in plan.demand.items():
            usage[device] += sign * size_bytes
