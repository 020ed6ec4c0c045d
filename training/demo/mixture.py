"""How much of each skill the corpus holds, and the seeded stream of its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from training.demo.example import Example
from training.demo.skills import (
    arithmetic,
    copying,
    json_fill,
    memory,
    questions,
    stories,
    tools,
    unknown,
)

Maker = Callable[..., Example]

SHARES: dict[Maker, float] = {
    questions.make: 0.42,
    unknown.make: 0.04,
    tools.make: 0.22,
    memory.make: 0.08,
    json_fill.make: 0.08,
    arithmetic.make: 0.09,
    stories.make: 0.02,
    copying.make: 0.05,
}
"""Of a hundred examples. Tool calls are the longest, so more than half of all tokens are theirs."""


def examples(seed: int, count: int) -> Iterator[Example]:
    """``count`` examples for training; the same ones for the same seed."""
    rng = Random(seed)
    makers, shares = list(SHARES), list(SHARES.values())
    for make in rng.choices(makers, shares, k=count):
        yield make(rng, held_out=False)
