"""What all pulls, or all pushes, of one server have in common.

Whoever asks for the same shares one transfer; there are only so many at a time; their threads are
their own, because a slow disk or network must not hold up anything else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from ollama_async.core.model_names import ModelName
from ollama_async.registry.address_policy import HERE, Asker, Surroundings
from ollama_async.registry.board import Board, Status
from ollama_async.registry.download import Tuning
from ollama_async.registry.repository import endpoint_of
from ollama_async.registry.sharing import Sharing
from ollama_async.registry.transport import Transport
from ollama_async.store.manifests import local_name

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
