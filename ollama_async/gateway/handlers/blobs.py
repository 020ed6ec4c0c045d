"""Uploads, by content."""

from __future__ import annotations

from aiohttp import web

from ollama_async.core.errors import NotFound
from ollama_async.core.threads import run_in_thread
from ollama_async.gateway.body import BodyReader
from ollama_async.gateway.dependencies import DEPENDENCIES
from ollama_async.gateway.store_threads import UPLOADS
from ollama_async.store.blobs import BlobWriter

WRITE_BYTES = 1 << 20
"""Gathered before a thread writes them: a switch for each of the socket's 64 KiB would cost more
than the hashing."""


async def exists(request: web.Request) -> web.Response:
    store = request.app[DEPENDENCIES].catalog.store
    digest = request.match_info["digest"]
    if not await run_in_thread(store.has_blob, digest):
        raise NotFound(f"blob {digest!r} not found")
    return web.Response()


async def upload(request: web.Request) -> web.Response:
    """201 when it was stored; 200, and the body is not read, if it was there already.

    The disk holds back the socket: at most :data:`WRITE_BYTES` and one chunk are in memory. A
    client that leaves, or is too slow, leaves nothing behind.
    """
    store, threads = request.app[DEPENDENCIES].catalog.store, request.app[UPLOADS]
    digest = request.match_info["digest"]
    if await run_in_thread(store.has_blob, digest):
        return web.Response()
    body = BodyReader(request)
    size_bytes = request.content_length or 0
    writer = await run_in_thread(
        store.open_blob, digest, size_bytes, undo=BlobWriter.discard, threads=threads
    )
    try:
        gathered = bytearray()
        while chunk := await body.next_chunk():
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                await run_in_thread(writer.write, bytes(gathered), threads=threads)
                gathered.clear()
        await run_in_thread(writer.write, bytes(gathered), threads=threads)
        await run_in_thread(writer.commit, threads=threads)
    finally:
        await run_in_thread(writer.discard, threads=threads)
    return web.Response(status=201)
