"""What loading a model would take, and what the machine has: the facts the scheduler weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from ollama_async.hw.placement import CPU
from ollama_async.queue.port import Needs, Target

_MODELS_PER_DEVICE = 3
"""Ollama's default: three models for each GPU, three on a machine without one."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One way to load a model. ``demand`` maps device ids to bytes; ``num_ctx`` is tokens per slot.

    Subclasses carry what only the performer of a load needs.
    """

    demand: dict[str, int]
    slots: int
    num_ctx: int


Planner = Callable[[Target, Needs], Sequence[Plan]]
"""Every way to load a model, best first: each device that may hold it, perhaps with fewer slots.

The scheduler takes the first that has room, else the first for which room can be made. Pure as far
as the scheduler is concerned; may raise a :class:`~ollama_async.errors.ServerError`, which is then
what the requests are told.
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What may never be exceeded. ``capacity`` maps device ids to bytes for models.

    ``max_loaded`` 0 means three for each GPU. ``keep_alive_s`` is for requests that say nothing.
    """

    max_queue: int
    capacity: Mapping[str, int]
    max_loaded: int = 0
    keep_alive_s: float = 300.0

    @property
    def models(self) -> int:
        """How many models may be in memory at a time."""
        gpus = sum(device != CPU for device in self.capacity)
        return self.max_loaded or _MODELS_PER_DEVICE * max(1, gpus)

    def is_possible(self, plan: Plan) -> bool:
        """Whether the plan fits a machine on which nothing else is loaded."""
        return all(need <= self.capacity.get(device, 0) for device, need in plan.demand.items())
