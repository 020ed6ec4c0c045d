"""How a model would be loaded on this machine: plans for each device that may hold it, more than
one where nobody named a context, so that a model is not kept off a GPU by a default that is too
large for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from ollama_async.core.errors import LoadFailed
from ollama_async.core.native_environ import native_environ
from ollama_async.core.settings import Settings
from ollama_async.hw import placement
from ollama_async.hw.machine import Machine
from ollama_async.hw.placement import CPU
from ollama_async.queue.backend import LoadOptions, Target
from ollama_async.queue.memory_budget import Plan, Planner
from ollama_async.workers.load_spec import DEFAULT_BATCH, LoadSpec, ResourceLimits

_GATEWAY_CORES_FROM = 4
"""From so many cores on one is left to the gateway; below, a thread less would cost too much."""

_GPU_HEAD_LENGTHS = frozenset({40, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576})
"""For which CUDA has fused attention; with others the library does without, unless it is forced."""

_FEWER_SLOTS = (1, 2, 4)
"""A model gets all its slots, or half or a quarter of them if it then need not evict another."""

_LIMIT_FACTOR = 1.5
_LIMIT_BASE_BYTES = 2 << 30
_LIMIT_BYTES_PER_CORE = 128 << 20
_LIMIT_GPU_BYTES = 6 << 30
"""A worker may take half as much again as was planned, and what its interpreter, stacks and
buffers of threads, and a GPU's driver take: the limit is against models that take a multiple."""


_BATCH_LIMIT = 2048
"""Tokens of a step: compute buffers grow with it, and a step is what everybody else waits for."""


class LoadPlan(Plan, frozen=True, kw_only=True):
    """A plan with all that a worker is started with. ``environ`` is its whole environment."""

    spec: LoadSpec
    environ: dict[str, str]
    limits: ResourceLimits = ResourceLimits()


def planner(
    settings: Settings, machine: Callable[[], Machine], environ: Mapping[str, str]
) -> Planner:
    """The :data:`Planner` of this machine. ``machine`` answers at once, from what was last seen;
    it lists only GPUs that the engine library can use. ``environ`` is the server's own.

    Slots are planned from what the devices had at the start, before anything was loaded, and never
    from what is free at the moment: what a model holds that will have gone by then counts as free.
    That they fit beside what stays is the scheduler's to see to; it is offered fewer slots, too.
    """
    room = placement.compute_capacity(machine(), gpu_overhead_bytes=settings.gpu_overhead_bytes)
    kept = {**native_environ(environ), "OLLAMA_ASYNC_CACHE": str(settings.cache_dir)}

    def plan(target: Target, options: LoadOptions) -> list[LoadPlan]:
        seen = machine()
        devices = placement.rank_devices(
            seen.gpus, num_gpu=options.num_gpu, main_gpu=options.main_gpu
        )
        if not devices:
            raise LoadFailed(f"main_gpu {options.main_gpu}: this machine has no such GPU")
        return [
            _plan(target, options, settings, device, load, slots, seen.host.cores, kept)
            for device in devices
            for num_ctx in _contexts(target, options, settings, seen, device)
            for load in (_load(target, options, settings, device, num_ctx),)
            for slots in _slots(load, settings, room.get(device, 0))
        ]

    return plan


def _contexts(
    target: Target, options: LoadOptions, settings: Settings, machine: Machine, device: str
) -> list[int]:
    """Tokens per slot, best first; only one if client or operator named it."""
    gpu_bytes = 0 if device == CPU else sum(gpu.memory_bytes for gpu in machine.gpus)
    named = settings.context_length
    defaults = (named,) if named else placement.default_contexts(gpu_bytes)
    contexts = (
        placement.choose_context(options.num_ctx or 0, default, target.train_ctx)
        for default in defaults
    )
    return list(dict.fromkeys(contexts))


def _load(
    target: Target, options: LoadOptions, settings: Settings, device: str, num_ctx: int
) -> placement.LoadParameters:
    shape = target.shape
    is_usual = device == CPU or shape.head_length in _GPU_HEAD_LENGTHS
    is_auto = settings.flash_attention == "auto"
    return placement.LoadParameters(
        weights_bytes=target.weights_bytes,
        cache_bytes_per_token=target.cache_bytes_per_token,
        cache_type=settings.kv_cache_type,
        num_ctx=num_ctx,
        batch_size=min(options.num_batch or DEFAULT_BATCH, _BATCH_LIMIT),
        is_fused=is_usual if is_auto else settings.flash_attention == "on",
        on_cpu=device == CPU,
        shape=shape,
    )


def _slots(load: placement.LoadParameters, settings: Settings, room_bytes: int) -> list[int]:
    """Numbers of slots to choose from, best first."""
    most = placement.choose_slots(
        load, available_bytes=room_bytes, num_parallel=settings.num_parallel
    )
    if settings.num_parallel:
        return [most]
    return list(dict.fromkeys(max(1, most // divisor) for divisor in _FEWER_SLOTS))


def _plan(
    target: Target,
    options: LoadOptions,
    settings: Settings,
    device: str,
    load: placement.LoadParameters,
    slots: int,
    cores: int,
    environ: Mapping[str, str],
) -> LoadPlan:
    on_cpu = device == CPU
    total_bytes = placement.estimate_memory(load, slots=slots).total_bytes
    spec = LoadSpec(
        engine=target.engine,
        model=target.path,
        adapters=target.adapters,
        num_ctx=load.num_ctx,
        slots=slots,
        threads=min(options.num_thread or _threads(cores), cores),
        batch_size=load.batch_size,
        gpu_layers=0 if on_cpu else _gpu_layers(options),
        use_mmap=options.use_mmap is not False,
        cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
    )
    return LoadPlan(
        demand={device: total_bytes},
        slots=slots,
        num_ctx=load.num_ctx,
        spec=spec,
        environ={**environ, "CUDA_VISIBLE_DEVICES": "" if on_cpu else device},
        limits=ResourceLimits(
            slots=slots,
            num_ctx=load.num_ctx,
            memory_bytes=_memory_limit(total_bytes, cores, on_cpu=on_cpu),
        ),
    )


def _memory_limit(planned_bytes: int, cores: int, *, on_cpu: bool) -> int:
    """Bytes of its own that a worker may have in main memory."""
    spare = _LIMIT_BASE_BYTES + cores * _LIMIT_BYTES_PER_CORE + (0 if on_cpu else _LIMIT_GPU_BYTES)
    return min(int(planned_bytes * _LIMIT_FACTOR) + spare, sys.maxsize)


def _threads(cores: int) -> int:
    return cores - 1 if cores >= _GATEWAY_CORES_FROM else cores


def _gpu_layers(options: LoadOptions) -> int:
    return -1 if options.num_gpu is None else options.num_gpu
