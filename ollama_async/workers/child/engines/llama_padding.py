"""Padding rows: with separate caches, they join what would be evaluated one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise

import msgspec

from ollama_async.workers.child.engines.engine import Row


class PassCost(msgspec.Struct, frozen=True):
    """The cost of a pass, in units of one more row in a pass of at least two: ``lone`` for a single
    row, otherwise ``fixed`` + its rows.
    """

    lone: float
    fixed: float

    def __call__(self, rows: int) -> float:
        return self.lone if rows == 1 else self.fixed + rows


CPU_COST = PassCost(lone=6, fixed=8)
"""Typical of known CPUs: a lone row costs 2.5 to 13 rows, a pass 7 to 30 (bench/README.md)."""
ACCELERATOR_COST = PassCost(lone=64, fixed=64)
"""There, a pass costs nearly the same whatever its rows."""


def find_padding_slots(
    ordered: Sequence[Row], cost: PassCost, has_space: Callable[[int], bool]
) -> list[int]:
    """Idle slots in which a padding row pays. ``ordered``: the rows of the step, by slot.

    With a KV buffer per sequence, the library evaluates only sequences with consecutive numbers
    together. Each such run is one pass over the weights, which costs as much as several rows. A
    padding row, in an idle slot, joins the runs on both sides of it.

    Only rows of one token count: a prompt's chunk is a pass by itself, except its first token.
    """
    if ordered[-1].slot - ordered[0].slot < len(ordered):
        return []
    chosen: list[int] = []
    group = 0
    # slot - index is the same in a run of consecutive slots
    runs = groupby(enumerate(ordered), lambda each: each[1].slot - each[0])
    for before, run in pairwise([[], *([row for _, row in run] for _, run in runs)]):
        rows = sum(len(row.tokens) == 1 for row in run)
        idle = range(before[-1].slot + 1, run[0].slot) if before else range(0)
        joined = group + len(idle) + rows
        is_worth = group and rows and cost(joined) < cost(group) + cost(rows)
        if is_worth and all(map(has_space, idle)):
            chosen += idle
            group = joined
        else:
            group = rows
    return chosen
