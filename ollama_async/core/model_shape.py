"""What a model's memory beside its weights depends on: the input of a memory estimate."""

from __future__ import annotations

import msgspec


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """All 0: unknown, as in a model without tensors.

    ``repeated_bytes``: embeddings that are also the output layer and may be kept in a second
    layout. ``state_bytes``: recurrent state of one sequence. ``row_bytes``: working memory of one
    token of a batch in the largest layer. ``masks``: number of attention masks, one for each kind
    of attention. ``heads`` and ``head_length``: number and length of attention heads.
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
