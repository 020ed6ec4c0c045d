"""Contrastive training: a sentence picks its paraphrase among all other sentences of the batch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 -- the name that everybody knows

from embed.corpus import triplets
from embed.model import Shape, Weights, embed, initial_weights
from embed.statements import Triplet
from embed.tokenizer import WordPiece

_TEMPERATURE = 0.05
_PART = 128
"""Texts computed together; they are of similar length, so little is padding."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    steps: int = 1000
    batch: int = 256
    peak_rate: float = 2e-3
    warm_up_steps: int = 100
    seed: int = 1
    longest: int = 96  # tokens; a few answers are longer and are cut


def train(pieces: WordPiece, shape: Shape, plan: Plan) -> Weights:
    """Weights after the last step; the same ones for the same arguments and number of threads."""
    weights = initial_weights(shape, plan.seed)
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.AdamW(weights.values(), betas=(0.9, 0.98), weight_decay=0.01)
    began = time.monotonic()
    for step, batch in enumerate(islice(_batches(plan), plan.steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, plan)
        loss = _loss(weights, shape, pieces, batch, plan.longest)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s")
    return {name: weight.detach() for name, weight in weights.items()}


def _batches(plan: Plan) -> Iterator[list[Triplet]]:
    stream = triplets(plan.seed)
    while True:
        yield list(islice(stream, plan.batch))


def _rate(step: int, plan: Plan) -> float:
    """Up in a line, down in half a cosine."""
    if step <= plan.warm_up_steps:
        return plan.peak_rate * step / plan.warm_up_steps
    done = (step - plan.warm_up_steps) / (plan.steps - plan.warm_up_steps)
    return plan.peak_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def _loss(
    weights: Weights, shape: Shape, pieces: WordPiece, batch: Sequence[Triplet], longest: int
) -> Tensor:
    """How badly anchors pick their positives among all positives and negatives, and the reverse
    among all anchors. Another text of the same meaning is not offered.
    """
    count = len(batch)
    texts = [row.anchor for row in batch] + [row.positive for row in batch]
    texts += [row.negative for row in batch if row.negative]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = _embed_by_length(
            weights, shape, [pieces.encode(text, min(longest, shape.positions)) for text in texts]
        )
    anchors, candidates = vectors[:count], vectors[count:]
    same = _same_meaning(batch)
    forward = anchors @ candidates.T / _TEMPERATURE
    forward[:, :count].masked_fill_(same, -torch.inf)
    backward = (candidates[:count] @ anchors.T / _TEMPERATURE).masked_fill(same, -torch.inf)
    right = torch.arange(count)
    return (F.cross_entropy(forward, right) + F.cross_entropy(backward, right)) / 2


def _embed_by_length(weights: Weights, shape: Shape, texts: Sequence[Sequence[int]]) -> Tensor:
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    parts = [order[at : at + _PART] for at in range(0, len(order), _PART)]
    vectors = torch.cat([embed(weights, shape, [texts[n] for n in part]) for part in parts])
    return vectors[torch.argsort(torch.tensor(order))]


def _same_meaning(batch: Sequence[Triplet]) -> Tensor:
    numbers = {row.meaning: number for number, row in enumerate(batch)}
    meaning = torch.tensor([numbers[row.meaning] for row in batch])
    return (meaning[:, None] == meaning[None, :]) & ~torch.eye(len(batch), dtype=torch.bool)
