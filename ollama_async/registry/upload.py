"""One blob from its file into a registry, in parts, to where the registry wants them.

A plain registry takes the parts itself, one after the other, and can say how much it has; one of
Ollama's kind answers each part with an address in some storage, where they go several at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from io import FileIO

import aiohttp
from yarl import URL

from ollama_async.core.errors import StorageFailed
from ollama_async.core.threads import run_in_thread
from ollama_async.registry.download import Tuning
from ollama_async.registry.errors import Failure, NotThere, Refused, Transient
from ollama_async.registry.transfer_policy import Tries, retried, together
from ollama_async.registry.transport import Transport
from ollama_async.store.manifest import Layer

MOST_PARTS = 1000
"""Of one blob: of a very large one the parts are larger. Storages stop at 10000."""
COMMIT_S = 900.0
"""How long a registry may be silent when it has everything: it reads and hashes it once more."""
_UNKNOWN = frozenset({404, 410, 416})
"""What registries say of a session that they have forgotten, or that is not where we believe."""
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class _Lost(Failure):
    """The session is gone; a new one begins with nothing."""


async def is_there(transport: Transport, digest: str) -> bool:
    """Whether the repository has the blob. :raises Refused: it does not say. :raises Transient:"""
    try:
        async with transport.send("HEAD", transport.endpoint.blob(digest)):
            return True  # a redirect leads to where it is
    except NotThere:
        return False


class _Session:
    """What the registry has, or has found a place for: all before ``offset``.

    ``url`` is where the next request goes. ``sums`` are the MD5 of the parts that are elsewhere, by
    where they begin.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.offset = 0
        self.is_elsewhere = False
        self.is_lost = False
        self.sums: dict[int, bytes] = {}

    @property
    def etag(self) -> str:
        """As storages name a file of many parts; "" if there are none."""
        parts = [self.sums[start] for start in sorted(self.sums)]
        md5 = hashlib.md5(b"".join(parts), usedforsecurity=False)
        return f"{md5.hexdigest()}-{len(parts)}" if parts else ""


class Upload:
    """``progressed`` is called with the bytes that are on their way or there; less after a cut."""

    def __init__(
        self,
        transport: Transport,
        layer: Layer,
        file: FileIO,
        *,
        tuning: Tuning,
        threads: Executor,
        progressed: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._layer = layer
        self._file = file
        self._tuning = tuning
        self._threads = threads
        self._progressed = progressed
        self._part_bytes = max(tuning.chunk_bytes, -(-layer.size // MOST_PARTS))
        self._tries = Tries(tuning.patience)
        self._furthest = 0
        self._sent: dict[int, int] = {}

    async def run(self, mount_from: str = "") -> None:
        """Have the blob in the registry. ``mount_from``: a repository there that may have it.

        :raises Refused: for good, or after too many failures in a row without a byte in between.
        :raises StorageFailed: the file cannot be read.
        """
        patience = self._tuning.patience
        session = await retried(partial(self._begin, mount_from), patience)
        while session is not None:
            try:
                await self._send_rest(session)
                await self._commit(session)
            except Transient as failure:
                await self._tries.pause(failure)
            except _Lost as loss:
                await self._tries.pause(Transient(str(loss)))
                session.is_lost = True
            else:
                return
            session = await retried(partial(self._go_on, session), patience)

    async def _go_on(self, session: _Session) -> _Session | None:
        """What is to be done after a failure; None: nothing, only the last answer was lost."""
        if not session.is_lost and await self._ask_offset(session):
            return session
        if await is_there(self._transport, self._layer.digest):
            return None
        return await self._begin("")

    async def _begin(self, mount_from: str) -> _Session | None:
        """None: the registry has taken the blob from another repository."""
        self._sent.clear()
        url = self._transport.endpoint.uploads
        if mount_from:
            url = url.with_query({"mount": self._layer.digest, "from": mount_from})
        async with self._transport.send("POST", url) as response:
            if response.status == 201 and mount_from:
                return None
            location = response.headers.get("Docker-Upload-Location", "")
            location = location or response.headers.get("Location", "")
            return _Session(self._transport.session(url, location))

    async def _ask_offset(self, session: _Session) -> bool:
        """How much has arrived of what was cut off? Parts elsewhere are whole or sent again.

        Whether the registry knows: where it does not, there is nothing to go on from.
        """
        if session.is_elsewhere:
            return True
        try:
            async with self._transport.send("GET", session.url) as response:
                found = _RANGE.fullmatch(response.headers.get("Range", ""))
                session.url = self._following(session, response)
        except Refused:
            return False
        if found is None or int(found[1]) >= self._layer.size:
            return False
        session.offset = int(found[1]) + 1 if int(found[1]) else 0  # 0-0 is also said of nothing
        self._sent = {0: session.offset}
        self._confirm(session.offset)
        return True

    async def _send_rest(self, session: _Session) -> None:
        turn = asyncio.Lock()
        parts = -(-(self._layer.size - session.offset) // self._part_bytes)
        workers = min(self._tuning.connections, parts)
        await together([self._work(session, turn) for _ in range(workers)])

    async def _work(self, session: _Session, turn: asyncio.Lock) -> None:
        while True:
            async with turn:  # each answer names the address of the next request
                start = session.offset
                if start == self._layer.size:
                    return
                end = min(start + self._part_bytes, self._layer.size)
                elsewhere = await self._offer(session, start, end)
            if elsewhere is not None:
                await self._store(session, start, end, elsewhere)

    async def _offer(self, session: _Session, start: int, end: int) -> URL | None:
        """Send a part; or learn where else the registry wants it."""
        tries = Tries(self._tuning.patience)
        while True:
            try:
                elsewhere = await self._patch(session, start, end)
            except Transient as failure:
                if not session.is_elsewhere:
                    raise
                await tries.pause(failure)  # others are on their way: nothing begins again
            else:
                session.offset = end
                return elsewhere

    async def _patch(self, session: _Session, start: int, end: int) -> URL | None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Range": f"{start}-{end - 1}",
            "X-Redirect-Uploads": "1",
        }
        with _loss():
            async with (
                self._part(start, end) as part,
                self._transport.send("PATCH", session.url, headers, part) as response,
            ):
                following = self._following(session, response)
                elsewhere = self._elsewhere(session, response)
        session.url = following
        if elsewhere is None:
            self._confirm(end)
        else:
            session.is_elsewhere = True
        return elsewhere

    async def _store(self, session: _Session, start: int, end: int, url: URL) -> None:
        tries = Tries(self._tuning.patience)
        while start not in session.sums:
            try:
                session.sums[start] = await self._put(start, end, url)
            except Transient as failure:
                await tries.pause(failure)

    async def _put(self, start: int, end: int, url: URL) -> bytes:
        """Send a part to a storage; its MD5."""
        headers = {"Content-Length": str(end - start)}
        async with self._part(start, end) as part, self._transport.send("PUT", url, headers, part):
            if not part.md5:
                raise Transient("the storage answered before it had everything")
            return part.md5

    async def _commit(self, session: _Session) -> None:
        query = f"digest={self._layer.digest}"
        if session.etag:
            query += f"&etag={session.etag}"
        separator = "&" if session.url.raw_query_string else "?"
        # joined as text: the rest of the address is the registry's, perhaps signed
        url = URL(f"{session.url.with_fragment(None)}{separator}{query}", encoded=True)
        with _loss():
            async with self._transport.send("PUT", url, answer_s=COMMIT_S):
                pass

    def _following(self, session: _Session, response: aiohttp.ClientResponse) -> URL:
        """Where the registry wants the next request of the session."""
        location = response.headers.get("Docker-Upload-Location", "")
        if not location and response.status != 307:
            location = response.headers.get("Location", "")
        return self._transport.session(session.url, location) if location else session.url

    def _elsewhere(self, session: _Session, response: aiohttp.ClientResponse) -> URL | None:
        if response.status != 307:
            return None
        return self._transport.target(session.url, response.headers.get("Location", ""))

    def _part(self, start: int, end: int) -> FilePart:
        def sent(count: int) -> None:
            self._sent[start] = count
            self._progressed(sum(self._sent.values()))

        return FilePart(self._file, start, end, threads=self._threads, sent=sent)

    def _confirm(self, offset: int) -> None:
        """Getting as far as before is no reason for more patience: it may break there for ever."""
        if offset > self._furthest:
            self._furthest = offset
            self._tries.progressed()


@contextmanager
def _loss() -> Iterator[None]:
    """Tells that the session is lost from all other refusals."""
    try:
        yield
    except Refused as refused:
        if refused.status not in _UNKNOWN:
            raise
        raise _Lost(f"the registry has lost the upload: {refused}") from refused


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
                data = await run_in_thread(
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
