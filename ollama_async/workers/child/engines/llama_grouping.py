"""Which idle slots to carry along, so that the library evaluates a step in few passes.

With a KV buffer per sequence the library evaluates together only sequences whose numbers follow
each other without a gap; every such run is one pass over the weights, which costs as much as
several rows. A throw-away row in an idle slot joins the runs on both sides of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ollama_async.workers.child.engines.engine import Row


class PassCost:
    """What a pass costs, in units of one row more in a pass that has at least two: ``lone`` for a
    single row, else ``fixed`` + its rows.
    """

    def __init__(self, lone: float, fixed: float) -> None:
        self._lone = lone
        self._fixed = fixed

    def __call__(self, rows: int) -> float:
        return self._lone if rows == 1 else self._fixed + rows


CPU_COST = PassCost(lone=6, fixed=8)
"""Between the CPUs known: a lone row costs 2.5 to 13 rows, a pass 7 to 30 (bench/README.md)."""
ACCELERATOR_COST = PassCost(lone=64, fixed=64)
"""There a pass costs nearly the same whatever its rows."""


def slots_to_bridge(
    ordered: Sequence[Row], cost: PassCost, is_free: Callable[[int], bool]
) -> list[int]:
    """Idle slots worth a throw-away row. ``ordered`` are the step's rows by slot; ``is_free`` says
    whether an idle slot has room for a token.

    Only rows of one token count: a prompt's chunk is a pass by itself, except its first token.
    """
    if ordered[-1].slot - ordered[0].slot < len(ordered):
        return []
    chosen: list[int] = []
    group = 0
    for before, run in pairwise([[], *_runs(ordered)]):
        rows = sum(len(row.tokens) == 1 for row in run)
        idle = range(before[-1].slot + 1, run[0].slot) if before else range(0)
        joined = group + len(idle) + rows
        is_worth = group and rows and cost(joined) < cost(group) + cost(rows)
        if is_worth and all(map(is_free, idle)):
            chosen += idle
            group = joined
        else:
            group = rows
    return chosen


def _runs(ordered: Sequence[Row]) -> list[list[Row]]:
    """The rows, cut where slot numbers leap."""
    runs = [[ordered[0]]]
    for left, right in pairwise(ordered):
        if right.slot > left.slot + 1:
            runs.append([])
        runs[-1].append(right)
    return runs
