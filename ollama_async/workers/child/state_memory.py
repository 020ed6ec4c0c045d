"""Memory for saved states of the KV cache that outlives the worker which wrote them.

It is a ``memfd`` that the parent creates, and gives to the next worker of the same model
(:mod:`ollama_async.workers.cache_memory`). Its layout, with integers in native byte order::

    offset   size       what
    0        8          magic and the layout's version
    8        32         key: which model, library and layout of the cache the states are of
    64       64 each    1,024 records: mark, offset, bytes of the state, checksum of the state,
                        number of tokens, bytes of the owner, order of use, 0
    69,632   the rest   regions: pages with the tokens (4 bytes each) and the owner, then pages
                        with the state

**Whole or not at all.** A record counts if its mark is right: the CRC of its other fields (without
the order of use), its tokens and its owner. The mark is written last, and cleared before a region
is given up. So whenever a worker is killed, what it was writing does not count. While a state is
being restored its mark is cleared, too: one that kills the worker is gone for the next.

**Nothing is trusted.** A hostile model may have taken over the worker that wrote this. Records are
copied before they are checked. Offsets, lengths and overlaps are checked here. Before its first use
the user of the memory checks a state's checksum, and its form with the engine. A forged state can
still make answers wrong, of the same model, which could do that anyway.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import zlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from ollama_async.workers.sealed_memory import SEALS

MAGIC = b"OA-KVST\x01"
KEY_BYTES = 32
MAX_STATES = 1024
"""At a time. Bounds what a lookup and a new worker's checks cost."""

PAGE_BYTES = 4096
DATA_OFFSET = 17 * PAGE_BYTES
_DIRECTORY, _RECORD_BYTES = 64, 64
_WORDS = 8
_MARK, _CHECKSUM, _USED = 0, 3, 6  # positions in a record
_MAX_OWNER_BYTES = 1024
_TOKEN_BYTES = 4
_IS_SET = 1 << 32  # a mark is never zero


class MemoryUnusable(Exception):
    """Not a sealed memfd of a useful size."""


class StoredState(msgspec.Struct, eq=False, gc=False):
    """A state in the memory. ``tokens``: their ids, 4 bytes each. ``offset`` and ``size``: of its
    region. ``is_own``: it was written, or has been checked, by this process. ``key``: for the user
    of the memory.
    """

    index: int
    tokens: bytes
    owner: str
    offset: int
    size: int
    state_bytes: int
    mark: int = 0
    is_own: bool = False
    key: int = 0

    @property
    def length(self) -> int:
        """The number of tokens."""
        return len(self.tokens) // _TOKEN_BYTES

    @property
    def state_offset(self) -> int:
        return self.offset + self.size - _round_up(self.state_bytes, PAGE_BYTES)


class StateMemory:
    """Maps the memory of ``fd``, which the caller may close then. It holds the states of a former
    worker if that had the same ``key`` (of :data:`KEY_BYTES`); else it is emptied.

    :raises MemoryUnusable: the descriptor is not such a memory.
    """

    def __init__(self, fd: int, key: bytes) -> None:
        self._memory, self.capacity = _map(fd)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self._words = memoryview(self._memory)[:DATA_OFFSET].cast("Q")
        self._regions: list[tuple[int, int]] = []  # offset and size, in order
        self._uses = 0
        self.limit = self.capacity
        if self._memory[:_DIRECTORY] != _header(key):
            self._memory.madvise(mmap.MADV_REMOVE)  # frees all pages
            self._memory[:_DIRECTORY] = _header(key)

    def find_states(self) -> list[StoredState]:
        """What a former worker left whole, the state that was used last at the end. Call it once,
        first; all other records are cleared.
        """
        found: list[tuple[int, StoredState]] = []
        directory = self._memory[_DIRECTORY : _DIRECTORY + MAX_STATES * _RECORD_BYTES]
        for index, record in enumerate(struct.iter_unpack(f"={_WORDS}Q", directory)):
            state = self._read(index, *record[:6])
            if state is not None:
                found.append((record[_USED], state))
            elif any(record):
                self._set(index, _MARK, 0)
        whole = []
        end = DATA_OFFSET
        for used, state in sorted(found, key=lambda each: each[1].offset):
            if state.offset < end:
                self._set(state.index, _MARK, 0)
                continue
            end = state.offset + state.size
            self._regions.append((state.offset, state.size))
            whole.append((used, state.index, state))
        ordered = [state for *_, state in sorted(whole, key=lambda each: each[:2])]
        for state in ordered:
            self.touch(state)
        return ordered

    def _read(
        self,
        index: int,
        mark: int,
        offset: int,
        state_bytes: int,
        checksum: int,
        token_count: int,
        owner_bytes: int,
    ) -> StoredState | None:
        """The state of a record, if that is whole."""
        if not mark or owner_bytes > _MAX_OWNER_BYTES or not state_bytes or not token_count:
            return None
        if max(offset, state_bytes, token_count * _TOKEN_BYTES) > self.capacity:
            return None
        size = _region_bytes(token_count, owner_bytes, state_bytes)
        if offset < DATA_OFFSET or offset % PAGE_BYTES or offset + size > self.capacity:
            return None
        middle = offset + token_count * _TOKEN_BYTES
        tokens, owner = self._memory[offset:middle], self._memory[middle : middle + owner_bytes]
        if mark != _mark(offset, state_bytes, checksum, tokens, owner):
            return None
        try:
            name = owner.decode()
        except UnicodeDecodeError:
            return None
        return StoredState(index, tokens, name, offset, size, state_bytes, mark)

    def can_hold(self, tokens: bytes, owner: str, state_bytes: int) -> bool:
        """Whether such a state would fit if there was no other."""
        owner_bytes = len(owner.encode())
        size = _region_bytes(len(tokens) // _TOKEN_BYTES, owner_bytes, state_bytes)
        return owner_bytes <= _MAX_OWNER_BYTES and DATA_OFFSET + size <= self.limit

    def allocate(
        self, index: int, tokens: bytes, owner: str, state_bytes: int
    ) -> StoredState | None:
        """Space for a state under a free ``index`` below :data:`MAX_STATES`; it counts after
        :meth:`publish`. None: no gap is large enough.
        """
        owner_bytes = len(owner.encode())
        size = _region_bytes(len(tokens) // _TOKEN_BYTES, owner_bytes, state_bytes)
        begin = DATA_OFFSET
        for place, (offset, length) in enumerate([*self._regions, (self.limit, 0)]):
            if begin + size <= offset:
                self._regions.insert(place, (begin, size))
                return StoredState(index, tokens, owner, begin, size, state_bytes)
            begin = offset + length
        return None

    def publish(self, state: StoredState) -> None:
        """Its bytes have been written to :meth:`view`: it is whole now."""
        owner, checksum = state.owner.encode(), self._sum(state)
        middle = state.offset + len(state.tokens)
        self._memory[state.offset : middle] = state.tokens
        self._memory[middle : middle + len(owner)] = owner
        fields = (state.offset, state.state_bytes, checksum, state.length, len(owner))
        for position, value in enumerate(fields, _MARK + 1):
            self._set(state.index, position, value)
        self.touch(state)
        state.mark = _mark(state.offset, state.state_bytes, checksum, state.tokens, owner)
        state.is_own = True
        self._set(state.index, _MARK, state.mark)

    def remove(self, state: StoredState) -> None:
        """Free its region and its index."""
        self._set(state.index, _MARK, 0)
        self._regions.remove((state.offset, state.size))

    def touch(self, state: StoredState) -> None:
        """It is the one that was used last."""
        self._uses += 1
        self._set(state.index, _USED, self._uses)

    def hide(self, state: StoredState) -> None:
        """It does not count for a later worker until :meth:`show`."""
        self._set(state.index, _MARK, 0)

    def show(self, state: StoredState) -> None:
        self._set(state.index, _MARK, state.mark)

    def view(self, state: StoredState) -> NDArray[np.uint8]:
        """The bytes of the state itself."""
        begin = state.state_offset
        return self._bytes[begin : begin + state.state_bytes]

    def is_intact(self, state: StoredState) -> bool:
        """Whether the state has the bytes that were published."""
        return self._get(state.index, _CHECKSUM) == self._sum(state)

    def set_limit(self, limit: int) -> None:
        """Use only the first ``limit`` bytes. The caller has removed what lies beyond; that memory
        is given back.
        """
        self.limit = min(self.capacity, max(DATA_OFFSET, limit - limit % PAGE_BYTES))
        if self.limit < self.capacity:
            self._memory.madvise(mmap.MADV_REMOVE, self.limit, self.capacity - self.limit)

    def close(self) -> None:
        """Unmap it. No view may be left."""
        self._words.release()
        del self._bytes
        self._memory.close()

    def _sum(self, state: StoredState) -> int:
        """Of the state in words of 8 bytes: 12 MB take 0.2 ms."""
        begin = state.state_offset
        words = self._bytes[begin : begin + _round_up(state.state_bytes, 8)].view(np.uint64)
        return int(np.add.reduce(words))

    def _get(self, index: int, position: int) -> int:
        return self._words[(_DIRECTORY + index * _RECORD_BYTES) // _WORDS + position]

    def _set(self, index: int, position: int, value: int) -> None:
        self._words[(_DIRECTORY + index * _RECORD_BYTES) // _WORDS + position] = value


def _map(fd: int) -> tuple[mmap.mmap, int]:
    try:
        seals, size = fcntl.fcntl(fd, fcntl.F_GET_SEALS), os.fstat(fd).st_size
    except OSError as reason:
        raise MemoryUnusable(f"descriptor {fd} is no memfd: {reason}") from reason
    if seals & SEALS != SEALS or size <= DATA_OFFSET or size % PAGE_BYTES:
        raise MemoryUnusable(f"memfd of {size} bytes, seals {seals:#x}, cannot hold states")
    try:
        return mmap.mmap(fd, size), size
    except OSError as reason:
        raise MemoryUnusable(f"cannot map {size} bytes: {reason}") from reason


def _header(key: bytes) -> bytes:
    return (MAGIC + key).ljust(_DIRECTORY, b"\0")


def _region_bytes(token_count: int, owner_bytes: int, state_bytes: int) -> int:
    front = _round_up(token_count * _TOKEN_BYTES + owner_bytes, PAGE_BYTES)
    return front + _round_up(state_bytes, PAGE_BYTES)


def _mark(offset: int, state_bytes: int, checksum: int, tokens: bytes, owner: bytes) -> int:
    fields = struct.pack("=5Q", offset, state_bytes, checksum, len(tokens), len(owner))
    return zlib.crc32(owner, zlib.crc32(tokens, zlib.crc32(fields))) | _IS_SET


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
