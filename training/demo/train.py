"""The training loop: one pass over the corpus, Muon for matrices and AdamW for the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from demo.batches import LENGTHS, Batch, Encoded, batches, collate, drills
from demo.heads import look_back
from demo.model import Llama, Shape

_MATRIX_RATE = 0.007
_OTHER_RATE = 2e-3
_WARM_UP = 100
_BATCHES_A_STEP = 2
_REPORT_EVERY = 50


def new_model(shape: Shape, seed: int) -> Llama:
    """Random weights, but for the heads that copy."""
    torch.manual_seed(seed)
    model = Llama(shape)
    look_back(model)
    return model


def train(
    model: Llama,
    corpus: list[Encoded],
    *,
    seed: int,
    drilled: int,
    pace: float,
    watch: Callable[[Llama, int], None],
) -> None:
    """Train on every example once.

    ``drilled``: how many examples of pure copying come in between at first. ``pace``: the part of
    the full learning rate to begin with; it falls to nothing over all steps, because the lower it
    is the more is learned for good. ``watch`` is called now and then with the model and the number
    of steps done.
    """
    matrices = [weight for name, weight in model.named_parameters() if _is_matrix(name, weight)]
    others = [weight for name, weight in model.named_parameters() if not _is_matrix(name, weight)]
    optimizers = [
        torch.optim.Muon(matrices, lr=_MATRIX_RATE * pace, weight_decay=0.05, momentum=0.95),
        torch.optim.AdamW(
            others, lr=_OTHER_RATE * pace, weight_decay=0.0, betas=(0.9, 0.98), fused=True
        ),
    ]
    torch._dynamo.config.recompile_limit = 2 * len(LENGTHS)  # noqa: SLF001 - its only name
    loss_of = torch.compile(_loss, dynamic=False)
    rng = np.random.default_rng(seed)
    groups = _groups(corpus, drills(model.shape.vocabulary, drilled, seed), seed)
    steps = len(groups) // _BATCHES_A_STEP
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        for optimizer in optimizers
    ]
    began, tokens, losses = time.monotonic(), 0, []
    for step in range(steps):
        for rows in groups[step * _BATCHES_A_STEP : (step + 1) * _BATCHES_A_STEP]:
            batch = collate(rows, rng)
            tokens += sum(len(row.ids) for row in rows)
            loss = loss_of(model, *_tensors(batch))
            (loss / _BATCHES_A_STEP).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if step % _REPORT_EVERY == _REPORT_EVERY - 1:
            spent = time.monotonic() - began
            print(
                f"step {step + 1}/{steps}  loss {np.mean(losses):.4f}  "
                f"{tokens / spent:,.0f} tokens/s  {spent:.0f} s",
                flush=True,
            )
            losses.clear()
            watch(model, step + 1)


def _groups(corpus: list[Encoded], exercises: list[Encoded], seed: int) -> list[list[Encoded]]:
    """The batches in the order of training: at first every second one is of exercises."""
    examples, drilling = batches(corpus, seed), batches(exercises, seed)
    mixed = [group for pair in zip(drilling, examples, strict=False) for group in pair]
    return mixed + examples[len(drilling) :]


def accuracy(model: Llama, examples: Iterable[Encoded]) -> float:
    """The share of examples whose answer is, token for token, what the model likes best.

    That is what greedy decoding would write, so nothing needs to be generated.
    """
    right = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for example in examples:
            ids = torch.from_numpy(example.ids.astype(np.int64))
            states = model(ids[None, :-1])[0, example.prompt - 1 :]
            best = model.logits(states).argmax(-1)
            right.append(bool((best == ids[example.prompt :]).all()))
    return sum(right) / max(len(right), 1)


def _loss(model: Llama, ids: Tensor, positions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        states = model(ids).flatten(0, 1)[positions]
        logits = model.logits(states)
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def _tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(batch.ids),
        torch.from_numpy(batch.positions),
        torch.from_numpy(batch.targets),
        torch.from_numpy(batch.weights),
    )


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.dim() > 1 and "embedding" not in name


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, and a linear way down to nothing."""
    return min((step + 1) / _WARM_UP, (steps - step) / steps)
