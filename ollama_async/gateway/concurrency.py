"""Concurrency of the gateway's slow work: thread pools, a fair lock, and single flight.

Only work of milliseconds, such as rendering the metrics, runs in the loop's default pool. Slower
work has a pool per kind, so that a full pool delays only its own kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ollama_async.core.round_robin import RoundRobin

T = TypeVar("T")

READ_POOL: web.AppKey[Executor] = web.AppKey("read_pool", Executor)
"""Reads models: up to a second for a header that was made to be slow. The list of models, a short
``show`` and a long ``show`` occupy at most one thread each."""
READ_THREADS = 4

UPLOAD_POOL: web.AppKey[Executor] = web.AppKey("upload_pool", Executor)
"""Writes blobs. The last call of an upload waits for the disk, possibly for minutes."""
UPLOAD_THREADS = 8

CHANGE_POOL: web.AppKey[Executor] = web.AppKey("change_pool", Executor)
"""Changes the store. A change waits for the store's lock, half a minute at worst."""
CHANGE_THREADS = 4


class FairLock:
    """A lock that clients acquire round robin, first come first served within a client.

    A client with a thousand requests delays another client's first one by at most one of them, plus
    the one that holds the lock.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._waiters: RoundRobin[asyncio.Future[None], asyncio.Future[None]] = RoundRobin()

    @property
    def waiting(self) -> int:
        """Requests that wait, of all clients."""
        return len(self._waiters)

    @asynccontextmanager
    async def hold(self, client: str) -> AsyncIterator[None]:
        """Hold the lock. May be cancelled at any time, while waiting and after."""
        await self.acquire(client)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, client: str) -> None:
        """Wait for the lock; :meth:`release` has to follow. May be cancelled at any time."""
        if not self._is_held:
            self._is_held = True
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.put(client, waiter, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiters.remove(waiter)
            else:
                self.release()  # the lock had been passed to us already
            raise

    def release(self) -> None:
        """Pass the lock to the next waiter; it stays held meanwhile."""
        while self._waiters:
            waiter = self._waiters.take()
            if not waiter.done():  # else its task was cancelled in this turn of the loop
                waiter.set_result(None)
                return
        self._is_held = False


class _Flight(msgspec.Struct, eq=False):
    """One run. Callers may join while it ``is_open``: until the run ``before`` it has ended."""

    before: _Flight | None
    callers: int = 0
    is_open: bool = True
    task: asyncio.Task[Any] | None = None


class SingleFlight:
    """Runs work once for all concurrent callers with the same key.

    At most one run per key is under way, and at most one more waits for its end. A caller that
    arrives during a run gets the next one: the current one may miss what the caller knows of, such
    as a model that it has just created.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` returns or raises, run for this call or for another with the same key.

        A cancelled caller only leaves; the last one that leaves cancels the work.
        """
        flight = self._last.get(key)
        if flight is None or not flight.is_open:
            flight = self._start(key, work, flight)
        assert flight.task is not None
        flight.callers += 1
        try:
            result: T = await asyncio.shield(flight.task)
            return result
        finally:
            flight.callers -= 1
            if not flight.callers:
                self._abandon(key, flight)

    async def close(self) -> None:
        """Cancel all work and wait for its end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(
        self, key: Hashable, work: Callable[[], Awaitable[T]], before: _Flight | None
    ) -> _Flight:
        flight = self._last[key] = _Flight(before)

        async def run() -> T:
            if before is not None and before.task is not None:
                await asyncio.wait({before.task})
            flight.is_open, flight.before = False, None
            return await work()

        flight.task = asyncio.create_task(run())
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._ended(key, flight, task))
        return flight

    def _abandon(self, key: Hashable, flight: _Flight) -> None:
        assert flight.task is not None
        flight.is_open = False
        flight.task.cancel()
        before = flight.before
        if self._last.get(key) is flight and before is not None and before.task in self._tasks:
            self._last[key] = before  # the next run has to wait for that one, too

    def _ended(self, key: Hashable, flight: _Flight, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._last.get(key) is flight:
            del self._last[key]
        if not task.cancelled():
            task.exception()  # mark as retrieved, also if no caller waits any more


SINGLE_FLIGHT: web.AppKey[SingleFlight] = web.AppKey("single_flight", SingleFlight)


async def own_threads(application: web.Application) -> AsyncIterator[None]:
    """Cleanup context of the pools and :data:`SINGLE_FLIGHT`, whose work ends before its threads.

    Handlers have ended by then, so the pools are idle.
    """
    with (
        ThreadPoolExecutor(READ_THREADS, "store-read") as application[READ_POOL],
        ThreadPoolExecutor(UPLOAD_THREADS, "store-upload") as application[UPLOAD_POOL],
        ThreadPoolExecutor(CHANGE_THREADS, "store-change") as application[CHANGE_POOL],
    ):
        application[SINGLE_FLIGHT] = SingleFlight()
        yield
        await application[SINGLE_FLIGHT].close()
