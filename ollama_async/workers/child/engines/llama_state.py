"""The library's form of a saved state, as far as it takes positions from it without checking them.

A cell with a negative position could never be removed from its sequence again, so a state from a
worker that may have been taken over is checked before the library reads it. The form (of llama.cpp
as in llama-cpp-python 0.3.36, integers in native byte order)::

    u32 magic, i32 sequence, then for each KV cache:
    u32 streams, and for each of them: u32 cells; nothing more if there are none, else
        each cell: i32 position, u32 sequences (1), perhaps 12 bytes more, i32 sequence
        u32 whether values are transposed, u32 layers
        keys of each layer: i32 type, u64 bytes of a cell, data
        values of each layer: the same; if transposed: i32 type, u32 bytes of a number,
        u32 numbers of a cell, data

Recurrent and hybrid models have another form, which is not read: their states are not accepted from
another worker.
"""

from __future__ import annotations

import struct

import numpy as np

from ollama_async.workers.child.engines.engine import SavedState

_CELL_BYTES = (12, 24)
_MAX_CACHES, _MAX_STREAMS, _MAX_LAYERS = 4, 1024, 4096


def is_acceptable(state: SavedState, length: int) -> bool:
    """Whether every cache in the state has cells at distinct positions from 0 to ``length`` - 1,
    the last one among them, and the state ends where it should.
    """
    return any(_is_whole(_Reader(state.data), length, size) for size in _CELL_BYTES)


class _Reader:
    """Raises ValueError beyond the end of ``data``."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> memoryview:
        begin, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ValueError(size)
        return self._data[begin : self._at]

    def unpack(self, numbers: str) -> tuple[int, ...]:
        """Of these kinds, as :mod:`struct` names them."""
        return struct.unpack(f"={numbers}", self.take(struct.calcsize(f"={numbers}")))


def _is_whole(reader: _Reader, length: int, cell_bytes: int) -> bool:
    try:
        reader.unpack("Ii")
        for _ in range(_MAX_CACHES):
            _skip_cache(reader, length, cell_bytes)
            if reader.is_at_end:
                return True
    except ValueError:
        pass
    return False


def _skip_cache(reader: _Reader, length: int, cell_bytes: int) -> None:
    """:raises ValueError: it is not acceptable."""
    (streams,) = reader.unpack("I")
    for _ in range(min(streams, _MAX_STREAMS)):
        (cells,) = reader.unpack("I")
        if cells:
            _check_cells(reader.take(cells * cell_bytes), cells, length)
            _skip_data(reader, cells)


def _check_cells(data: memoryview, cells: int, length: int) -> None:
    numbers = np.frombuffer(data, np.int32).reshape(cells, -1)
    positions = np.sort(numbers[:, 0])
    is_valid = positions[0] >= 0 and positions[-1] == length - 1 and np.all(np.diff(positions) > 0)
    if not is_valid or np.any(numbers[:, 1] != 1):
        raise ValueError(positions)


def _skip_data(reader: _Reader, cells: int) -> None:
    is_transposed, layers = reader.unpack("II")
    if layers > _MAX_LAYERS:
        raise ValueError(layers)
    for _ in range(layers):
        _, cell_bytes = reader.unpack("iQ")
        reader.take(cells * cell_bytes)
    for _ in range(layers):
        if is_transposed:
            _, number_bytes, numbers = reader.unpack("iII")
            reader.take(cells * number_bytes * numbers)
        else:
            _, cell_bytes = reader.unpack("iQ")
            reader.take(cells * cell_bytes)
