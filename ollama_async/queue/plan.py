"""What loading a model would take, and what the machine has: the facts the scheduler weighs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from ollama_async.core.errors import LoadFailed
from ollama_async.hw.placement import CPU
from ollama_async.queue.backend import LoadOptions, Target

_MODELS_PER_DEVICE = 3
"""Ollama's default: three models for each GPU, three on a machine without one."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One way to load a model. ``demand`` maps device ids to bytes; ``num_ctx`` is tokens per slot.

    Subclasses carry what only the performer of a load load_options.
    """

    demand: dict[str, int]
    slots: int
    num_ctx: int


Planner = Callable[[Target, LoadOptions], Sequence[Plan]]
"""Every way to load a model, best first: each device that may hold it, perhaps with less context.

Pure as far as the scheduler is concerned; may raise a
:class:`~ollama_async.core.errors.ServerError`, which is then what the requests are told.
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
    def gpus(self) -> int:
        return sum(device != CPU for device in self.capacity)

    @property
    def models(self) -> int:
        """How many models may be in memory at a time."""
        return self.max_loaded or _MODELS_PER_DEVICE * max(1, self.gpus)


class Plans:
    """A planner, asked within limits."""

    def __init__(self, limits: Limits, planner: Planner) -> None:
        self._capacity = limits.capacity
        self._planner = planner

    def possible(self, target: Target, load_options: LoadOptions) -> list[Plan]:
        """What to choose from, best first: for each device the first plan that fits while nothing
        else is loaded, then those with fewer slots for the same context; the CPU only if no GPU can
        hold the model. So an idle model is evicted rather than another run on the CPU, ten times as
        slowly, or with less context, and another GPU taken rather than fewer slots.

        The scheduler takes the first that has room, else the first for which room can be made.

        :raises LoadFailed: there is none.
        :raises ServerError: the planner's own reason.
        """
        plans = self._planner(target, load_options)
        best: dict[frozenset[str], list[Plan]] = {}
        for plan in plans:
            if not any(self._gaps(plan)):
                chosen = best.setdefault(frozenset(plan.demand), [])
                if not chosen or chosen[0].num_ctx == plan.num_ctx:
                    chosen.append(plan)
        if not best:
            raise LoadFailed(self._why_not(plans))
        on_gpu = [plans for devices, plans in best.items() if CPU not in devices]
        turns = itertools.zip_longest(*(on_gpu or best.values()))
        return [plan for turn in turns for plan in turn if plan is not None]

    def _gaps(self, plan: Plan) -> Iterator[tuple[int, int, int]]:
        """Bytes that are missing, needed and there, for each device that is too small."""
        for device, need in plan.demand.items():
            capacity = self._capacity.get(device, 0)
            if need > capacity:
                yield need - capacity, need, capacity

    def _why_not(self, plans: Sequence[Plan]) -> str:
        """Ollama's sentence, about the device that comes nearest."""
        gaps = [gap for plan in plans for gap in self._gaps(plan)]
        if not gaps:
            return "no device can hold the model with these options"
        _, need, capacity = min(gaps)
        return (
            f"model requires more system memory ({_gib(need)}) than is available ({_gib(capacity)})"
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.1f} GiB"
