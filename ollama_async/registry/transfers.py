"""What all pulls, or all pushes, of one server have in common.

Whoever asks for the same shares one transfer; there are only so many at a time; their threads are
their own, because a slow disk or network must not hold up anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ollama_async.core.errors import Busy, ServerError
from ollama_async.core.model_names import ModelName
from ollama_async.registry.address_policy import HERE, Asker, Surroundings
from ollama_async.registry.download import Tuning
from ollama_async.registry.repository import endpoint_of
from ollama_async.registry.transport import Transport
from ollama_async.store.manifests import local_name

Status = dict[str, Any]

PERIOD_S = 0.06
"""Between two looks of a reader: what changed in between is one status, the last."""


class Board:
    """One line for each digest and for each text without one; the newest content of a line counts.

    So it holds what a latecomer must know, and a slow reader costs nothing.
    """

    def __init__(self) -> None:
        self._lines: dict[str, tuple[int, Status]] = {}
        self._version = 0
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._error: BaseException | None = None

    def post(self, status: Status) -> None:
        self._version += 1
        key = str(status.get("digest") or status["status"])
        self._lines[key] = (self._version, status)
        self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will be posted; readers get ``error`` after the last line."""
        self._error = error
        self._ended.set()
        self._changed.set()

    async def follow(self) -> AsyncGenerator[Status, None]:
        """Every line, then those that change, in the order of their changes, until the end.

        :raises ServerError: what ended the work.
        """
        seen = 0
        while not self._ended.is_set():
            if self._version == seen:
                self._changed.clear()
                await self._changed.wait()
            for version, status in self._since(seen):
                seen = version
                yield status
            await self._pause()
        for _, status in self._since(seen):
            yield status
        if isinstance(self._error, ServerError):
            raise type(self._error)(self._error.message)
        if self._error is not None:
            raise self._error

    def _since(self, seen: int) -> list[tuple[int, Status]]:
        news = [line for line in self._lines.values() if line[0] > seen]
        return sorted(news, key=lambda line: line[0])

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PERIOD_S):
                await self._ended.wait()
        except TimeoutError:
            pass


SharedWork = Callable[[Board], Awaitable[None]]


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

    async def follow(
        self, key: Hashable, work: SharedWork, most: int
    ) -> AsyncGenerator[Status, None]:
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

    def _start(self, key: Hashable, work: SharedWork) -> _Shared:
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


async def _run(board: Board, work: SharedWork) -> None:
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


MOST_TRANSFERS = 8
"""Of one kind, of different models, at a time. Each may have ten connections, and some MB."""
_THREADS = 8


class Means(msgspec.Struct, frozen=True):
    """What a transfer works with. ``key_path``: the key pair that registries know us by."""

    threads: Executor
    tuning: Tuning
    key_path: Path
    surroundings: Surroundings


class Asked(msgspec.Struct, frozen=True):
    """``text`` is the reference as it was given, perhaps with a scheme; ``name`` what it means."""

    text: str
    name: ModelName
    is_insecure: bool
    asker: Asker

    @classmethod
    def parse(cls, text: str, *, is_insecure: bool, asker: Asker) -> Asked:
        """:raises BadRequest: no name. :raises Forbidden: the name asks for a cloud model."""
        return cls(text, local_name(text), is_insecure, asker)

    @property
    def key(self) -> object:
        """Equal for those who want the same and may reach the same: nobody learns from another's
        transfer what is behind an address that they may not name.
        """
        scheme = self.text.strip().rpartition("://")[0]
        return scheme, self.is_insecure, self.name.folded, self.asker

    def transport(self, means: Means) -> Transport:
        """To the registry of the name. :raises ServerError: as :func:`.repository.endpoint_of`."""
        return Transport(
            endpoint_of(self.text, self.name, is_insecure=self.is_insecure),
            asker=self.asker,
            surroundings=means.surroundings,
            key_path=means.key_path,
            stall_s=means.tuning.stall_s,
            threads=means.threads,
        )


Work = Callable[[Means, Asked, Board], Awaitable[None]]


class Transfers:
    """Made by :func:`open_transfers`; each transfer is a call of ``work``."""

    def __init__(self, work: Work, means: Means, sharing: Sharing) -> None:
        self._work = work
        self._means = means
        self._sharing = sharing

    async def follow(
        self, text: str, *, is_insecure: bool, asker: Asker = HERE
    ) -> AsyncGenerator[Status, None]:
        """Begin the transfer, or join who did; its statuses. Closing this leaves it, and the last
        who leaves ends it. ``asker``: by default this very process.

        :raises BadRequest: ``model is required``, ``invalid model name``; like the next two before
            the first status.
        :raises Forbidden: the name asks for a cloud model.
        :raises Busy: :data:`MOST_TRANSFERS` others are under way.
        :raises ServerError: why the model does not get there.
        """
        asked = Asked.parse(text, is_insecure=is_insecure, asker=asker)
        work = partial(self._work, self._means, asked)
        async with aclosing(self._sharing.follow(asked.key, work, MOST_TRANSFERS)) as statuses:
            async for status in statuses:
                yield status


@asynccontextmanager
async def open_transfers(
    work: Work, verb: str, *, tuning: Tuning, key_path: Path, surroundings: Surroundings
) -> AsyncIterator[Transfers]:
    """``verb`` is for messages: models that are being … At the end all transfers end, and whoever
    waits for one gets an error.
    """
    with ThreadPoolExecutor(_THREADS, verb) as threads:
        sharing = Sharing(verb)
        try:
            yield Transfers(work, Means(threads, tuning, key_path, surroundings), sharing)
        finally:
            await sharing.close()
