"""Downloads one blob into its partial file, several ranges at once, and resumes earlier downloads.

The contiguous bytes from the start are hashed meanwhile, while they are in the page cache.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing

import aiohttp

from ollama_async.registry.errors import PermanentError, TransientError
from ollama_async.registry.transfer_policy import MIN_BYTES, RetryState, run_all
from ollama_async.registry.transport import Transport
from ollama_async.store.partial_files import Chunk, PartialFile

WRITE_BYTES = 512 << 10
"""Buffered per connection before a thread writes them."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class _NoRanges(Exception):
    """The server does not support ranges."""


class Download:
    """``progressed`` receives the bytes on the disk after each write."""

    def __init__(
        self, transport: Transport, partial: PartialFile, *, progressed: Callable[[int], None]
    ) -> None:
        self._transport = transport
        self._context = transport.context
        self._url = transport.repository.blob(partial.digest)
        self._partial = partial
        self._progressed = progressed
        self._received = partial.received
        self._grown = asyncio.Event()

    async def run(self) -> str:
        """Fetch the missing bytes; returns the digest of the whole. Bytes written before a
        cancellation are kept.

        :raises PermanentError: refused, or too many failures in a row.
        :raises StorageFailed: disk full.
        """
        pending = [chunk for chunk in self._partial.chunks if chunk.missing]
        connections = min(self._context.policy.connections, len(pending))
        try:
            await run_all([*(self._fetch(pending) for _ in range(connections)), self._hash()])
        except _NoRanges:
            await run_all([self._fetch_whole(), self._hash()])
        return self._partial.found_digest

    async def _hash(self) -> None:
        """Hash the file as it grows, to its end."""
        while self._partial.unhashed:
            self._grown.clear()
            if not await self._context.run_in_thread(self._partial.hash_more):
                await self._grown.wait()

    async def _fetch(self, pending: list[Chunk]) -> None:
        """The work of one connection."""
        while pending:
            await self._fetch_chunk(pending.pop(0))

    async def _fetch_chunk(self, chunk: Chunk) -> None:
        retries = RetryState(self._context.policy.retry)
        mark = chunk.received
        while chunk.missing:
            try:
                await self._fetch_range(chunk)
            except TransientError as failure:
                if chunk.received - mark >= MIN_BYTES:  # smaller gains could repeat for ever
                    mark = chunk.received
                    retries.progressed()
                await retries.pause(failure)

    async def _fetch_range(self, chunk: Chunk) -> None:
        start, end = chunk.start + chunk.received, chunk.end
        is_whole = start == 0 and end == self._partial.total
        headers = {} if is_whole else {"Range": f"bytes={start}-{end - 1}"}
        async with self._transport.get(self._url, headers) as response:
            if response.status == 200 and not is_whole:
                raise _NoRanges
            if response.status == 206:
                self._check_range(response, start)
            await self._receive(response, [chunk])

    async def _fetch_whole(self) -> None:
        """Fetch all chunks in one response; a failure starts over."""
        retries = RetryState(self._context.policy.retry)
        while self._received < self._partial.total:
            await self._context.run_in_thread(self._partial.restart)
            self._received = 0
            try:
                async with self._transport.get(self._url) as response:
                    await self._receive(response, self._partial.chunks)
            except TransientError as failure:
                await retries.pause(failure)

    async def _receive(self, response: aiohttp.ClientResponse, chunks: list[Chunk]) -> None:
        """Write the body into the chunks, in order. Does not read bytes beyond them."""
        collected = bytearray()
        missing = sum(chunk.missing for chunk in chunks)
        async with aclosing(self._transport.pieces(response)) as body:
            try:
                async for piece in body:
                    collected += piece
                    if len(collected) >= min(WRITE_BYTES, missing):
                        missing -= await self._write(chunks, collected[:missing])
                        collected.clear()
                    if not missing:
                        return
            except TransientError:
                await self._write(chunks, collected)
                raise
        await self._write(chunks, collected)
        raise TransientError("unexpected EOF")

    async def _write(self, chunks: list[Chunk], data: bytearray) -> int:
        length = len(data)
        await self._context.run_in_thread(_fill, self._partial, chunks, data)
        self._received += length
        self._grown.set()
        self._progressed(self._received)
        return length

    def _check_range(self, response: aiohttp.ClientResponse, start: int) -> None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise PermanentError("the registry sent another range than requested")
        if found[3] != "*" and int(found[3]) != self._partial.total:
            raise PermanentError(
                "the size of the registry's blob is not that in its manifest,"
                f" {self._partial.total}"
            )


def _fill(partial: PartialFile, chunks: list[Chunk], data: bytearray) -> None:
    for chunk in chunks:
        if not data:
            return
        if length := min(chunk.missing, len(data)):
            partial.write(chunk, data[:length])
            data = data[length:]
