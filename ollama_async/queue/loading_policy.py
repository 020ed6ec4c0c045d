"""Loading policy: what to load for a model's requests, and when a loaded instance satisfies them.

Only a larger context is a reason to reload, and contexts grow to powers of two. Models set the
other load options. Models with the same weights share an instance, though these options may
contradict each other. One instance then serves all of them during its residence
(:func:`residence_s`), and is then reloaded for the next request that contradicts it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ollama_async.core.errors import LoadFailed
from ollama_async.hw.placement import CPU
from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.queue.memory_budget import Plan, Planner

_EXPLICIT = ("num_gpu", "main_gpu", "num_thread", "use_mmap")
"""Without ``num_batch``, which changes the speed, but not the answer."""

_RESIDENCE_PER_LOAD = 10.0
_MIN_RESIDENCE_S = 60.0
_REFUSAL_EXPIRES_S = 60.0

_DEFAULTS = LoadOptions()


def residence_s(load_s: float) -> float:
    """How long an instance also serves requests that contradict its options."""
    return max(_MIN_RESIDENCE_S, _RESIDENCE_PER_LOAD * load_s)


def normalize(options: LoadOptions, target: Target, *, has_gpus: bool) -> LoadOptions:
    """Options that are equal if their loads are: the context is at most the trained one,
    ``num_gpu`` -1 means unset, and GPU options are dropped where there are no GPUs.
    """
    if options == _DEFAULTS:
        return _DEFAULTS
    num_ctx = options.num_ctx
    if num_ctx is not None and target.train_ctx > 0:
        num_ctx = min(num_ctx, target.train_ctx)
    return msgspec.structs.replace(
        options,
        num_ctx=num_ctx,
        num_gpu=None if options.num_gpu == -1 or not has_gpus else options.num_gpu,
        main_gpu=options.main_gpu if has_gpus else None,
    )


def exceeds_context(options: LoadOptions, num_ctx: float) -> bool:
    """Whether the options request more than ``num_ctx``."""
    return options.num_ctx is not None and options.num_ctx > num_ctx


def contradicts(options: LoadOptions, loaded: LoadOptions) -> bool:
    """Whether an explicit option differs, or is set by only one of them: a client does not inherit
    another client's options.
    """
    return any(getattr(options, name) != getattr(loaded, name) for name in _EXPLICIT)


def merge(
    first: LoadOptions, others: Iterable[LoadOptions], loaded_ctx: int | None, target: Target
) -> LoadOptions:
    """What to load for ``first`` so that it satisfies as many ``others`` as possible.

    The explicit options are those of ``first``; the context is the largest of all. A context that
    grows is rounded up to a power of two within the trained one: a client that requests one more
    token each time must not cause a load each time.
    """
    contexts = (first.num_ctx, loaded_ctx, *(options.num_ctx for options in others))
    num_ctx = max((context for context in contexts if context is not None), default=None)
    if num_ctx is not None and loaded_ctx is not None and num_ctx > loaded_ctx:
        num_ctx = _round_up(num_ctx, target.train_ctx)
    return msgspec.structs.replace(first, num_ctx=num_ctx)


def _round_up(num_ctx: int, train_ctx: int) -> int:
    power = 1 << (num_ctx - 1).bit_length()
    return max(num_ctx, min(power, train_ctx)) if train_ctx > 0 else power


def feasible_plans(
    planner: Planner, capacity: Mapping[str, int], target: Target, options: LoadOptions
) -> list[Plan]:
    """The plans to choose from, best first: for each device the first plan that fits when nothing
    else is loaded, then those with fewer slots for the same context. The CPU is used only if the
    model fits on no GPU.

    So an idle model is evicted rather than another one loaded on the CPU, ten times as slow, or
    with a smaller context. Another GPU is used rather than fewer slots.

    :raises LoadFailed: there is none.
    :raises ServerError: the planner's own reason.
    """
    feasible: dict[frozenset[str], list[Plan]] = {}
    shortages: list[tuple[int, int, int]] = []
    for plan in planner(target, options):
        missing = [
            (need - available, need, available)
            for device, need in plan.demand.items()
            if need > (available := capacity.get(device, 0))
        ]
        shortages += missing
        if not missing:
            chosen = feasible.setdefault(frozenset(plan.demand), [])
            if not chosen or chosen[0].num_ctx == plan.num_ctx:
                chosen.append(plan)
    if not feasible:
        raise LoadFailed(_shortage_text(shortages))
    on_gpu = [plans for devices, plans in feasible.items() if CPU not in devices]
    rounds = itertools.zip_longest(*(on_gpu or feasible.values()))
    return [plan for plans in rounds for plan in plans if plan is not None]


def _shortage_text(shortages: Sequence[tuple[int, int, int]]) -> str:
    """Ollama's sentence for the smallest of the shortages: bytes missing, needed, available."""
    if not shortages:
        return "no device can hold the model with these options"
    _, need, available = min(shortages)
    needed, there = (f"{size_bytes / (1 << 30):.1f} GiB" for size_bytes in (need, available))
    return f"model requires more system memory ({needed}) than is available ({there})"


class _Refusal(msgspec.Struct, frozen=True):
    num_ctx: int
    code: str
    message: str
    expires_at: float


class RefusedGrowth:
    """The smallest context to which each model recently could not be reloaded.

    A failed growth costs two loads without service. So for a minute requests for as much fail
    with the same error.
    """

    def __init__(self) -> None:
        self._refusals: dict[str, _Refusal] = {}

    def record(self, key: str, num_ctx: int, code: str, message: str, now: float) -> None:
        """A load with ``num_ctx`` has failed."""
        self._refusals = {
            key: refusal for key, refusal in self._refusals.items() if refusal.expires_at > now
        }
        before = self._refusals.get(key)
        num_ctx = min(num_ctx, before.num_ctx) if before else num_ctx
        self._refusals[key] = _Refusal(num_ctx, code, message, now + _REFUSAL_EXPIRES_S)

    def find(
        self, target: Target, options: LoadOptions, loaded_ctx: int, now: float
    ) -> tuple[str, str] | None:
        """Code and message if the growth from ``loaded_ctx`` for ``options`` was refused."""
        refusal = self._refusals.get(target.key)
        if refusal is None or refusal.expires_at <= now:
            return None
        if not exceeds_context(options, loaded_ctx):
            return None
        grown_ctx = merge(options, (), loaded_ctx, target).num_ctx or 0
        return (refusal.code, refusal.message) if grown_ctx >= refusal.num_ctx else None
