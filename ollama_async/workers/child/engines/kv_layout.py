"""How an engine lays out its KV cache."""

from __future__ import annotations

MAX_SEQUENCES = 256
"""The library's own limit."""

CELLS_PER_CHAT = 512
"""What an idle chat is assumed to hold, on average."""


def count_sequences(slots: int, cells: int) -> int:
    """Sequences of a pool: those that run, and as many idle ones as its cells may hold. Each costs
    a row in the library's buffer of logits.
    """
    return max(slots, min(MAX_SEQUENCES, slots + cells // CELLS_PER_CHAT))
