"""All pulls of this server: who asks for the same model shares one; it ends with its last asker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

from ollama_async.errors import BadRequest
from ollama_async.in_thread import in_thread
from ollama_async.models import shipped
from ollama_async.models.manifests import local_name
from ollama_async.models.store import Store
from ollama_async.names import DEFAULT_TAG, ModelName
from ollama_async.registry.board import Board, Status
from ollama_async.registry.download import Tuning
from ollama_async.registry.endpoint import Endpoint, endpoint_of
from ollama_async.registry.pull import Pull
from ollama_async.registry.sharing import Sharing
from ollama_async.registry.transport import Transport

MOST_PULLS = 8
"""Of different models at a time. Each may have ten connections, and some MB of memory."""
_THREADS = 8


class Pulls:
    """Made by :func:`open_pulls`. ``key_path``: the key pair that registries know us by."""

    def __init__(
        self,
        store: Store,
        threads: Executor,
        *,
        tuning: Tuning,
        key_path: Path,
        shipped_folder: Path = shipped.FOLDER,
    ) -> None:
        self._store = store
        self._threads = threads
        self._tuning = tuning
        self._key_path = key_path
        self._shipped_folder = shipped_folder
        self._sharing = Sharing("pulled")

    async def follow(self, text: str, *, is_insecure: bool) -> AsyncGenerator[Status, None]:
        """Pull the model, or join who does; its statuses. Closing this leaves it.

        :raises BadRequest: ``invalid model name``; like the next two before the first status.
        :raises Forbidden: the name asks for a cloud model.
        :raises Busy: :data:`MOST_PULLS` others are under way.
        :raises ServerError: why the model cannot be had.
        """
        if not text.strip():
            raise BadRequest("invalid model name")
        name = local_name(text)
        key = text.strip().rpartition("://")[0], is_insecure, name.folded
        work = partial(self._run, text, name, is_insecure)
        async with aclosing(self._sharing.follow(key, work, MOST_PULLS)) as statuses:
            async for status in statuses:
                yield status

    async def close(self) -> None:
        """End all pulls; whoever waits for one gets an error."""
        await self._sharing.close()

    async def _run(self, text: str, name: ModelName, is_insecure: bool, board: Board) -> None:
        board.post({"status": "pulling manifest"})
        if self._is_shipped(name):
            await in_thread(
                shipped.add,
                self._store,
                name.model.lower(),
                self._shipped_folder,
                threads=self._threads,
            )
            board.post({"status": "writing manifest"})
        else:
            await self._pull(board, endpoint_of(text, name, is_insecure=is_insecure), name)
        board.post({"status": "success"})

    async def _pull(self, board: Board, endpoint: Endpoint, name: ModelName) -> None:
        tuning = self._tuning
        async with Transport(
            endpoint,
            key_path=self._key_path,
            stall_s=tuning.stall_s,
            threads=self._threads,
        ) as transport:
            await Pull(
                transport,
                self._store.arrivals(),
                tuning=tuning,
                threads=self._threads,
                post=board.post,
            ).run(name)

    def _is_shipped(self, name: ModelName) -> bool:
        names = shipped.names(self._shipped_folder)
        return name.folded in {ModelName.parse(f"{each}:{DEFAULT_TAG}") for each in names}


@asynccontextmanager
async def open_pulls(store: Store, *, tuning: Tuning, key_path: Path) -> AsyncIterator[Pulls]:
    """Their threads are their own: a slow disk or network must not hold up anything else."""
    with ThreadPoolExecutor(_THREADS, "pull") as threads:
        pulls = Pulls(store, threads, tuning=tuning, key_path=key_path)
        try:
            yield pulls
        finally:
            await pulls.close()
