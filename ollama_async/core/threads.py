"""Blocking work in threads, under a task that may be cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


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
    finally:
        del future  # else its exception, whose traceback leads here, would keep all of it alive


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
