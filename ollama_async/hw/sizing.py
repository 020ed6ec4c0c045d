"""How many slots a model gets and how much memory that takes: arithmetic, no machine is asked.

Slots (ADR 0005): ``OLLAMA_NUM_PARALLEL`` if set, else as many as

- half of the memory left after the weights holds as KV cache at the model's context, and
- on a CPU, :data:`CPU_CACHE_LIMIT_BYTES` holds, because the library zeroes the whole cache while
  it loads and every further slot makes each load slower whether or not anybody uses it,

at least 1 and at most :data:`MAX_SLOTS` (throughput stops growing there).
"""

from __future__ import annotations

import msgspec

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


def footprint(
    *,
    weights_bytes: int,
    cache_bytes_per_token: int,
    cache_type: str,
    num_ctx: int,
    available_bytes: int,
    num_parallel: int,
    on_cpu: bool,
) -> Footprint:
    """Choose the slots and add up. ``cache_bytes_per_token`` is for f16; ``num_parallel`` 0 = auto;
    ``available_bytes`` is what the device has left before this load.
    """
    per_slot = int(cache_bytes_per_token * CACHE_SCALE.get(cache_type, 1.0)) * num_ctx
    compute = _compute_bytes(weights_bytes)
    slots = num_parallel or _choose_slots(
        per_slot, available_bytes - weights_bytes - compute, on_cpu=on_cpu
    )
    return Footprint(
        num_ctx=num_ctx,
        slots=slots,
        weights_bytes=weights_bytes,
        cache_bytes=per_slot * slots,
        compute_bytes=compute,
    )


def _choose_slots(per_slot_bytes: int, left_bytes: int, *, on_cpu: bool) -> int:
    if per_slot_bytes <= 0:
        return MAX_SLOTS
    room = left_bytes // 2
    if on_cpu:
        room = min(room, CPU_CACHE_LIMIT_BYTES)
    return max(1, min(MAX_SLOTS, room // per_slot_bytes))


def _compute_bytes(weights_bytes: int) -> int:
    """The library's scratch buffers: a few layers' activations and the logits of one batch."""
    return (64 << 20) + min(weights_bytes // 4, 448 << 20) if weights_bytes else 0
