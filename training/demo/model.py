"""A small Llama in PyTorch: what llama.cpp computes for the architecture ``llama``.

Rotary positions pair neighbouring dimensions, as llama.cpp does for Llama, so that the weights
are exported as they are. Input and output embeddings are the same matrix.
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

_SHORT = 256
"""Up to this many tokens plain matrix products are faster on a CPU than flash attention."""


class Shape(msgspec.Struct, frozen=True):
    """Dimensions; ``width`` and ``feed_forward`` are multiples of 32, the block of Q8_0."""

    vocabulary: int = 4096
    layers: int = 8
    width: int = 256
    heads: int = 4
    feed_forward: int = 672
    context: int = 2048
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Llama(nn.Module):
    """Token ids ``[rows, time]`` to hidden states ``[rows, time, width]`` behind the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape)
        turns = shape.rope_base ** (-torch.arange(0, shape.head_width, 2) / shape.head_width)
        angles = torch.outer(torch.arange(shape.context), turns)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self._start(shape)

    def forward(self, ids: Tensor) -> Tensor:
        time = ids.shape[1]
        cosine, sine = self.cosine[:time, None], self.sine[:time, None]
        state = self.embedding(ids).bfloat16()
        for block in self.blocks:
            state = block(state, cosine, sine)
        return self.norm(state)

    def logits(self, states: Tensor) -> Tensor:
        """``[…, width]`` to ``[…, vocabulary]``."""
        return functional.linear(states, self.embedding.weight)

    def _start(self, shape: Shape) -> None:
        deep = 0.02 / (2 * shape.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=deep if "output" in name or "down" in name else 0.02)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.attention_norm = Norm(shape)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = Norm(shape)
        self.gate = nn.Linear(width, shape.feed_forward, bias=False)
        self.up = nn.Linear(width, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, state: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        state = state + self._attend(self.attention_norm(state), cosine, sine)
        inner = self.feed_forward_norm(state)
        return state + self.down(functional.silu(self.gate(inner)) * self.up(inner))

    def _attend(self, state: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        rows, time, width = state.shape
        head = (rows, time, -1, self.shape.head_width)
        query = _turn(self.query(state).view(head), cosine, sine).transpose(1, 2)
        key = _turn(self.key(state).view(head), cosine, sine).transpose(1, 2)
        value = self.value(state).view(head).transpose(1, 2)
        seen = _seen(query, key, value)
        return self.output(seen.transpose(1, 2).reshape(rows, time, width))


class Norm(nn.Module):
    """RMS norm, computed in float32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.width))
        self.epsilon = shape.norm_epsilon

    def forward(self, state: Tensor) -> Tensor:
        wide = state.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * scale * self.weight).to(state.dtype)


def _seen(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention over ``[rows, heads, time, head width]``."""
    time = query.shape[2]
    if time > _SHORT:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    scores = query @ key.transpose(-1, -2) * query.shape[3] ** -0.5
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    return scores.float().masked_fill(later, -torch.inf).softmax(-1).to(value.dtype) @ value


def _turn(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding on neighbouring pairs of the last dimension."""
    even, odd = heads[..., 0::2], heads[..., 1::2]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.flatten(-2).to(heads.dtype)
