"""The model shape: what its memory besides the weights depends on, the input of an estimate."""

from __future__ import annotations

from typing import Literal

import msgspec

EmbeddingKind = Literal["", "encoder", "whole", "split"]
"""How a model embeds or ranks instead of generating text: as an ``encoder``, without a KV cache, or
as a decoder with one, which must evaluate a ``whole`` input at once or may ``split`` it."""


CELLS_PER_CHAT = 512
"""Tokens of the KV cache that a chat takes, for planning: most are shorter."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """All 0: unknown, as in a model without tensors.

    ``repeated_bytes``: embeddings that are also the output layer and may be kept in a second
    layout. ``state_bytes``: recurrent state of a sequence. ``row_bytes``: working memory of a
    batch's token in the largest layer. ``masks``: number of kinds of attention, each with a mask.
    ``scored_heads``: heads without fused attention, whose scores of the whole context are stored.
    """

    repeated_bytes: int = 0
    state_bytes: int = 0
    row_bytes: int = 0
    vocab_size: int = 0
    masks: int = 0
    heads: int = 0
    head_length: int = 0
    scored_heads: int = 0
