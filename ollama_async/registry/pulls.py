"""All pulls of this server; the models of the package are taken from there."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ollama_async import shipped_models
from ollama_async.core.model_names import DEFAULT_TAG, ModelName
from ollama_async.core.threads import in_thread
from ollama_async.registry.address_policy import USUAL, Surroundings
from ollama_async.registry.board import Board
from ollama_async.registry.download import Tuning
from ollama_async.registry.pull import Pull
from ollama_async.registry.transfers import Asked, Means, Transfers, open_transfers
from ollama_async.store.store import Store


def open_pulls(
    store: Store,
    *,
    tuning: Tuning,
    key_path: Path,
    surroundings: Surroundings = USUAL,
    shipped_folder: Path = shipped_models.FOLDER,
) -> AbstractAsyncContextManager[Transfers]:
    """Pulls into ``store``. ``key_path``: the key pair that registries know us by."""
    work = _Pulling(store, shipped_folder)
    return open_transfers(
        work, "pulled", tuning=tuning, key_path=key_path, surroundings=surroundings
    )


class _Pulling:
    """One pull after the other, or beside it."""

    def __init__(self, store: Store, shipped_folder: Path) -> None:
        self._store = store
        self._shipped_folder = shipped_folder

    async def __call__(self, means: Means, asked: Asked, board: Board) -> None:
        board.post({"status": "pulling manifest"})
        if self._is_shipped(asked.name):
            name = asked.name.model.lower()
            add, folder = shipped_models.add, self._shipped_folder
            await in_thread(add, self._store, name, folder, threads=means.threads)
            board.post({"status": "writing manifest"})
        else:
            async with asked.transport(means) as transport:
                await Pull(
                    transport,
                    self._store.arrivals(),
                    tuning=means.tuning,
                    threads=means.threads,
                    post=board.post,
                ).run(asked.name)
        board.post({"status": "success"})

    def _is_shipped(self, name: ModelName) -> bool:
        names = shipped_models.names(self._shipped_folder)
        return name.folded in {ModelName.parse(f"{each}:{DEFAULT_TAG}") for each in names}
