"""Load plans: how a model can be loaded on each device of this machine, best first.

If neither client nor operator chose a context, there are plans with smaller ones than the default,
which may be too large for a GPU.
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
from ollama_async.queue.backend import MEDIA_CONTEXT, LoadOptions, Target
from ollama_async.queue.memory_budget import Plan
from ollama_async.workers.load_spec import DEFAULT_BATCH, LoadSpec, ResourceLimits

_GATEWAY_CORES_FROM = 4
"""With so many cores, one is left to the gateway. With fewer, that would cost too much."""

_GPU_HEAD_LENGTHS = frozenset({40, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576})
"""Lengths for which CUDA has fused attention; others use it only if it is forced."""

_FEWER_SLOTS = (1, 2, 4)
"""Divisors: a model gets half or a quarter of its slots if that saves an eviction."""

_LIMIT_FACTOR = 1.5
_LIMIT_BASE_BYTES = 2 << 30
_LIMIT_BYTES_PER_CORE = 128 << 20
_LIMIT_GPU_BYTES = 6 << 30
"""A worker may use 1.5 times its plan, and memory for its interpreter, threads and GPU driver. The
limit is meant for models that need a multiple."""

EMBEDDING_BATCH = 2048
"""Ollama's ``num_batch`` for embedding models; here for encoders on a GPU. Of a decoder, the engine
library computes the logits of all tokens, too, so that more of them do not pay."""

EMBEDDING_BATCH_CPU = 256
"""There more tokens make each slower: every token of a batch is compared with all others, also with
those of other inputs. A model of 22M parameters is fastest with 128 to 512."""

_BATCH_LIMIT = 2048
"""Maximum tokens of a step: compute buffers grow with it, and all requests wait for it."""


class LoadPlan(Plan, frozen=True, kw_only=True):
    """A plan with all that a worker is started with. ``environ`` is its whole environment."""

    spec: LoadSpec
    environ: dict[str, str]
    limits: ResourceLimits = ResourceLimits()


class LoadPlanner:
    """The :data:`Planner` of this machine. ``machine`` returns the last survey, with only those
    GPUs that the engine library can use. ``environ`` is the server's own.

    Slots are planned from the devices' free memory when the server started, because loaded models
    can be evicted. The scheduler makes them fit beside other models, or takes a plan with fewer.
    """

    def __init__(
        self, settings: Settings, machine: Callable[[], Machine], environ: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._capacity = placement.compute_capacity(
            machine(), gpu_overhead_bytes=settings.gpu_overhead_bytes
        )
        self._environ = {**native_environ(environ), "OLLAMA_ASYNC_CACHE": str(settings.cache_dir)}

    def __call__(self, target: Target, options: LoadOptions) -> list[LoadPlan]:
        """:raises LoadFailed: ``main_gpu`` does not exist."""
        machine = self._machine()
        devices = placement.rank_devices(
            machine.gpus, num_gpu=options.num_gpu, main_gpu=options.main_gpu
        )
        if not devices:
            raise LoadFailed(f"main_gpu {options.main_gpu}: this machine has no such GPU")
        return [
            self._plan(target, options, device, load, slots, machine.cores)
            for device in devices
            for num_ctx in self._contexts(target, options, machine, device)
            for load in (self._load(target, options, device, num_ctx),)
            for slots in self._slots(target, load, device)
        ]

    def _contexts(
        self, target: Target, options: LoadOptions, machine: Machine, device: str
    ) -> list[int]:
        """Tokens per slot, best first; only one if client or operator chose it."""
        gpu_bytes = 0 if device == CPU else sum(gpu.memory_bytes for gpu in machine.gpus)
        configured = self._settings.context_length
        defaults = placement.default_contexts(gpu_bytes)
        if target.embedding:
            defaults = tuple(min(each, placement.EMBEDDING_CONTEXT) for each in defaults)
        if configured:
            defaults = (configured,)
        least = MEDIA_CONTEXT if target.projector else 0
        contexts = (
            placement.choose_context(options.num_ctx or 0, max(default, least), target.train_ctx)
            for default in defaults
        )
        return list(dict.fromkeys(contexts))

    def _load(
        self, target: Target, options: LoadOptions, device: str, num_ctx: int
    ) -> placement.LoadParameters:
        has_kernel = device == CPU or target.shape.head_length in _GPU_HEAD_LENGTHS
        setting = self._settings.flash_attention
        batch_size = options.num_batch or DEFAULT_BATCH
        if target.embedding:
            batch_size = options.num_batch or _embedding_batch(target, device)
        return placement.LoadParameters(
            weights_bytes=target.weights_bytes,
            cache_bytes_per_token=target.cache_bytes_per_token,
            cache_type=self._settings.kv_cache_type,
            num_ctx=num_ctx,
            batch_size=min(batch_size, _BATCH_LIMIT),
            is_fused=has_kernel if setting == "auto" else setting == "on",
            on_cpu=device == CPU,
            shape=target.shape,
            embedding=target.embedding,
            reads_media=bool(target.projector),
        )

    def _slots(self, target: Target, load: placement.LoadParameters, device: str) -> list[int]:
        """Possible numbers of slots, best first."""
        if target.embedding:
            return [placement.EMBEDDING_SLOTS]
        num_parallel = self._settings.num_parallel
        most = placement.choose_slots(
            load, available_bytes=self._capacity.get(device, 0), num_parallel=num_parallel
        )
        if num_parallel:
            return [most]
        return list(dict.fromkeys(max(1, most // divisor) for divisor in _FEWER_SLOTS))

    def _plan(
        self,
        target: Target,
        options: LoadOptions,
        device: str,
        load: placement.LoadParameters,
        slots: int,
        cores: int,
    ) -> LoadPlan:
        on_cpu = device == CPU
        threads = cores - 1 if cores >= _GATEWAY_CORES_FROM else cores
        gpu_layers = -1 if options.num_gpu is None else options.num_gpu
        num_parallel = self._settings.num_parallel
        pool = placement.choose_pool(load, slots=slots, num_parallel=num_parallel)
        total_bytes = placement.estimate_memory(load, slots=slots, pool=pool).total_bytes
        private_bytes = total_bytes + placement.unwritten_bytes(load, pool)
        return LoadPlan(
            demand={device: total_bytes},
            slots=slots,
            num_ctx=load.num_ctx,
            spec=LoadSpec(
                engine=target.engine,
                model=target.path,
                adapters=target.adapters,
                projector=target.projector,
                num_ctx=load.num_ctx,
                slots=slots,
                pool_slots=pool.slots if pool else 0,
                pool_cells=pool.cells if pool else 0,
                threads=min(options.num_thread or threads, cores),
                batch_size=load.batch_size,
                gpu_layers=0 if on_cpu else gpu_layers,
                use_mmap=options.use_mmap is not False,
                cache_type=self._settings.kv_cache_type,
                flash_attention=self._settings.flash_attention,
                embedding=target.embedding,
            ),
            environ={**self._environ, "CUDA_VISIBLE_DEVICES": "" if on_cpu else device},
            limits=ResourceLimits(
                slots=max(slots, pool.slots) if pool else slots,
                num_ctx=load.num_ctx,
                memory_bytes=_memory_limit(private_bytes, cores, on_cpu=on_cpu),
            ),
        )


def _embedding_batch(target: Target, device: str) -> int:
    """Tokens of a batch of several inputs, unless the model sets it."""
    if device == CPU:
        return EMBEDDING_BATCH_CPU
    return EMBEDDING_BATCH if target.embedding == "encoder" else DEFAULT_BATCH


def _memory_limit(planned_bytes: int, cores: int, *, on_cpu: bool) -> int:
    """Bytes of private main memory that a worker may have."""
    spare = _LIMIT_BASE_BYTES + cores * _LIMIT_BYTES_PER_CORE + (0 if on_cpu else _LIMIT_GPU_BYTES)
    return min(int(planned_bytes * _LIMIT_FACTOR) + spare, sys.maxsize)
