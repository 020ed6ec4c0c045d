"""The library's batch: filled through numpy views, and padded so that it takes few passes.

A ``llama_batch`` is five parallel arrays. Writing them one element at a time through ctypes costs
about a microsecond each. Here the rows are gathered in lists, and each array is written at once.

With a KV buffer per sequence, the library evaluates only sequences with consecutive numbers
together. Each such run is one pass over the weights, which costs as much as several rows. A padding
row, in an idle slot, joins the runs on both sides of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import llama_cpp.llama_cpp as lib
import msgspec
import numpy as np

from ollama_async.workers.child.engines.engine import Row


class LlamaBatch:
    """Has space for ``capacity`` tokens of ``slots`` sequences; ``llama_decode`` takes ``raw``."""

    def __init__(self, capacity: int, slots: int) -> None:
        self._capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        self._ids = np.arange(slots, dtype=np.int32)
        self._id_addresses = np.zeros(capacity, np.uintp)  # each points into _ids
        self._first_id: int = self._ids.ctypes.data
        self.raw: Any = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, lib.llama_token),
            embd=None,
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._id_addresses, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def fill(self, rows: Sequence[Row]) -> None:
        """Lay out the rows in order; the last token of a row that samples gets logits.

        :raises ValueError: they do not fit, or a token is not a 32-bit number.
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

    Only rows of one token count: a prompt's chunk is a pass by itself, except its first token.
    """
    if ordered[-1].slot - ordered[0].slot < len(ordered):
        return []
    chosen: list[int] = []
    group = 0
    for before, run in pairwise([[], *_consecutive_runs(ordered)]):
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


def _consecutive_runs(ordered: Sequence[Row]) -> list[list[Row]]:
    runs = [[ordered[0]]]
    for left, right in pairwise(ordered):
        if right.slot > left.slot + 1:
            runs.append([])
        runs[-1].append(right)
    return runs
