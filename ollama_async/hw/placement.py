"""Placement: the devices on which a model may be loaded, its slots, and the memory that it takes.

Slots (ADR 5): ``OLLAMA_NUM_PARALLEL`` if set, else 1 to :data:`MAX_SLOTS`, so that the KV cache at
the model's context takes

- at most half of the memory left after the weights, and
- on a CPU at most :data:`CPU_CACHE_LIMIT_BYTES`, because the library zeroes the whole cache while
  it loads.

That is for slots with a cache of their own. A CPU may have one pool of cells instead, in the same
memory, with more places for requests (:func:`choose_pool`). The worker decides when it knows what
computes its attention.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ollama_async.core.model_shape import CELLS_PER_CHAT, EmbeddingKind, ModelShape
from ollama_async.hw.machine import Gpu, Machine

CPU = "cpu"
_GPU_SHARE = 0.8
"""Share of a GPU's free memory that may be used, as in Ollama: estimates are rough, and running out
of GPU memory kills the worker."""
_CPU_SHARE = 0.95

_PROMPT_CACHE_SHARE = 1 / 8
_PROMPT_CACHE_LIMIT_BYTES = 8 << 30
"""Hundreds of conversations of a small model, tens of an 8B model."""

MAX_SLOTS = 32
"""Throughput stops growing there."""

CPU_CACHE_LIMIT_BYTES = 1 << 30
"""A CPU zeroes so much fresh memory in about half a second (at 1.75 to 1.95 GB/s)."""

MAX_CELLS = 1 << 16
"""Of a pool. Each token of a step has a mask over all cells in use: 64 MiB for 512 tokens."""

_FREE_CELLS = 1 << 14
_WEIGHTS_PER_CELL = 2048
"""A single thread fills the mask: for each row of a step 1 to 3 ns for each cell in use. With so
many bytes of weights for a cell that is up to a tenth of what the row costs (measured: 5 % of a
step of 32 rows for models of 0.1 to 0.5 GB, whose cache is full). A tiny model may have
``_FREE_CELLS``, where it is a fifth: 0.5 ms of a step of 32 rows."""

EMBEDDING_SLOTS = 64
"""Requests that an embedding model has at a time; they need no memory of their own. Two full
batches of short inputs: one is computed while the clients of the other are answered."""

EMBEDDING_CONTEXT = 8192
"""Maximum of an embedding model's default context: memory for all tokens of an input is allocated
at once, and no encoder in use was trained for more."""

MIN_CONTEXT = 4
"""Ollama's minimum for ``num_ctx``."""

SHARED_CONTEXT = 4096
"""A request for a smaller context does not shrink the load: clients that set no context would get
it, and the next larger request would have to reload the model."""

CACHE_SCALE = {
    "f32": 2.0,
    "f16": 1.0,
    "bf16": 1.0,
    "q8_0": 34 / 64,
    "q5_1": 24 / 64,
    "q5_0": 22 / 64,
    "q4_1": 20 / 64,
    "q4_0": 18 / 64,
    "iq4_nl": 18 / 64,
}
"""Bytes of one cached value relative to f16, by ``OLLAMA_KV_CACHE_TYPE``."""

_BASE_BYTES = 64 << 20
"""An idle process and the library's small buffers."""

_CELLS_STEP = 256
_FUSED_MASK_BYTES, _SCORE_BYTES = 2, 4
_LOGIT_BYTES = 8
"""Each slot's logits are in the graph and in the output buffer."""

_MEDIA_BYTES = 512 << 20
"""Images that are being decoded, embeddings that are kept, and the projector's own buffers."""

_VOCABULARY_BYTES = 256
"""Texts and tables for one token, in the library and in this package."""


class LoadParameters(msgspec.Struct, frozen=True, kw_only=True):
    """How a model would be loaded. ``cache_bytes_per_token`` is for f16; ``batch_size``: maximum
    tokens of a step; ``is_fused``: attention does not store the scores of the whole context.
    ``embedding``: see :func:`estimate_memory`. ``reads_media``: it has a projector, which is
    part of the weights.
    """

    weights_bytes: int
    cache_bytes_per_token: int
    cache_type: str
    num_ctx: int
    batch_size: int = 512
    is_fused: bool = True
    on_cpu: bool
    shape: ModelShape = ModelShape()
    embedding: EmbeddingKind = ""
    reads_media: bool = False


class Pool(msgspec.Struct, frozen=True):
    """One KV cache of ``cells`` for ``slots`` requests at a time."""

    cells: int
    slots: int


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True):
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.compute_bytes


def compute_capacity(machine: Machine, *, gpu_overhead_bytes: int = 0) -> dict[str, int]:
    """Bytes for models on each device: GPUs by UUID, and :data:`CPU`."""
    capacity = {
        gpu.uuid: max(0, int((gpu.free_bytes - gpu_overhead_bytes) * _GPU_SHARE))
        for gpu in machine.gpus
    }
    capacity[CPU] = int(machine.available_bytes * _CPU_SHARE)
    return capacity


def choose_cache_bytes(machine: Machine, configured: int | None) -> int:
    """Main memory for the prompt cache of one model."""
    if configured is not None:
        return configured
    return min(int(machine.available_bytes * _PROMPT_CACHE_SHARE), _PROMPT_CACHE_LIMIT_BYTES)


def rank_devices(gpus: Iterable[Gpu], *, num_gpu: int | None, main_gpu: int | None) -> list[str]:
    """Devices to try, best first: GPUs by free memory, the CPU last.

    ``num_gpu`` 0 means the CPU alone. ``main_gpu`` pins one GPU by index; if it does not exist, the
    list is empty. Without GPUs both are ignored, as clients often send them.
    """
    by_free_memory = sorted(gpus, key=lambda gpu: gpu.free_bytes, reverse=True)
    if num_gpu == 0 or not by_free_memory:
        return [CPU]
    if main_gpu is not None:
        return [gpu.uuid for gpu in by_free_memory if gpu.index == main_gpu]
    return [*(gpu.uuid for gpu in by_free_memory), CPU]


def default_contexts(gpu_bytes: int) -> tuple[int, ...]:
    """Ollama's default for the memory of all GPUs (0: a CPU), then smaller ones, best first."""
    if gpu_bytes >= 47 << 30:
        return 262_144, 32_768, 4096
    return (32_768, 4096) if gpu_bytes >= 23 << 30 else (4096,)


def choose_context(requested: int, default: int, train_ctx: int) -> int:
    """Tokens per slot: what is requested or the default, at most ``train_ctx``; 0 = unknown.

    A request below both the default and :data:`SHARED_CONTEXT` gets the smaller of these. (It keeps
    its own limit, but the load serves all clients.)
    """
    if requested:
        num_ctx = max(requested, min(default, SHARED_CONTEXT))
    else:
        num_ctx = max(MIN_CONTEXT, default)
    return min(num_ctx, train_ctx) if train_ctx > 0 else num_ctx


def choose_slots(load: LoadParameters, *, available_bytes: int, num_parallel: int) -> int:
    """``num_parallel`` 0 = auto; ``available_bytes``: of the device, before this load."""
    if num_parallel:
        return num_parallel
    per_slot = _bytes_per_slot(load)
    if per_slot <= 0:
        return MAX_SLOTS
    cache_bytes = (available_bytes - estimate_memory(load, slots=0).total_bytes) // 2
    if load.on_cpu:
        cache_bytes = min(cache_bytes, CPU_CACHE_LIMIT_BYTES)
    return max(1, min(MAX_SLOTS, cache_bytes // per_slot))


def choose_pool(load: LoadParameters, *, slots: int, num_parallel: int) -> Pool | None:
    """In the memory of so many slots with their own cache; None: the model cannot have one.
    ``num_parallel`` as in :func:`choose_slots`.
    """
    shape = load.shape
    is_plain = shape.masks == 1 and not shape.state_bytes and not shape.scored_heads
    if not load.on_cpu or load.embedding or not is_plain or not load.cache_bytes_per_token:
        return None
    most = min(MAX_CELLS, max(_FREE_CELLS, load.weights_bytes // _WEIGHTS_PER_CELL))
    whole = _cells(load)
    cells = max(whole, min(slots * whole, most // _CELLS_STEP * _CELLS_STEP))
    return Pool(cells, num_parallel or max(1, min(MAX_SLOTS, cells // CELLS_PER_CHAT)))


def estimate_memory(
    load: LoadParameters, *, slots: int, pool: Pool | None = None
) -> MemoryEstimate:
    """Of an embedding model whatever its slots: its KV cache, if it has one, is of one batch or of
    the longest input, and then there are logits of all tokens of a step. With a ``pool``: whether
    it is used or not.
    """
    outputs = max(slots, pool.slots) if pool else slots
    has_output_layer = load.embedding != "encoder"
    if load.embedding:
        rows = _embedding_rows(load)
        slots, outputs = 1, rows if has_output_layer else 0
        longest = max(load.num_ctx, load.batch_size)
        load = msgspec.structs.replace(load, num_ctx=longest, batch_size=rows, embedding="")
    shape = load.shape
    logits = outputs * shape.vocab_size * _LOGIT_BYTES
    is_repeated = load.on_cpu and has_output_layer
    weights = load.weights_bytes + (shape.repeated_bytes if is_repeated else 0)
    min_compute = _BASE_BYTES + min(load.weights_bytes // 4, 448 << 20) if load.weights_bytes else 0
    return MemoryEstimate(
        weights_bytes=weights,
        cache_bytes=_bytes_per_slot(load) * slots,
        compute_bytes=max(min_compute, _scratch_bytes(load, pool) + logits)
        + (_MEDIA_BYTES if load.reads_media else 0),
    )


def unwritten_bytes(load: LoadParameters, pool: Pool | None = None) -> int:
    """Memory that is allocated, but never written, and so never used: the engine library has space
    for the logits of all tokens, which an encoder does not compute; and of all sequences of a pool,
    most of which are idle.
    """
    if pool is not None:
        return pool.cells // CELLS_PER_CHAT * load.shape.vocab_size * _LOGIT_BYTES
    if load.embedding != "encoder":
        return 0
    return _embedding_rows(load) * load.shape.vocab_size * _SCORE_BYTES


def _embedding_rows(load: LoadParameters) -> int:
    """Tokens of the largest step: of several inputs, or the longest, unless that can be split."""
    return load.batch_size if load.embedding == "split" else max(load.num_ctx, load.batch_size)


def _bytes_per_slot(load: LoadParameters) -> int:
    """KV cache and recurrent state of one sequence."""
    per_token = int(load.cache_bytes_per_token * CACHE_SCALE.get(load.cache_type, 1.0))
    return per_token * _cells(load) + load.shape.state_bytes


def _cells(load: LoadParameters) -> int:
    """Cache cells of a slot: its tokens as the library rounds them."""
    return -(-load.num_ctx // _CELLS_STEP) * _CELLS_STEP


def _scratch_bytes(load: LoadParameters, pool: Pool | None = None) -> int:
    """Working memory of one step: for each token its part of the largest layer, a mask over the
    context or the pool, and the scores of each head if attention is not fused.
    """
    shape = load.shape
    if not shape.row_bytes:
        return 0
    heads = shape.scored_heads if load.is_fused else max(shape.heads, shape.scored_heads)
    mask_bytes = shape.masks * (_FUSED_MASK_BYTES if load.is_fused else _SCORE_BYTES)
    masked = _cells(load) * (mask_bytes + heads * _SCORE_BYTES)
    if pool is not None:  # whose attention is fused
        masked = max(masked, pool.cells * shape.masks * _FUSED_MASK_BYTES)
    per_token = shape.row_bytes + masked
    return _BASE_BYTES + shape.vocab_size * _VOCABULARY_BYTES + load.batch_size * per_token
