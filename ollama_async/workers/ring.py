"""A ring buffer in shared memory, with exactly one writer and one reader.

The memory is a ``memfd``: it has no name that could be left behind, and is freed with its last
descriptor, even after SIGKILL. It is sealed against resizing, so no peer can cause SIGBUS here.

The layout, with integers in native byte order::

    offset   size  what            written by
    0        8     magic           create(): b"OA-RING" and the layout's version, one byte
    8        8     capacity        create(): bytes of data, at least 8
    64       8     write index     the writer: bytes written so far
    128      8     read index      the reader: bytes read so far
    256      cap.  data            the writer: byte i is at 256 + i mod capacity

Both indices only grow (at 1 GB/s for 500 years), each on its own cache line. ``write index - read
index`` is the number of unread bytes, from 0 to the capacity. A peer's index is checked before it
is used: one out of range, or that goes backwards, raises :class:`RingCorrupt`. A side's own index
is private and never read back, so the peer cannot change it.

**Atomic stores.** An index is stored through a ``memoryview`` of format ``Q``, which CPython does
by a ``memcpy`` of constant size 8, that is one 8-byte store (glibc's memcpy also moves 8 bytes at
once). The address is a multiple of 64, so the store is atomic on x86-64 and ARMv8. So are loads.

**Memory order.** Data must be visible before the index that covers it, must not be read before that
index, and must have been read before the read index frees its space. x86 guarantees these three
orders, also for string copies. ARM guarantees none, so each has a fence: releasing and reacquiring
an uncontended lock. CPython's lock is ``sem_post`` and ``sem_trywait`` (in newer versions a
compare-and-exchange), which POSIX lists among the functions that synchronize memory. On ARMv8 that
is a store-release followed by a load-acquire, which the architecture keeps in order with everything
before and after. One fence costs about 0.1 µs. The writer needs none between reading the read index
and overwriting freed bytes: its stores depend on a branch on that load.

The argument for ARM follows the architecture's rules; the code has been run on x86 only.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading

from ollama_async.workers import sealed_memory
from ollama_async.workers.sealed_memory import SEALS

MAGIC = b"OA-RING\x01"
HEADER_BYTES = 256
MIN_CAPACITY = 8
MAX_CAPACITY = 1 << 30

_CAPACITY, _WRITE, _READ = 1, 8, 16  # positions of the header's 8-byte words


class RingCorrupt(Exception):
    """The memory is not a ring, or the peer's index is impossible."""


class Ring:
    """One side's view of a ring: either the writer's or the reader's, used by one thread at a time.

    Both sides start at byte 0, so a second writer or reader cannot take over. ``fd`` is
    close-on-exec and open until :meth:`close`.
    """

    def __init__(self, fd: int, memory: mmap.mmap, capacity: int) -> None:
        self.fd = fd
        self.capacity = capacity
        self._memory = memory
        self._words = memoryview(memory)[:HEADER_BYTES].cast("Q")
        self._written = 0
        self._read = 0
        self._fence_lock = threading.Lock()
        self._fence_lock.acquire()

    @classmethod
    def create(cls, capacity: int) -> Ring:
        """A new, empty ring of ``capacity`` bytes.

        :raises ValueError: fewer than 8 bytes, or more than a GiB.
        """
        if not MIN_CAPACITY <= capacity <= MAX_CAPACITY:
            raise ValueError(f"a ring holds {MIN_CAPACITY} to {MAX_CAPACITY} bytes, not {capacity}")
        fd = sealed_memory.create("ollama-async-ring", HEADER_BYTES + capacity)
        try:
            ring = cls(fd, mmap.mmap(fd, HEADER_BYTES + capacity), capacity)
        except BaseException:
            os.close(fd)
            raise
        ring._words[_CAPACITY] = capacity
        ring._memory[: len(MAGIC)] = MAGIC
        return ring

    @classmethod
    def attach(cls, fd: int) -> Ring:
        """The ring that a peer created; owns the descriptor from now on.

        :raises RingCorrupt: not a sealed memfd of this layout; the descriptor remains open.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as reason:
            raise RingCorrupt(f"descriptor {fd} is no memfd: {reason}") from reason
        size = os.fstat(fd).st_size
        if seals & SEALS != SEALS or not 0 <= size - HEADER_BYTES - MIN_CAPACITY <= MAX_CAPACITY:
            raise RingCorrupt(f"memfd of {size} bytes, seals {seals:#x}, is no ring")
        memory = mmap.mmap(fd, size)
        capacity = int.from_bytes(memory[8:16], sys.byteorder)
        if memory[: len(MAGIC)] != MAGIC or capacity != size - HEADER_BYTES:
            memory.close()
            raise RingCorrupt("ring header has another magic, version or capacity")
        os.set_inheritable(fd, False)
        return cls(fd, memory, capacity)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Publish as much of ``data`` as fits; returns its length, 0 if the ring is full.

        :raises RingCorrupt: the reader's index is impossible.
        """
        size = min(len(data), self.writable())
        if not size:
            return 0
        start = self._written % self.capacity
        first = min(size, self.capacity - start)
        memory, offset = self._memory, HEADER_BYTES + start
        if first == len(data):
            memory[offset : offset + first] = data
        else:
            view = memoryview(data)
            memory[offset : offset + first] = view[:first]
            memory[HEADER_BYTES : HEADER_BYTES + size - first] = view[first:size]
        self._fence()
        self._written += size
        self._words[_WRITE] = self._written
        return size

    def read(self, limit: int) -> bytes:
        """Remove up to ``limit`` bytes, as a copy that the peer cannot change; it may be empty.

        :raises RingCorrupt: the writer's index is impossible.
        """
        size = min(limit, self.readable())
        if not size:
            return b""
        self._fence()
        start = self._read % self.capacity
        end = start + size
        memory, offset = self._memory, HEADER_BYTES
        data = memory[offset + start : offset + min(end, self.capacity)]
        if end > self.capacity:
            data += memory[offset : offset + end - self.capacity]
        self._fence()
        self._read += size
        self._words[_READ] = self._read
        return data

    def writable(self) -> int:
        """How many bytes :meth:`write` would take now.

        :raises RingCorrupt: the reader's index is impossible.
        """
        taken = self._words[_READ]
        if not self._read <= taken <= self._written:
            raise RingCorrupt(f"read index {taken}, must be {self._read} to {self._written}")
        self._read = taken  # it must not go back
        return self.capacity - (self._written - taken)

    def readable(self) -> int:
        """How many bytes :meth:`read` could give now.

        :raises RingCorrupt: the writer's index is impossible.
        """
        written = self._words[_WRITE]
        if not self._written <= written <= self._read + self.capacity:
            raise RingCorrupt(
                f"write index {written}, must be {self._written} to {self._read + self.capacity}"
            )
        self._written = written
        return written - self._read

    def close(self) -> None:
        """Free the mapping and the descriptor. Idempotent; no other method may follow."""
        if self.fd >= 0:
            self._words.release()
            self._memory.close()
            os.close(self.fd)
            self.fd = -1

    def _fence(self) -> None:
        """No memory access is reordered across this; see the module docstring."""
        self._fence_lock.release()
        self._fence_lock.acquire()
