"""Long work that several may ask for: they share it, and it ends with the last who does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Hashable
from contextlib import aclosing

from ollama_async.core.errors import Busy
from ollama_async.registry.board import Board, Status

Work = Callable[[Board], Awaitable[None]]


class _Shared:
    """One work and how many wait for it."""

    def __init__(self) -> None:
        self.board = Board()
        self.askers = 0
        self.task: asyncio.Task[None] | None = None


class Sharing:
    """Works by what they are about. ``verb`` is for messages: models that are being …"""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._shared: dict[Hashable, _Shared] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, key: Hashable, work: Work, most: int) -> AsyncGenerator[Status, None]:
        """Begin ``work``, or join who did; its statuses, and in the end its error.

        Closing this leaves it.

        :raises Busy: ``most`` others are under way; before the first status.
        :raises ServerError: from the work.
        """
        shared = self._shared.get(key)
        if shared is None:
            if len(self._shared) >= most:
                raise Busy(f"{most} models are being {self._verb}, please try again")
            shared = self._start(key, work)
        shared.askers += 1
        try:
            async with aclosing(shared.board.follow()) as statuses:
                async for status in statuses:
                    yield status
        finally:
            shared.askers -= 1
            if not shared.askers:
                self._forget(key, shared)
                await _end({shared.task})

    async def close(self) -> None:
        """End all works; whoever waits for one gets an error."""
        await _end(self._tasks)

    def _start(self, key: Hashable, work: Work) -> _Shared:
        shared = self._shared[key] = _Shared()
        shared.task = task = asyncio.create_task(_run(shared.board, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._forget(key, shared))
        return shared

    def _forget(self, key: Hashable, shared: _Shared) -> None:
        """Who asks from now on begins a new one."""
        if self._shared.get(key) is shared:
            del self._shared[key]


async def _run(board: Board, work: Work) -> None:
    error: BaseException | None = None
    try:
        await work(board)
    except asyncio.CancelledError:
        error = Busy("the server is stopping")
        raise
    except Exception as reason:  # noqa: BLE001  # the askers raise it
        error = reason
    finally:
        board.end(error)


async def _end(tasks: Collection[asyncio.Task[None] | None]) -> None:
    running = {task for task in tasks if task is not None and not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
