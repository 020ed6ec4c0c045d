"""Batches of the library: of tokens, and of embeddings; and what its failures mean."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from ollama_async.workers.child.engines.engine import Row, SpanEmbeddings

INVALID_BATCH = -1
FAILURES = {
    1: "no room in the KV cache",
    2: "evaluation was aborted",
    INVALID_BATCH: "the batch is not valid",
    -2: "not enough memory to evaluate the batch",
    -3: "evaluation failed",
}


class LlamaBatch:
    """Has space for ``capacity`` tokens of ``slots`` sequences; ``llama_decode`` takes ``raw``.

    A ``llama_batch`` is five parallel arrays. Writing them one element at a time through ctypes
    costs about a microsecond each. Here the rows are gathered in lists, and each array is written
    at once.
    """

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

    def fill(self, rows: Sequence[Row], *, outputs_all: bool = False) -> None:
        """Lay out the rows in order; the last token of a row that samples gets logits, with the
        token before each of its drafts, or every token if it ``outputs_all``.

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
                outputs += range(len(tokens) - 1 - row.drafts, len(tokens))
        size = len(tokens)
        if not 0 < size <= self._capacity:
            raise ValueError(f"a step of {size} tokens; it may have 1 to {self._capacity}")
        try:
            self._tokens[:size] = tokens
        except OverflowError as error:
            raise ValueError(str(error)) from None
        self._positions[:size] = positions
        self._id_addresses[:size] = addresses
        self._outputs[:size] = outputs_all
        self._outputs[outputs] = 1
        self.raw.n_tokens = size


def _pointer(array: Any, kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


class SpanBatch:
    """A part of a span's embeddings for one slot; ``llama_decode`` takes ``raw``. ``begin``: the
    position of the span. ``outputs``: which vectors get logits.
    """

    def __init__(self, embeddings: SpanEmbeddings, part: slice, begin: int, slot: int) -> None:
        self._vectors = np.ascontiguousarray(embeddings.vectors[part])
        size = len(self._vectors)
        if embeddings.offsets is None or embeddings.slopes is None:
            positions = np.arange(begin + part.start, begin + part.stop, dtype=np.int32)
        else:
            positions = embeddings.offsets[:, part] + embeddings.slopes[:, part] * np.int32(begin)
        self._positions = np.ascontiguousarray(positions)
        self._ones = np.ones(size, np.int32)
        self._id = np.array([slot], np.int32)
        self._id_addresses = np.full(size, self._id.ctypes.data, np.uintp)
        self.outputs = np.zeros(size, np.int8)
        self.raw: Any = lib.llama_batch(
            n_tokens=size,
            token=None,
            embd=_pointer(self._vectors, ctypes.c_float),
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=_pointer(self._id_addresses, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self.outputs, ctypes.c_int8),
        )


class SlotPositions:
    """Which position each token of a slot has in the library: its index, unless spans of images
    before it took more tokens than positions.
    """

    def __init__(self) -> None:
        self.skips: list[tuple[int, int]] = []  # from which index on, how many fewer

    def of(self, index: int) -> int:
        return index - sum(count for begin, count in self.skips if begin <= index)

    def skip(self, begin: int, count: int) -> None:
        if count:
            self.skips.append((begin, count))

    def trim(self, length: int) -> None:
        self.skips = [skip for skip in self.skips if skip[0] <= length]

    def copy(self, other: SlotPositions) -> None:
        self.skips = list(other.skips)
