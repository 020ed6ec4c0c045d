"""How many slots a model gets and how much memory that takes: arithmetic, no machine is asked.

Slots (ADR 0005): ``OLLAMA_NUM_PARALLEL`` if set, else as many as

- half of the memory left after the weights holds as KV cache at the model's context, and
- on a CPU, :data:`CPU_CACHE_LIMIT_BYTES` holds, because the library zeroes the whole cache while
  it loads and every further slot makes each load slower whether or not anybody uses it,

at least 1 and at most :data:`MAX_SLOTS` (throughput stops growing there).
"""

from __future__ import annotations

import msgspec

from ollama_async.core.model_shape import ModelShape

MAX_SLOTS = 32
CPU_CACHE_LIMIT_BYTES = 1 << 30
"""What fresh memory of a CPU is zeroed in about half a second (1.75 to 1.95 GB/s were measured)."""

MIN_CONTEXT = 4
"""Ollama's floor for ``num_ctx``."""

SHARED_CONTEXT = 4096
"""A model is not loaded with less because one client is content with less: the others, who named
no context, would silently get that, and the next one who names more would have to reload it.
"""

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
"""A process that has done nothing yet, and small buffers of the library."""

_CELLS_STEP = 256
_FUSED_MASK_BYTES, _SCORE_BYTES = 2, 4
_LOGIT_BYTES = 8
"""Each slot's logits lie in the graph and in the output buffer."""

_VOCABULARY_BYTES = 256
"""Texts and tables of a token, in the library and in ours."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a load will take, estimated before it happens. ``num_ctx`` is tokens per slot."""

    num_ctx: int
    slots: int
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.compute_bytes


def default_contexts(gpu_bytes: int) -> tuple[int, ...]:
    """Ollama's default by the memory of all GPUs together (0: a CPU), then what a model gets for
    which that is too much.
    """
    if gpu_bytes >= 47 << 30:
        return 262_144, 32_768, 4096
    return (32_768, 4096) if gpu_bytes >= 23 << 30 else (4096,)


def context(wished: int, default: int, train_ctx: int) -> int:
    """Tokens per slot: the wish (0 = none) or the default, within what the model was trained for
    (0 = unknown).

    A wish under both the default and :data:`SHARED_CONTEXT` counts as the smaller of these: it
    holds for its request, but the model is loaded for everybody.
    """
    num_ctx = max(wished, min(default, SHARED_CONTEXT)) if wished else max(MIN_CONTEXT, default)
    return min(num_ctx, train_ctx) if train_ctx > 0 else num_ctx


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How a model would be loaded. ``cache_bytes_per_token`` is for f16; ``rows``: tokens of one
    step at most; ``is_fused``: attention does without the scores of the whole context.
    """

    weights_bytes: int
    cache_bytes_per_token: int
    cache_type: str
    num_ctx: int
    rows: int = 512
    is_fused: bool = True
    on_cpu: bool
    shape: ModelShape = ModelShape()


def footprint(load: Load, *, slots: int) -> Footprint:
    """Add up what ``slots`` take."""
    shape = load.shape
    logits = slots * shape.vocab_size * _LOGIT_BYTES
    weights = load.weights_bytes + (shape.repeated_bytes if load.on_cpu else 0)
    return Footprint(
        num_ctx=load.num_ctx,
        slots=slots,
        weights_bytes=weights,
        cache_bytes=_bytes_per_slot(load) * slots,
        compute_bytes=max(_usual_compute_bytes(load.weights_bytes), _scratch_bytes(load) + logits),
    )


def choose_slots(load: Load, *, available_bytes: int, num_parallel: int) -> int:
    """How many a model gets. ``num_parallel`` 0 = auto; ``available_bytes`` is what the device has
    before this load.
    """
    if num_parallel:
        return num_parallel
    empty = footprint(load, slots=0)
    per_slot = _bytes_per_slot(load)
    if per_slot <= 0:
        return MAX_SLOTS
    room = (available_bytes - empty.total_bytes) // 2
    if load.on_cpu:
        room = min(room, CPU_CACHE_LIMIT_BYTES)
    return max(1, min(MAX_SLOTS, room // per_slot))


def _bytes_per_slot(load: Load) -> int:
    """KV cache and recurrent state of one sequence."""
    per_token = int(load.cache_bytes_per_token * CACHE_SCALE.get(load.cache_type, 1.0))
    return per_token * _cells(load) + load.shape.state_bytes


def _cells(load: Load) -> int:
    """Tokens of a slot as the library rounds them."""
    return -(-load.num_ctx // _CELLS_STEP) * _CELLS_STEP


def _scratch_bytes(load: Load) -> int:
    """What one step works with: its rows in the largest layer, and what it knows of the context,
    for each row a mask and, if attention is not fused, the scores of each head.
    """
    shape = load.shape
    if not shape.row_bytes:
        return 0
    heads = shape.scored_heads if load.is_fused else max(shape.heads, shape.scored_heads)
    mask_bytes = shape.masks * (_FUSED_MASK_BYTES if load.is_fused else _SCORE_BYTES)
    per_row = shape.row_bytes + _cells(load) * (mask_bytes + heads * _SCORE_BYTES)
    return _BASE_BYTES + shape.vocab_size * _VOCABULARY_BYTES + load.rows * per_row


def _usual_compute_bytes(weights_bytes: int) -> int:
    """At least this much is set aside, by the size of the weights alone."""
    return _BASE_BYTES + min(weights_bytes // 4, 448 << 20) if weights_bytes else 0
