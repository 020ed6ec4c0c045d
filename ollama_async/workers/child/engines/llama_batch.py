"""The library's batch, filled through numpy views.

A ``llama_batch`` is five parallel arrays. Writing them element by element through ctypes costs
about a microsecond each; here the rows are gathered in lists and each array is written at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from ollama_async.workers.child.engines.engine import Row


class Batch:
    """Room for ``capacity`` tokens of ``slots`` sequences; ``llama_decode`` takes ``raw``."""

    def __init__(self, capacity: int, slots: int) -> None:
        self._capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._one_each = np.ones(capacity, np.int32)
        self._ids = np.arange(slots, dtype=np.int32)
        self._id_addresses = np.zeros(capacity, np.uintp)  # each points into _ids
        self._first_id: int = self._ids.ctypes.data
        self.raw: Any = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, lib.llama_token),
            embd=None,
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._one_each, ctypes.c_int32),
            seq_id=_pointer(self._id_addresses, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def fill(self, rows: Sequence[Row]) -> None:
        """Lay the rows one after the other; the last token of a row that samples gives logits.

        :raises ValueError: they do not fit, or a token is no 32-bit number.
        """
        tokens: list[int] = []
        positions: list[int] = []
        addresses: list[int] = []
        outputs: list[int] = []
        for row in rows:
            count = len(row.tokens)
            address = self._first_id + 4 * row.slot
            if count == 1:
                tokens.append(row.tokens[0])
                positions.append(row.position)
                addresses.append(address)
            else:
                tokens += row.tokens
                positions += range(row.position, row.position + count)
                addresses += [address] * count
            if row.samples:
                outputs.append(len(tokens) - 1)
        size = len(tokens)
        if not 0 < size <= self._capacity:
            raise ValueError(f"a step of {size} tokens; it may have 1 to {self._capacity}")
        try:
            self._tokens[:size] = tokens
        except OverflowError as error:
            raise ValueError(str(error)) from None
        self._positions[:size] = positions
        self._id_addresses[:size] = addresses
        self._outputs[:size] = 0
        self._outputs[outputs] = 1
        self.raw.n_tokens = size


def _pointer(array: Any, kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


# MERGED from llama_grouping.py
# """Which idle slots to carry along, so that the library evaluates a step in few passes.
#
# With a KV buffer per sequence the library evaluates together only sequences whose numbers follow
# each other without a gap; every such run is one pass over the weights, which costs as much as
# several rows. A throw-away row in an idle slot joins the runs on both sides of it.
# """


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
