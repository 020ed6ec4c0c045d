"""All pushes of this server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import msgspec

from ollama_async.core.threads import in_thread
from ollama_async.registry.address_policy import USUAL, Surroundings
from ollama_async.registry.board import Board
from ollama_async.registry.download import Tuning
from ollama_async.registry.push import Push
from ollama_async.registry.transfers import Asked, Means, Transfers, open_transfers
from ollama_async.store.push_source import Departures


def open_pushes(
    root: Path, *, tuning: Tuning, key_path: Path, surroundings: Surroundings = USUAL
) -> AbstractAsyncContextManager[Transfers]:
    """Pushes from the store at ``root``. ``key_path``: the key pair that registries know us by."""
    work = partial(_push, Departures(root))
    return open_transfers(
        work, "pushed", tuning=tuning, key_path=key_path, surroundings=surroundings
    )


async def _push(departures: Departures, means: Means, asked: Asked, board: Board) -> None:
    board.post({"status": "retrieving manifest"})
    name = await in_thread(departures.spelled, asked.name, threads=means.threads)
    async with msgspec.structs.replace(asked, name=name).transport(means) as transport:
        await Push(
            transport,
            departures,
            tuning=means.tuning,
            threads=means.threads,
            post=board.post,
        ).run(name)
    board.post({"status": "success"})
