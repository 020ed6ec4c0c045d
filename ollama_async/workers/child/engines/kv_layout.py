"""How a generating model's KV cache is laid out: separate caches, or one pool of cells."""

from __future__ import annotations

import msgspec

from ollama_async.core.model_shape import CELLS_PER_CHAT
from ollama_async.workers.load_spec import LoadSpec

MAX_SEQUENCES = 256
"""The library's own limit."""


CELLS_STEP = 256
"""The library rounds the cells of a cache up to a multiple."""


_MAX_IDLE = 64
"""Idle sequences of a pool. More conversations are kept in main memory; each sequence costs rows in
the library's buffers of logits."""


class KVLayout(msgspec.Struct, frozen=True):
    """``sequences`` in ``cells``, for ``slots`` requests at a time; see
    :class:`~.engine.EngineFacts`.
    """

    slots: int
    sequences: int
    cells: int
    is_pooled: bool


def round_up(cells: int) -> int:
    return -(-cells // CELLS_STEP) * CELLS_STEP


def separate_caches(spec: LoadSpec) -> KVLayout:
    """``num_ctx`` cells for each slot."""
    return KVLayout(spec.slots, spec.slots, spec.slots * spec.num_ctx, is_pooled=False)


def pool_of(slots: int, cells: int) -> KVLayout:
    """Its sequences are those that run, and as many idle chats as the cells may hold."""
    slots = min(slots, MAX_SEQUENCES)
    idle = min(_MAX_IDLE, cells // CELLS_PER_CHAT)
    sequences = min(MAX_SEQUENCES, slots + idle)
    return KVLayout(slots, sequences, cells, is_pooled=True)
