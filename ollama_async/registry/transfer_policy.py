"""The policy of transfers: parts, timeouts and retries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from ollama_async.registry.errors import PermanentError, TransientError

T = TypeVar("T")

MIN_BYTES = 16 << 10
"""Minimum per stall time: half a kilobyte a second by default. A slower connection is replaced."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """``attempts``: consecutive ones without progress. Pauses double from ``first_pause_s`` to
    ``longest_pause_s``. A ``Retry-After`` over ``longest_retry_after_s`` is an error.
    """

    attempts: int = 6
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    longest_retry_after_s: float = 120.0

    def pause_s(self, failures: int, retry_after_s: float, *, jitter: float) -> float:
        """The pause after consecutive failures. ``jitter``: random, 0 to 1."""
        longest = min(self.first_pause_s * 2.0 ** min(failures - 1, 32), self.longest_pause_s)
        return max(longest * (0.5 + jitter / 2), retry_after_s)


class TransferPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """``connections``: per blob. ``stall_s``: how long a connection may transfer nothing."""

    connections: int = 8
    chunk_bytes: int = 64 << 20
    stall_s: float = 30.0
    retry: RetryPolicy = RetryPolicy()


class RetryState:
    """Counts the consecutive failures of one operation."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def progressed(self) -> None:
        self._failures = 0

    async def pause(self, failure: TransientError) -> None:
        """Wait before the next attempt. :raises PermanentError: ``max retries exceeded: …``"""
        self._failures += 1
        is_too_long = failure.retry_after_s > self._policy.longest_retry_after_s
        if self._failures >= self._policy.attempts or is_too_long:
            raise PermanentError(f"max retries exceeded: {failure}") from failure
        jitter = random.random()  # noqa: S311  # spreads clients, hides nothing
        await asyncio.sleep(
            self._policy.pause_s(self._failures, failure.retry_after_s, jitter=jitter)
        )


async def retry(call: Callable[[], Awaitable[T]], policy: RetryPolicy) -> T:
    """The result of the first successful call. :raises PermanentError:"""
    state = RetryState(policy)
    while True:
        try:
            return await call()
        except TransientError as failure:
            await state.pause(failure)


class MinimumThroughput:
    """Checks one connection: each :data:`MIN_BYTES` may take ``window_s``."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._waited_s = 0.0
        self._received_bytes = 0

    def received(self, count: int, waited_s: float) -> None:
        """``count`` bytes were received after waiting ``waited_s`` for them.

        :raises TransientError: too few were received in the last window.
        """
        self._waited_s += waited_s
        self._received_bytes += count
        if self._received_bytes >= MIN_BYTES:
            self._waited_s, self._received_bytes = 0.0, 0
        elif self._waited_s > self._window_s:
            raise TransientError(
                f"too slow: {self._received_bytes} bytes in {self._waited_s:.0f} seconds"
            )


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them concurrently. The first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in coroutines:
                group.create_task(each)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
