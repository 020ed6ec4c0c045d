"""Runs blocking calls in threads, safely for tasks that may be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def run_in_thread(
    call: Callable[..., T],
    *args: Any,
    undo: Callable[[T], object] | None = None,
    threads: Executor | None = None,
) -> T:
    """Run ``call(*args)`` in one of ``threads``, by default the loop's own pool.

    A cancelled caller waits until the (short) call has ended, so that no other thread uses its
    resources at the same time. The lost result then goes to ``undo``, in a thread as well.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(threads, partial(call, *args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _wait_until_done(future)
        if undo is not None and future.exception() is None:
            await _wait_until_done(loop.run_in_executor(threads, undo, future.result()))
        raise
    finally:
        del future  # its exception's traceback refers to this frame: a cycle


async def _wait_until_done(future: asyncio.Future[Any]) -> None:
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:  # run_in_thread raises it again
            continue
    future.exception()  # mark as retrieved


async def iterate_in_thread(steps: Iterator[T], threads: Executor) -> AsyncGenerator[T, None]:
    """Iterate ``steps`` with each step in a thread. Closing this generator closes ``steps``."""
    try:
        while (step := await run_in_thread(next, steps, None, threads=threads)) is not None:
            yield step
    finally:
        if isinstance(steps, Generator):
            await run_in_thread(steps.close, threads=threads)
