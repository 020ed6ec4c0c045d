"""How a model would be loaded on this machine: plans for each device that may hold it, more than
one where nobody named a context, so that a model is not kept off a GPU by a default that is too
large for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ollama_async.errors import LoadFailed
from ollama_async.hw import placement, sizing
from ollama_async.hw.machine import Machine
from ollama_async.hw.placement import CPU
from ollama_async.queue.plan import Plan, Planner
from ollama_async.queue.port import Needs, Target
from ollama_async.settings import Settings
from ollama_async.workers.spec import DEFAULT_BATCH, LoadSpec

_GATEWAY_CORES_FROM = 4
"""From so many cores on one is left to the gateway; below, a thread less would cost too much."""


class LoadPlan(Plan, frozen=True, kw_only=True):
    """A plan with all that a worker is started with. ``environ`` is its whole environment."""

    spec: LoadSpec
    environ: dict[str, str]


def planner(
    settings: Settings, machine: Callable[[], Machine], environ: Mapping[str, str]
) -> Planner:
    """The :data:`Planner` of this machine. ``machine`` answers at once, from what was last seen;
    it lists only GPUs that the engine library can use. ``environ`` is what workers inherit.
    """

    def plan(target: Target, needs: Needs) -> list[LoadPlan]:
        seen = machine()
        devices = placement.rank(seen.gpus, num_gpu=needs.num_gpu, main_gpu=needs.main_gpu)
        if not devices:
            raise LoadFailed(f"main_gpu {needs.main_gpu}: this machine has no such GPU")
        room = placement.capacity(seen, gpu_overhead_bytes=settings.gpu_overhead_bytes)
        cores = seen.host.cores
        return [
            _plan(
                target,
                needs,
                settings,
                device,
                num_ctx,
                room_bytes=room[device],
                cores=cores,
                environ=environ,
            )
            for device in devices
            for num_ctx in _contexts(target, needs, settings, seen, device)
        ]

    return plan


def _contexts(
    target: Target, needs: Needs, settings: Settings, machine: Machine, device: str
) -> list[int]:
    """Tokens per slot, best first; only one if client or operator named it."""
    gpu_bytes = 0 if device == CPU else sum(gpu.memory_bytes for gpu in machine.gpus)
    named = settings.context_length
    defaults = (named,) if named else sizing.default_contexts(gpu_bytes)
    contexts = (
        sizing.context(needs.num_ctx or 0, default, target.train_ctx) for default in defaults
    )
    return list(dict.fromkeys(contexts))


def _plan(
    target: Target,
    needs: Needs,
    settings: Settings,
    device: str,
    num_ctx: int,
    *,
    room_bytes: int,
    cores: int,
    environ: Mapping[str, str],
) -> LoadPlan:
    on_cpu = device == CPU
    footprint = sizing.footprint(
        weights_bytes=target.weights_bytes,
        cache_bytes_per_token=target.cache_bytes_per_token,
        cache_type=settings.kv_cache_type,
        num_ctx=num_ctx,
        available_bytes=room_bytes,
        num_parallel=settings.num_parallel,
        on_cpu=on_cpu,
    )
    spec = LoadSpec(
        engine=target.engine,
        model=target.path,
        adapters=target.adapters,
        num_ctx=num_ctx,
        slots=footprint.slots,
        threads=needs.num_thread or _threads(cores),
        batch_size=needs.num_batch or DEFAULT_BATCH,
        gpu_layers=0 if on_cpu else _gpu_layers(needs),
        use_mmap=needs.use_mmap is not False,
        cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
    )
    return LoadPlan(
        demand={device: footprint.total_bytes},
        slots=footprint.slots,
        num_ctx=num_ctx,
        spec=spec,
        environ={**environ, "CUDA_VISIBLE_DEVICES": "" if on_cpu else device},
    )


def _threads(cores: int) -> int:
    return cores - 1 if cores >= _GATEWAY_CORES_FROM else cores


def _gpu_layers(needs: Needs) -> int:
    return -1 if needs.num_gpu is None else needs.num_gpu
