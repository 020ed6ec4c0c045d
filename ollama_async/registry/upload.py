"""Uploads one blob from its file, in parts.

An OCI registry receives the parts itself, in order, and can report its offset. A registry of
Ollama's kind responds to each part with the URL of a storage, which receives several at a time.
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
from ollama_async.registry.errors import (
    NotInRegistry,
    PermanentError,
    TransferError,
    TransientError,
)
from ollama_async.registry.transfer_policy import RetryState, retry, run_all
from ollama_async.registry.transport import Transport
from ollama_async.store.manifests import Layer

MAX_PARTS = 1000
"""Per blob: very large ones have larger parts. Storages allow 10000."""
COMMIT_S = 900.0
"""How long a registry may take after the last part: it hashes the blob again."""
READ_BYTES = 512 << 10
"""Read at a time, per connection."""
SENT_BYTES = 64 << 10
"""Sent at a time, so that a slow connection shows progress."""
_UNKNOWN_SESSION = frozenset({404, 410, 416})
"""Statuses for a session that the registry has lost, or whose offset differs."""
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class _SessionLost(TransferError):
    """The upload must start over in a new session."""


async def has_blob(transport: Transport, digest: str) -> bool:
    """Whether the repository has the blob. :raises PermanentError: :raises TransientError:"""
    try:
        async with transport.send("HEAD", transport.repository.blob(digest)):
            return True  # a redirect leads to where it is
    except NotInRegistry:
        return False


class _Session:
    """One upload at the registry, which has received or redirected all bytes before ``offset``.

    ``url``: of the next request. ``md5``: digests of the parts in a storage, by their offsets.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.offset = 0
        self.is_redirected = False
        self.is_lost = False
        self.md5: dict[int, bytes] = {}

    @property
    def etag(self) -> str:
        """The ETag of a multipart file in a storage; "" without parts."""
        parts = [self.md5[start] for start in sorted(self.md5)]
        md5 = hashlib.md5(b"".join(parts), usedforsecurity=False)
        return f"{md5.hexdigest()}-{len(parts)}" if parts else ""


class Upload:
    """``progressed`` receives the bytes sent, which are fewer after a broken connection."""

    def __init__(
        self,
        transport: Transport,
        layer: Layer,
        file: FileIO,
        *,
        progressed: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._policy = transport.context.policy
        self._layer = layer
        self._file = file
        self._progressed = progressed
        self._part_bytes = max(self._policy.chunk_bytes, -(-layer.size // MAX_PARTS))
        self._retries = RetryState(self._policy.retry)
        self._furthest = 0
        self._sent: dict[int, int] = {}

    async def run(self, mount_from: str = "") -> None:
        """Upload the blob. ``mount_from``: a repository of the registry that may have it.

        :raises PermanentError: refused, or too many failures in a row without progress.
        :raises StorageFailed: the file cannot be read.
        """
        policy = self._policy.retry
        session = await retry(partial(self._begin, mount_from), policy)
        while session is not None:
            try:
                await self._send_rest(session)
                await self._commit(session)
            except TransientError as failure:
                await self._retries.pause(failure)
            except _SessionLost as loss:
                await self._retries.pause(TransientError(str(loss)))
                session.is_lost = True
            else:
                return
            session = await retry(partial(self._resume, session), policy)

    async def _resume(self, session: _Session) -> _Session | None:
        """The session to continue after a failure; None if the registry has the blob."""
        if not session.is_lost and await self._fetch_offset(session):
            return session
        if await has_blob(self._transport, self._layer.digest):
            return None
        return await self._begin("")

    async def _begin(self, mount_from: str) -> _Session | None:
        """None: the registry has mounted the blob from another repository."""
        self._sent.clear()
        url = self._transport.repository.uploads
        if mount_from:
            url = url.with_query({"mount": self._layer.digest, "from": mount_from})
        async with self._transport.send("POST", url) as response:
            if response.status == 201 and mount_from:
                return None
            location = response.headers.get("Docker-Upload-Location", "")
            location = location or response.headers.get("Location", "")
            return _Session(self._transport.upload_location(url, location))

    async def _fetch_offset(self, session: _Session) -> bool:
        """Set the offset to the bytes that the registry has received; False if it is unknown.

        Parts in a storage are complete or sent again.
        """
        if session.is_redirected:
            return True
        try:
            async with self._transport.send("GET", session.url) as response:
                found = _RANGE.fullmatch(response.headers.get("Range", ""))
                session.url = self._next_url(session, response)
        except PermanentError:
            return False
        if found is None or int(found[1]) >= self._layer.size:
            return False
        session.offset = int(found[1]) + 1 if int(found[1]) else 0  # 0-0 can mean no bytes
        self._sent = {0: session.offset}
        self._confirm(session.offset)
        return True

    async def _send_rest(self, session: _Session) -> None:
        turn = asyncio.Lock()
        parts = -(-(self._layer.size - session.offset) // self._part_bytes)
        connections = min(self._policy.connections, parts)
        await run_all(self._send_parts(session, turn) for _ in range(connections))

    async def _send_parts(self, session: _Session, turn: asyncio.Lock) -> None:
        """The work of one connection."""
        while True:
            async with turn:  # each response has the URL of the next request
                start = session.offset
                if start == self._layer.size:
                    return
                end = min(start + self._part_bytes, self._layer.size)
                storage = await self._offer(session, start, end)
            if storage is not None:
                put = partial(self._put, start, end, storage)
                session.md5[start] = await retry(put, self._policy.retry)

    async def _offer(self, session: _Session, start: int, end: int) -> URL | None:
        """Send a part to the registry; or get the URL of a storage for it."""
        retries = RetryState(self._policy.retry)
        while True:
            try:
                storage = await self._patch(session, start, end)
            except TransientError as failure:
                if not session.is_redirected:
                    raise
                await retries.pause(failure)  # other parts are in progress: do not start over
            else:
                session.offset = end
                return storage

    async def _patch(self, session: _Session, start: int, end: int) -> URL | None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Range": f"{start}-{end - 1}",
            "X-Redirect-Uploads": "1",
        }
        with _detect_loss():
            async with (
                self._part(start, end) as part,
                self._transport.send("PATCH", session.url, headers, part) as response,
            ):
                next_url = self._next_url(session, response)
                storage = self._storage(session, response)
        session.url = next_url
        if storage is None:
            self._confirm(end)
        else:
            session.is_redirected = True
        return storage

    async def _put(self, start: int, end: int, url: URL) -> bytes:
        """Send a part to a storage; its MD5."""
        headers = {"Content-Length": str(end - start)}
        async with self._part(start, end) as part, self._transport.send("PUT", url, headers, part):
            if not part.md5:
                raise TransientError("the storage responded before it had everything")
            return part.md5

    async def _commit(self, session: _Session) -> None:
        query = f"digest={self._layer.digest}"
        if session.etag:
            query += f"&etag={session.etag}"
        separator = "&" if session.url.raw_query_string else "?"
        # joined as text: the rest of the URL is the registry's, perhaps signed
        url = URL(f"{session.url.with_fragment(None)}{separator}{query}", encoded=True)
        with _detect_loss():
            async with self._transport.send("PUT", url, response_s=COMMIT_S):
                pass

    def _next_url(self, session: _Session, response: aiohttp.ClientResponse) -> URL:
        """The URL of the session's next request."""
        location = response.headers.get("Docker-Upload-Location", "")
        if not location and response.status != 307:
            location = response.headers.get("Location", "")
        return self._transport.upload_location(session.url, location) if location else session.url

    def _storage(self, session: _Session, response: aiohttp.ClientResponse) -> URL | None:
        if response.status != 307:
            return None
        return self._transport.redirect_target(session.url, response.headers.get("Location", ""))

    def _part(self, start: int, end: int) -> FilePart:
        def sent(count: int) -> None:
            self._sent[start] = count
            self._progressed(sum(self._sent.values()))

        return FilePart(self._file, start, end, threads=self._transport.context.threads, sent=sent)

    def _confirm(self, offset: int) -> None:
        """Only bytes beyond all earlier attempts are progress."""
        if offset > self._furthest:
            self._furthest = offset
            self._retries.progressed()


@contextmanager
def _detect_loss() -> Iterator[None]:
    """Translates the error of a lost session into :class:`_SessionLost`."""
    try:
        yield
    except PermanentError as error:
        if error.status not in _UNKNOWN_SESSION:
            raise
        raise _SessionLost(f"the registry has lost the upload: {error}") from error


class FilePart:
    """Bytes ``start`` to ``end`` of ``file`` as a request body; every iteration starts over.

    An async context manager: after it, nothing reads the file, even if an HTTP client has abandoned
    an iteration. On exit it raises the error of a failed read. ``sent`` receives the bytes that an
    iteration has returned.
    """

    def __init__(
        self, file: FileIO, start: int, end: int, *, threads: Executor, sent: Callable[[int], None]
    ) -> None:
        self.start = start
        self.end = end
        self.md5 = b""
        """Of all bytes, after a complete iteration; empty before."""
        self._file = file
        self._threads = threads
        self._sent = sent
        self._reading = asyncio.Lock()
        self._is_closed = False
        self._failure: StorageFailed | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Iteration(self)

    async def read(self, offset: int) -> bytes:
        """Some bytes from ``offset``; none at the end. :raises StorageFailed:"""
        async with self._reading:
            count = 0 if self._is_closed else min(READ_BYTES, self.end - offset)
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

    def report_sent(self, count: int) -> None:
        if not self._is_closed:
            self._sent(count)

    async def __aenter__(self) -> FilePart:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._is_closed = True
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
        self._part.report_sent(self._offset - self._part.start)
        return piece
