"""One blob from a registry into its partial file: several ranges at once, again if need be.

It is hashed meanwhile, from front to back, as far as it has arrived without a gap: what is hashed
was written a moment ago, so the system still has it in memory.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing

import aiohttp
import msgspec
from yarl import URL

from ollama_async.core.threads import run_in_thread
from ollama_async.registry.errors import Refused, Transient
from ollama_async.registry.transfer_policy import LEAST_BYTES, Patience, Tries, together
from ollama_async.registry.transport import Transport
from ollama_async.store.partial_files import Chunk, Partial

WRITE_BYTES = 512 << 10
"""Gathered before a thread writes them. Times connections: what a download has in memory."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How transfers are cut and how long they are waited for."""

    connections: int = 8
    """For one blob."""
    chunk_bytes: int = 64 << 20
    stall_s: float = 30.0
    patience: Patience = Patience()


class _NoRanges(Exception):
    """The server sends everything or nothing."""


class Download:
    """``progressed`` is called with the bytes that are there, after each write."""

    def __init__(
        self,
        transport: Transport,
        partial: Partial,
        *,
        tuning: Tuning,
        threads: Executor,
        progressed: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._url: URL = transport.endpoint.blob(partial.digest)
        self._partial = partial
        self._tuning = tuning
        self._threads = threads
        self._progressed = progressed
        self._arrived = partial.arrived
        self._grown = asyncio.Event()

    async def run(self) -> str:
        """Fetch what is missing; the digest of all that is there then.

        When cancelled, what has been written stays and counts.

        :raises Refused: for good, or after too many failures in a row.
        :raises StorageFailed: disk full.
        """
        pending = [chunk for chunk in self._partial.chunks if chunk.missing]
        workers = min(self._tuning.connections, len(pending))
        try:
            await together([*(self._work(pending) for _ in range(workers)), self._hash()])
        except _NoRanges:
            await together([self._whole(), self._hash()])
        return self._partial.found_digest

    async def _hash(self) -> None:
        """All of it, as it grows."""
        while self._partial.unhashed:
            self._grown.clear()
            if not await run_in_thread(self._partial.hash_more, threads=self._threads):
                await self._grown.wait()

    async def _work(self, pending: list[Chunk]) -> None:
        while pending:
            await self._chunk(pending.pop(0))

    async def _chunk(self, chunk: Chunk) -> None:
        tries = Tries(self._tuning.patience)
        mark = chunk.arrived
        while chunk.missing:
            try:
                await self._range(chunk)
            except Transient as failure:
                if chunk.arrived - mark >= LEAST_BYTES:  # less, again and again, is no progress
                    mark = chunk.arrived
                    tries.progressed()
                await tries.pause(failure)

    async def _range(self, chunk: Chunk) -> None:
        start, end = chunk.start + chunk.arrived, chunk.end
        is_whole = start == 0 and end == self._partial.total
        headers = {} if is_whole else {"Range": f"bytes={start}-{end - 1}"}
        async with self._transport.get(self._url, headers) as response:
            if response.status == 200 and not is_whole:
                raise _NoRanges
            if response.status == 206:
                self._check_range(response, start)
            await self._receive(response, [chunk])

    async def _whole(self) -> None:
        """From the beginning to the end, through all chunks; a failure begins again."""
        tries = Tries(self._tuning.patience)
        while self._arrived < self._partial.total:
            await run_in_thread(self._partial.restart, threads=self._threads)
            self._arrived = 0
            try:
                async with self._transport.get(self._url) as response:
                    await self._receive(response, self._partial.chunks)
            except Transient as failure:
                await tries.pause(failure)

    async def _receive(self, response: aiohttp.ClientResponse, chunks: list[Chunk]) -> None:
        """Write the body into the chunks, one after the other. More than fits is left unread."""
        gathered = bytearray()
        missing = sum(chunk.missing for chunk in chunks)
        async with aclosing(self._transport.pieces(response)) as body:
            try:
                async for piece in body:
                    gathered += piece
                    if len(gathered) >= min(WRITE_BYTES, missing):
                        missing -= await self._write(chunks, gathered[:missing])
                        gathered.clear()
                    if not missing:
                        return
            except Transient:
                await self._write(chunks, gathered)
                raise
        await self._write(chunks, gathered)
        raise Transient("unexpected EOF")

    async def _write(self, chunks: list[Chunk], data: bytearray) -> int:
        length = len(data)
        await run_in_thread(_fill, self._partial, chunks, data, threads=self._threads)
        self._arrived += length
        self._grown.set()
        self._progressed(self._arrived)
        return length

    def _check_range(self, response: aiohttp.ClientResponse, start: int) -> None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise Refused("the registry sent another range than the one that was asked for")
        if found[3] != "*" and int(found[3]) != self._partial.total:
            raise Refused(
                "the registry has another number of bytes where its manifest says"
                f" {self._partial.total}"
            )


def _fill(partial: Partial, chunks: list[Chunk], data: bytearray) -> None:
    for chunk in chunks:
        if not data:
            return
        if length := min(chunk.missing, len(data)):
            partial.write(chunk, data[:length])
            data = data[length:]
