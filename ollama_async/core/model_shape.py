"""How much memory a model works with, beside its weights: what an estimate is made from."""

from __future__ import annotations

import msgspec


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """All 0: unknown, as in a model without tensors.

    ``repeated_bytes``: embeddings that serve as output, too, and may be kept in a second layout.
    ``state_bytes``: what recurrent layers remember of one sequence. ``row_bytes``: what one token
    of a batch takes while it goes through the largest layer. ``masks``: how many kinds of attention
    look at different parts of the context. ``heads`` and ``head_length`` are the attention's.
    ``scored_heads``: heads whose scores are always kept for the whole context, because no fused
    operation computes them.
    """

    repeated_bytes: int = 0
    state_bytes: int = 0
    row_bytes: int = 0
    vocab_size: int = 0
    masks: int = 0
    heads: int = 0
    head_length: int = 0
    scored_heads: int = 0
