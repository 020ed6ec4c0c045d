"""Blocking work in threads, under a handler that may be cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")

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


async def in_thread(
    call: Callable[..., T],
    *args: Any,
    undo: Callable[[T], object] | None = None,
    threads: Executor | None = None,
) -> T:
    """``call(*args)`` in one of ``threads``, by default the loop's own.

    When we are cancelled the call still runs to its end, and we wait for that: what it uses (a
    file, a lock) is never touched by two. Its result is lost then, so ``undo`` gets it, in a
    thread, too. Calls must be short, such as one write or one step.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(threads, partial(call, *args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _ended(future)
        if undo is not None and future.exception() is None:
            await _ended(loop.run_in_executor(threads, undo, future.result()))
        raise


async def _ended(future: asyncio.Future[Any]) -> None:
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:  # our caller raises it again
            continue
    future.exception()  # seen; else asyncio would report it as lost


async def drawn_in_thread(steps: Iterator[T], threads: Executor) -> AsyncGenerator[T, None]:
    """What ``steps`` yields, each step in a thread; closing this closes it (use ``aclosing``)."""
    try:
        while (step := await in_thread(next, steps, None, threads=threads)) is not None:
            yield step
    finally:
        if isinstance(steps, Generator):
            await in_thread(steps.close, threads=threads)
