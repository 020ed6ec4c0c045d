"""All pushes of this server: who asks for the same model shares one, until the last one leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

from ollama_async.in_thread import in_thread
from ollama_async.models.departures import Departures
from ollama_async.models.manifests import local_name
from ollama_async.names import ModelName
from ollama_async.registry.board import Board, Status
from ollama_async.registry.download import Tuning
from ollama_async.registry.endpoint import endpoint_of
from ollama_async.registry.push import Push
from ollama_async.registry.sharing import Sharing
from ollama_async.registry.transport import Transport

MOST_PUSHES = 8
"""Of different models at a time. Each may have ten connections, and some MB of memory."""
_THREADS = 8


class Pushes:
    """Made by :func:`open_pushes`. ``key_path``: the key pair that registries know us by."""

    def __init__(self, root: Path, threads: Executor, *, tuning: Tuning, key_path: Path) -> None:
        self._departures = Departures(root)
        self._threads = threads
        self._tuning = tuning
        self._key_path = key_path
        self._sharing = Sharing("pushed")

    async def follow(self, text: str, *, is_insecure: bool) -> AsyncGenerator[Status, None]:
        """Push the model, or join who does; its statuses. Closing this leaves it.

        :raises BadRequest: ``model is required``, ``invalid model name``; like the next two before
            the first status.
        :raises Forbidden: the name asks for a cloud model.
        :raises Busy: :data:`MOST_PUSHES` others are under way.
        :raises ServerError: why the model does not get there.
        """
        name = local_name(text)
        key = text.strip().rpartition("://")[0], is_insecure, name.folded
        work = partial(self._push, text, name, is_insecure)
        async with aclosing(self._sharing.follow(key, work, MOST_PUSHES)) as statuses:
            async for status in statuses:
                yield status

    async def close(self) -> None:
        """End all pushes; whoever waits for one gets an error."""
        await self._sharing.close()

    async def _push(self, text: str, name: ModelName, is_insecure: bool, board: Board) -> None:
        board.post({"status": "retrieving manifest"})
        name = await in_thread(self._departures.spelled, name, threads=self._threads)
        tuning = self._tuning
        async with Transport(
            endpoint_of(text, name, is_insecure=is_insecure),
            key_path=self._key_path,
            stall_s=tuning.stall_s,
            threads=self._threads,
        ) as transport:
            await Push(
                transport,
                self._departures,
                tuning=tuning,
                threads=self._threads,
                post=board.post,
            ).run(name)
        board.post({"status": "success"})


@asynccontextmanager
async def open_pushes(root: Path, *, tuning: Tuning, key_path: Path) -> AsyncIterator[Pushes]:
    """Their threads are their own: a slow disk or network must not hold up anything else."""
    with ThreadPoolExecutor(_THREADS, "push") as threads:
        pushes = Pushes(root, threads, tuning=tuning, key_path=key_path)
        try:
            yield pushes
        finally:
            await pushes.close()
