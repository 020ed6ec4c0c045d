"""Attention heads set up by hand, so that the network can copy before it has learned anything.

What copies in a transformer is a pair of heads: one adds to each token the code of the token before
it; one in a later layer looks for places whose code is the token at hand, and brings what stands
there. So a name goes on as it went on the last time. Training finds this by itself, but only after
tens of millions of tokens, and on a CPU that is the whole budget; from here it only refines it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demo.model import Block, Llama, Shape

_CONSTANT = 8.0  # of the first coordinate of every embedding, in deviations of the others
_SHARPNESS = 7.0  # of the look at the token before
_FAST_PAIRS = 12  # pairs of rotary dimensions that turn fast enough to tell neighbours apart
_SLOW_DIMENSIONS = 24  # the last ones; they hardly turn within a prompt, so contents compare there
_MATCH = 3.0  # of queries and keys of the comparing heads
_CODE = 0.04  # how strongly the code of the token before is written
_COPY = 0.1  # how strongly what was found is written
_SEARCHERS = 2


@torch.no_grad()  # type: ignore[untyped-decorator] # PyTorch is not installed where this is checked
def look_back(model: Llama) -> None:
    """Overwrite head 0 of layer 0, and the first heads of layer 1."""
    shape = model.shape
    deviation = float(model.embedding.weight.std())
    model.embedding.weight[:, 0] = _CONSTANT * deviation
    code, place = _frame(shape.head_width, shape.width), _frame(shape.head_width, shape.width)
    _note_token_before(model.blocks[0], shape, code, place)
    for number in range(_SEARCHERS):
        _search(model.blocks[1], shape, number, code, place)


def _note_token_before(block: Block, shape: Shape, code: Tensor, place: Tensor) -> None:
    """Head 0 looks one token back, whatever stands there, and writes that token's code."""
    size = shape.head_width
    turns = shape.rope_base ** (-torch.arange(0, size, 2) / size)[:_FAST_PAIRS]
    query, key = torch.zeros(size), torch.zeros(size)
    query[0 : 2 * _FAST_PAIRS : 2], query[1 : 2 * _FAST_PAIRS : 2] = turns.cos(), -turns.sin()
    key[0 : 2 * _FAST_PAIRS : 2] = 1
    block.query.weight[:size] = 0
    block.key.weight[:size] = 0
    block.query.weight[:size, 0] = query * _SHARPNESS / _CONSTANT
    block.key.weight[:size, 0] = key * _SHARPNESS / _CONSTANT
    block.value.weight[:size] = code
    block.output.weight[:, :size] = place.T * _CODE


def _search(block: Block, shape: Shape, number: int, code: Tensor, place: Tensor) -> None:
    """Head ``number`` looks for places behind a token like this one, and brings what is there."""
    size = shape.head_width
    rows = slice(number * size, (number + 1) * size)
    part = slice(number * _SLOW_DIMENSIONS, (number + 1) * _SLOW_DIMENSIONS)
    compared = slice(rows.stop - _SLOW_DIMENSIONS, rows.stop)
    block.query.weight[rows] = 0
    block.key.weight[rows] = 0
    block.query.weight[compared] = code[part] * _MATCH
    block.key.weight[compared] = place[part] * _MATCH
    content = _frame(size, shape.width)
    block.value.weight[rows] = content
    block.output.weight[:, rows] = content.T * _COPY


def _frame(rows: int, width: int) -> Tensor:
    """Random orthonormal rows that leave the constant coordinate out."""
    frame = torch.zeros(rows, width)
    frame[:, 1:] = torch.linalg.qr(torch.randn(width - 1, rows))[0].T
    return frame
