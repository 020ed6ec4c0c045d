"""One at a time, and fair between clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ollama_async.core.round_robin import RoundRobin


class FairLock:
    """Round robin between clients, in order within one: a client with a thousand requests delays
    another's first by at most one of them, and the one that is at it.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: RoundRobin[asyncio.Future[None], asyncio.Future[None]] = RoundRobin()

    @property
    def waiting(self) -> int:
        """How many requests wait, of all clients."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Be the only one. May be cancelled at any time, while waiting and after."""
        await self.take(client)
        try:
            yield
        finally:
            self.pass_on()

    async def take(self, client: str) -> None:
        """Wait to be the only one; :meth:`pass_on` has to follow. May be cancelled at any time."""
        if self._is_taken:
            await self._wait(client)
        self._is_taken = True

    def pass_on(self) -> None:
        """To whose turn it is; it stays taken meanwhile."""
        while self._waiting:
            given = self._waiting.take()
            if not given.done():  # else its client has just left
                given.set_result(None)
                return
        self._is_taken = False

    async def _wait(self, client: str) -> None:
        given = asyncio.get_running_loop().create_future()
        self._waiting.put(client, given, given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():
                self.pass_on()  # it was ours already
            else:
                self._waiting.remove(given)
            raise
