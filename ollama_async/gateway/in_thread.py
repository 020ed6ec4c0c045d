"""The threads in which the gateway changes the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor

from aiohttp import web

CHANGES: web.AppKey[Executor] = web.AppKey("changes", Executor)
"""Threads for what changes the store. Changes wait for its lock, half a minute at worst, and must
not hold up the reading that goes on in the loop's own threads.
"""
CHANGE_THREADS = 4


async def own_change_threads(application: web.Application) -> AsyncIterator[None]:
    """Makes :data:`CHANGES` and ends it. Handlers have ended by then, so nothing is waited for."""
    with ThreadPoolExecutor(CHANGE_THREADS, "store-change") as threads:
        application[CHANGES] = threads
        yield
