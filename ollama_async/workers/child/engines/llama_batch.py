"""The library's batch, filled through numpy views.

A ``llama_batch`` is five parallel arrays. Writing them element by element through ctypes costs
about a microsecond each; here the rows are gathered in lists and each array is written at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
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
