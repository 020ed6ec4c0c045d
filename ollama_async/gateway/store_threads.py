"""The threads in which the gateway works on the store, and who may wait behind whom.

What takes milliseconds, such as the metrics or a look whether a blob is there, is done in the
loop's own threads, and nothing else is: whoever fills the pools here holds up only his like.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor

from aiohttp import web

READS: web.AppKey[Executor] = web.AppKey("reads", Executor)
"""Threads that read models: up to a second for a header that was made to be slow. One of them at
the most is busy with the list, one with a short ``show``, one with a long one."""
READ_THREADS = 4

UPLOADS: web.AppKey[Executor] = web.AppKey("uploads", Executor)
"""Threads that write blobs. The end of an upload waits until the disk has all of it: minutes."""
UPLOAD_THREADS = 8

CHANGES: web.AppKey[Executor] = web.AppKey("changes", Executor)
"""Threads for what changes the store. Changes wait for its lock, half a minute at worst."""
CHANGE_THREADS = 4


async def own_store_threads(application: web.Application) -> AsyncIterator[None]:
    """Makes the pools and ends them. Handlers have ended by then, so nothing is waited for."""
    with (
        ThreadPoolExecutor(READ_THREADS, "store-read") as application[READS],
        ThreadPoolExecutor(UPLOAD_THREADS, "store-upload") as application[UPLOADS],
        ThreadPoolExecutor(CHANGE_THREADS, "store-change") as application[CHANGES],
    ):
        yield
