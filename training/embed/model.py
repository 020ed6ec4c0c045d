"""A BERT encoder with mean pooling, as plain functions of a dictionary of weights.

The weights have the names and shapes that they have in the GGUF, so export is a copy. What is
computed is what llama.cpp computes for the architecture ``bert``: learned positions, layer norms
behind the residual sums, GELU by its tanh formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 -- the name that everybody knows

from embed.tokenizer import PAD

NORM_EPSILON = 1e-12

Weights = dict[str, Tensor]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """``width`` and ``feed_forward`` are multiples of 32: the blocks of Q8_0 lie along rows."""

    vocabulary: int
    width: int = 128
    heads: int = 4
    layers: int = 2
    feed_forward: int = 512
    positions: int = 256
    token_types: int = 2


def initial_weights(shape: Shape, seed: int) -> Weights:
    random = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def matrix(name: str, rows: int, columns: int, scale: float) -> None:
        weights[f"{name}.weight"] = torch.randn(rows, columns, generator=random) * scale

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns, columns**-0.5)
        weights[f"{name}.bias"] = torch.zeros(rows)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = torch.ones(shape.width)
        weights[f"{name}.bias"] = torch.zeros(shape.width)

    matrix("token_embd", shape.vocabulary, shape.width, 0.1)
    matrix("position_embd", shape.positions, shape.width, 0.01)
    matrix("token_types", shape.token_types, shape.width, 0.01)
    norm("token_embd_norm")
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            linear(f"{block}.{part}", shape.width, shape.width)
        linear(f"{block}.ffn_up", shape.feed_forward, shape.width)
        linear(f"{block}.ffn_down", shape.width, shape.feed_forward)
        norm(f"{block}.attn_output_norm")
        norm(f"{block}.layer_output_norm")
    return weights


def embed(weights: Weights, shape: Shape, texts: Sequence[Sequence[int]]) -> Tensor:
    """One vector of length 1 a text; no text has more tokens than the model has positions."""
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[PAD] * (longest - len(text))] for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    there = torch.arange(longest) < lengths[:, None]
    state = (
        F.embedding(ids, weights["token_embd.weight"])
        + weights["position_embd.weight"][:longest]
        + weights["token_types.weight"][0]
    )
    state = _norm(weights, "token_embd_norm", state)
    for layer in range(shape.layers):
        state = _layer(weights, f"blk.{layer}", state, there, shape.heads)
    pooled = (state * there[:, :, None]).sum(1) / lengths[:, None]
    return F.normalize(pooled.float(), dim=1)


def _layer(weights: Weights, block: str, state: Tensor, there: Tensor, heads: int) -> Tensor:
    attended = _attention(weights, block, state, there, heads)
    state = _norm(weights, f"{block}.attn_output_norm", state + attended)
    hidden = F.gelu(_linear(weights, f"{block}.ffn_up", state), approximate="tanh")
    thought = _linear(weights, f"{block}.ffn_down", hidden)
    return _norm(weights, f"{block}.layer_output_norm", state + thought)


def _attention(weights: Weights, block: str, state: Tensor, there: Tensor, heads: int) -> Tensor:
    def split(part: str) -> Tensor:
        return _linear(weights, f"{block}.{part}", state).unflatten(2, (heads, -1)).transpose(1, 2)

    # PyTorch's own attention takes six times as long backwards for texts as short as these
    scores = split("attn_q") @ split("attn_k").transpose(2, 3) * (state.shape[2] // heads) ** -0.5
    shares = scores.masked_fill(~there[:, None, None, :], -torch.inf).softmax(-1)
    mixed = shares.type_as(scores) @ split("attn_v")
    return _linear(weights, f"{block}.attn_output", mixed.transpose(1, 2).flatten(2))


def _linear(weights: Weights, name: str, state: Tensor) -> Tensor:
    return F.linear(state, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Weights, name: str, state: Tensor) -> Tensor:
    width = state.shape[-1:]
    return F.layer_norm(
        state, width, weights[f"{name}.weight"], weights[f"{name}.bias"], NORM_EPSILON
    )
