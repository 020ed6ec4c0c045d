"""Trying again: later each time, never all at the same moment, not for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from ollama_async.registry.errors import Refused, Transient

T = TypeVar("T")


class Patience(msgspec.Struct, frozen=True):
    """``tries``: in a row without progress. Pauses double from ``first_s`` to ``longest_s``."""

    tries: int = 6
    first_s: float = 1.0
    longest_s: float = 30.0
    longest_wished_s: float = 120.0
    """Of the pauses that a registry asks for; one that wants more is not waited for."""

    def pause_s(self, failures: int, after_s: float, *, jitter: float) -> float:
        """How long to wait after so many failures in a row. ``jitter``: 0 to 1, by chance."""
        longest = min(self.first_s * 2.0 ** min(failures - 1, 32), self.longest_s)
        return max(longest * (0.5 + jitter / 2), after_s)


class Tries:
    """The failures in a row of one thing that is tried."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0

    def progressed(self) -> None:
        self._failures = 0

    async def pause(self, failure: Transient) -> None:
        """Wait before the next try. :raises Refused: ``max retries exceeded: …``"""
        self._failures += 1
        is_patient = failure.after_s <= self._patience.longest_wished_s
        if self._failures >= self._patience.tries or not is_patient:
            raise Refused(f"max retries exceeded: {failure}") from failure
        jitter = random.random()  # noqa: S311  # spreads clients, hides nothing
        await asyncio.sleep(self._patience.pause_s(self._failures, failure.after_s, jitter=jitter))


async def retried(call: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """The result of ``call`` at last. :raises Refused: from it, or after too many tries."""
    tries = Tries(patience)
    while True:
        try:
            return await call()
        except Transient as failure:
            await tries.pause(failure)


LEAST_BYTES = 16 << 10
"""In the time that a connection may be silent: half a kilobyte a second with the usual 30 s. Below
that we are better off with a new connection, or with an error, than with a transfer of weeks."""


class Pace:
    """Watches one connection. ``window_s``: how long :data:`LEAST_BYTES` may take."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._waited_s = 0.0
        self._came_bytes = 0

    def came(self, count: int, waited_s: float) -> None:
        """So many bytes came after waiting so long for them.

        :raises Transient: too little came in the last window.
        """
        self._waited_s += waited_s
        self._came_bytes += count
        if self._came_bytes >= LEAST_BYTES:
            self._waited_s, self._came_bytes = 0.0, 0
        elif self._waited_s > self._window_s:
            raise Transient(f"too slow: {self._came_bytes} bytes in {self._waited_s:.0f} seconds")


async def together(works: list[Coroutine[Any, Any, None]]) -> None:
    """Run them; the first failure, or our own end, ends all of them before it goes on."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
