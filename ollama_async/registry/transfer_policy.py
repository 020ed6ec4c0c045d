"""Trying again: later each time, never all at the same moment, not for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
