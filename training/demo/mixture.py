"""How much of each skill the corpus holds, and the seeded stream of its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from demo.example import Example
from demo.skills import (
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

MIXTURES: dict[str, dict[Maker, float]] = {
    "even": {
        questions.make: 0.42,
        unknown.make: 0.04,
        tools.make: 0.22,
        memory.make: 0.08,
        json_fill.make: 0.08,
        arithmetic.make: 0.09,
        stories.make: 0.02,
        copying.make: 0.05,
    },
    "thoughtful": {
        questions.make: 0.30,
        questions.make_thoughtful: 0.14,
        unknown.make: 0.04,
        tools.make: 0.24,
        memory.make: 0.07,
        json_fill.make: 0.07,
        arithmetic.make: 0.07,
        stories.make: 0.02,
        copying.make: 0.05,
    },
}
"""Of a hundred examples. Tool calls are the longest, so more than half of all tokens are theirs.
Servers have a model think unless they are told not to, so a thought must find its question as well
as an answer does; that is learned last.
"""


def examples(seed: int, count: int, mixture: str) -> Iterator[Example]:
    """``count`` examples for training; the same ones for the same seed and mixture."""
    rng = Random(seed)
    makers, shares = list(MIXTURES[mixture]), list(MIXTURES[mixture].values())
    for make in rng.choices(makers, shares, k=count):
        yield make(rng, held_out=False)
