"""Work that several ask for at once is done once, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


class _Flight:
    """One run of the work: how many wait for it, whether another may still join, and which run has
    to end before it begins.
    """

    def __init__(self, before: _Flight | None) -> None:
        self.askers = 0
        self.is_open = True
        self.before = before
        self.task: asyncio.Task[Any] | None = None


class SingleFlight:
    """By key: at most one run is under way, and at most one more waits for its end.

    Who asks while it is under way gets the next one, together with all others who do: a run that
    has begun may not have seen what they know of already, such as a model that they have just made.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def ask(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` returns or raises, run for this call or for another with the same key.

        Whoever is cancelled only leaves; the last who does ends the work.
        """
        flight = self._last.get(key)
        if flight is None or not flight.is_open:
            flight = self._start(key, work, flight)
        assert flight.task is not None
        flight.askers += 1
        try:
            result: T = await asyncio.shield(flight.task)
            return result
        finally:
            flight.askers -= 1
            if not flight.askers:
                self._give_up(key, flight)

    async def close(self) -> None:
        """End all work and wait for that."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(
        self, key: Hashable, work: Callable[[], Awaitable[Any]], before: _Flight | None
    ) -> _Flight:
        flight = self._last[key] = _Flight(before)
        flight.task = asyncio.create_task(_run(flight, work))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._ended(key, flight, task))
        return flight

    def _give_up(self, key: Hashable, flight: _Flight) -> None:
        assert flight.task is not None
        flight.is_open = False
        flight.task.cancel()
        before = flight.before
        if self._last.get(key) is flight and before is not None and before.task in self._tasks:
            self._last[key] = before  # the next one has to wait for that, too

    def _ended(self, key: Hashable, flight: _Flight, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._last.get(key) is flight:
            del self._last[key]
        if not task.cancelled():
            task.exception()  # seen, also if nobody waits any more


async def _run(flight: _Flight, work: Callable[[], Awaitable[T]]) -> T:
    if flight.before is not None and flight.before.task is not None:
        await asyncio.wait({flight.before.task})
    flight.is_open, flight.before = False, None
    return await work()


FLIGHTS: web.AppKey[SingleFlight] = web.AppKey("flights", SingleFlight)


async def own_flights(application: web.Application) -> AsyncIterator[None]:
    """Makes :data:`FLIGHTS` and ends what is under way, before the threads that it runs in."""
    application[FLIGHTS] = SingleFlight()
    yield
    await application[FLIGHTS].close()
