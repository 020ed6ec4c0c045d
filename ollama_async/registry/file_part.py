"""A part of a file as the body of a request."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from io import FileIO

from ollama_async.core.errors import StorageFailed
from ollama_async.core.threads import in_thread

READ_BYTES = 512 << 10
"""Read at a time. Times connections: what an upload has in memory."""
SENT_BYTES = 64 << 10
"""Given away at a time, so that a slow connection is seen to move."""


class FilePart:
    """Bytes ``start`` to ``end`` of ``file``; every iteration begins again.

    Use it as a context: when that ends, nothing reads the file any more, even if an HTTP client has
    dropped an iteration in the middle. Whoever leaves it by an error learns first whether the disk
    was the reason. ``sent`` is called with the bytes that this iteration has given away.
    """

    def __init__(
        self, file: FileIO, start: int, end: int, *, threads: Executor, sent: Callable[[int], None]
    ) -> None:
        self.start = start
        self.end = end
        self.md5 = b""
        """Of all bytes, once an iteration has come to the end; "" before."""
        self._file = file
        self._threads = threads
        self._sent = sent
        self._reading = asyncio.Lock()
        self._is_over = False
        self._failure: StorageFailed | None = None

    def __len__(self) -> int:
        return self.end - self.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Iteration(self)

    async def read(self, offset: int) -> bytes:
        """Some bytes from ``offset``; none at the end. :raises StorageFailed: the disk has none."""
        async with self._reading:
            count = 0 if self._is_over else min(READ_BYTES, self.end - offset)
            if not count:
                return b""
            try:
                data = await in_thread(
                    os.pread, self._file.fileno(), count, offset, threads=self._threads
                )
            except OSError as error:
                self._failure = StorageFailed(f"read {self._file.name}: {error.strerror}")
                raise self._failure from error
            if not data:
                self._failure = StorageFailed(f"{self._file.name} has become shorter")
                raise self._failure
            return data

    def given(self, count: int) -> None:
        if not self._is_over:
            self._sent(count)

    async def __aenter__(self) -> FilePart:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._is_over = True
        async with self._reading:
            pass
        if self._failure is not None and not isinstance(error, asyncio.CancelledError):
            raise self._failure


class _Iteration:
    def __init__(self, part: FilePart) -> None:
        self._part = part
        self._offset = part.start
        self._data = memoryview(b"")
        self._md5 = hashlib.md5(usedforsecurity=False)

    def __aiter__(self) -> _Iteration:
        return self

    async def __anext__(self) -> bytes:
        if not self._data:
            self._data = memoryview(await self._part.read(self._offset))
            if not self._data:
                raise StopAsyncIteration
        piece, self._data = bytes(self._data[:SENT_BYTES]), self._data[SENT_BYTES:]
        self._md5.update(piece)
        self._offset += len(piece)
        if self._offset == self._part.end:
            self._part.md5 = self._md5.digest()
        self._part.given(self._offset - self._part.start)
        return piece
