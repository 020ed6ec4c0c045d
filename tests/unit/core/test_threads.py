"""Calls in threads: what they leave behind when they fail or their task is cancelled."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from ollama_async.core.threads import run_in_thread

DEADLINE_S = 10.0


class Large:
    """Stands for megabytes."""


async def test_the_arguments_of_a_failed_call_are_freed_at_once():
    """An exception and the future that it came through must not keep each other."""
    freed, loop = asyncio.Event(), asyncio.get_running_loop()

    def fail(large):
        weakref.finalize(large, loop.call_soon_threadsafe, freed.set)
        raise ValueError("no")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            await run_in_thread(fail, Large())
        async with asyncio.timeout(DEADLINE_S):
            await freed.wait()
    finally:
        gc.enable()


async def test_a_cancelled_caller_waits_for_the_thread():
    begun, may_end = threading.Event(), threading.Event()

    def call():
        begun.set()
        return may_end.wait(DEADLINE_S)

    undone = []
    task = asyncio.create_task(run_in_thread(call, undo=undone.append))
    assert await asyncio.to_thread(begun.wait, DEADLINE_S)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()

    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == [True]
