"""How much memory the loads take, and whether one more fits.

Memory counts as taken from the moment a load is committed until its worker is told to stop. (A
worker starts only when the bytes are really free, see :mod:`.reconciler`.) A worker that does not
stop counts until its process is gone: no load may depend on when that will be.

Older loads have priority. What an older load will free and take is a *reservation*. A younger load
may go ahead only if it fits both now and after all reservations. So it never delays an older load,
and does not wait for one either if there is memory for both.
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
"""The number of models is limited like the bytes of a device, of which each model takes one."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One way to load a model. ``demand`` maps device ids to bytes; ``num_ctx`` is tokens per slot.

    A subclass carries what is needed only to start the worker.
    """

    demand: dict[str, int]
    slots: int
    num_ctx: int


Planner = Callable[[Target, LoadOptions], Sequence[Plan]]
"""Every way to load a model, best first: on each device that may hold it, perhaps also with a
smaller context.

It must be harmless to call twice. It may raise a :class:`~ollama_async.core.errors.ServerError`,
with which the requests for the model then fail.
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds. ``capacity`` maps device ids to bytes for models; ``max_loaded`` 0 means three
    models for each GPU; ``keep_alive_s`` is the default of requests.
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
    """Memory as it is committed at one moment, and as it will be after all reservations."""

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

    def commit(self, plan: Plan, freed: Sequence[Plan] = ()) -> None:
        """The load is decided, and what it replaces is being stopped."""
        self.reserve(plan, freed)
        _add(self._now, [plan])
        _add(self._now, freed, sign=-1)

    def reserve(self, plan: Plan, freed: Sequence[Plan]) -> None:
        """The load will follow when the plans in ``freed`` are unloaded."""
        _add(self._later, [plan])
        _add(self._later, freed, sign=-1)


def _add(usage: Counter[str], plans: Iterable[Plan], sign: int = 1) -> None:
    for plan in plans:
        usage[_MODELS] += sign
        for device, size_bytes in plan.demand.items():
            usage[device] += sign * size_bytes
