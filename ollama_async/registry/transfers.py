"""All pulls, or all pushes, of one server: concurrent requests for one model share a transfer.

Their number is limited. They use their own threads: a slow disk or network must not delay other
work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.core.errors import Busy, ServerError
from ollama_async.core.model_names import ModelName
from ollama_async.registry.address_policy import LOCAL_REQUESTER, Network, Requester
from ollama_async.registry.repository import resolve_repository
from ollama_async.registry.transfer_policy import TransferPolicy
from ollama_async.registry.transport import TransferContext, Transport
from ollama_async.store.manifests import Layer, local_name

UPDATE_INTERVAL_S = 0.06
"""For each follower, which receives only the last of several changes."""
MAX_TRANSFERS = 8
"""At a time, of one kind. Each may use ten connections and some MB."""
_THREADS = 8


def layer_status(action: str, layer: Layer, done_bytes: int) -> ProgressStatus:
    """``action``: ``pulling`` or ``pushing``. Sizes of zero have no field, as in Ollama."""
    status: ProgressStatus = {"status": f"{action} {layer.digest[7:19]}", "digest": layer.digest}
    if layer.size:
        status["total"] = layer.size
    if done_bytes:
        status["completed"] = done_bytes
    return status


class ProgressBroadcast:
    """The statuses of one transfer, for any number of followers.

    Keeps only the latest status per digest, and each text without one. So late followers get all
    statuses, and slow ones cost no memory.
    """

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, ProgressStatus]] = {}
        self._version = 0
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._error: BaseException | None = None

    def post(self, status: ProgressStatus) -> None:
        self._version += 1
        key = str(status.get("digest") or status["status"])
        self._latest[key] = (self._version, status)
        self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """End the statuses; followers raise ``error`` after the last one."""
        self._error = error
        self._ended.set()
        self._changed.set()

    async def follow(self) -> AsyncGenerator[ProgressStatus, None]:
        """Every status so far, then each changed one, in order. :raises ServerError:"""
        seen = 0
        while not self._ended.is_set():
            if self._version == seen:
                self._changed.clear()
                await self._changed.wait()
            for version, status in self._since(seen):
                seen = version
                yield status
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), UPDATE_INTERVAL_S)
        for _, status in self._since(seen):
            yield status
        if isinstance(self._error, ServerError):
            raise type(self._error)(self._error.message)
        if self._error is not None:
            raise self._error

    def _since(self, seen: int) -> list[tuple[int, ProgressStatus]]:
        newer = [each for each in self._latest.values() if each[0] > seen]
        return sorted(newer, key=lambda each: each[0])


class TransferRequest(msgspec.Struct, frozen=True):
    """``text``: the reference as given, with or without a scheme; ``name``: the parsed model."""

    text: str
    name: ModelName
    is_insecure: bool
    requester: Requester

    @property
    def key(self) -> object:
        """Equal for requests that may share a transfer: the same model and scheme, and the same
        permissions. Otherwise a client could learn about addresses that it may not name.
        """
        scheme = self.text.strip().rpartition("://")[0]
        return scheme, self.is_insecure, self.name.folded, self.requester

    def transport(self, context: TransferContext) -> Transport:
        """To the model's registry. :raises ServerError: as :func:`.resolve_repository`."""
        repository = resolve_repository(self.text, self.name, is_insecure=self.is_insecure)
        return Transport(repository, self.requester, context)


RunTransfer = Callable[[TransferContext, TransferRequest, ProgressBroadcast], Awaitable[None]]


class _Transfer:
    def __init__(self, task: asyncio.Task[None], progress: ProgressBroadcast) -> None:
        self.task = task
        self.progress = progress
        self.followers = 0


class Transfers:
    """Created by :func:`open_transfers`. Each transfer is a call of ``run``."""

    def __init__(self, run: RunTransfer, verb: str, context: TransferContext) -> None:
        self._run = run
        self._verb = verb
        self._context = context
        self._current: dict[object, _Transfer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(
        self, text: str, *, is_insecure: bool, requester: Requester = LOCAL_REQUESTER
    ) -> AsyncGenerator[ProgressStatus, None]:
        """Start a transfer or join the current one; yields its statuses.

        A transfer is cancelled when all its generators are closed.

        :raises BadRequest: ``model is required``, ``invalid model name``; like the next two before
            the first status.
        :raises Forbidden: the name is of a cloud model.
        :raises Busy: :data:`MAX_TRANSFERS` others are in progress.
        :raises ServerError: why the transfer failed.
        """
        request = TransferRequest(text, local_name(text), is_insecure, requester)
        transfer = self._current.get(request.key)
        if transfer is None:
            if len(self._current) >= MAX_TRANSFERS:
                raise Busy(f"{MAX_TRANSFERS} models are being {self._verb}, please try again")
            transfer = self._start(request)
        transfer.followers += 1
        try:
            async with aclosing(transfer.progress.follow()) as statuses:
                async for status in statuses:
                    yield status
        finally:
            transfer.followers -= 1
            if not transfer.followers:
                self._forget(request.key, transfer)
                await _cancel({transfer.task})

    async def close(self) -> None:
        """Cancel all transfers; their followers get an error."""
        await _cancel(self._tasks)

    def _start(self, request: TransferRequest) -> _Transfer:
        progress = ProgressBroadcast()
        task = asyncio.create_task(self._run_to_end(request, progress))
        transfer = self._current[request.key] = _Transfer(task, progress)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._forget(request.key, transfer))
        return transfer

    async def _run_to_end(self, request: TransferRequest, progress: ProgressBroadcast) -> None:
        error: BaseException | None = None
        try:
            await self._run(self._context, request, progress)
        except asyncio.CancelledError:
            error = Busy("the server is stopping")
            raise
        except Exception as reason:  # noqa: BLE001  # the followers raise it
            error = reason
        finally:
            progress.end(error)

    def _forget(self, key: object, transfer: _Transfer) -> None:
        """The next request with this key starts a new transfer."""
        if self._current.get(key) is transfer:
            del self._current[key]


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


@asynccontextmanager
async def open_transfers(
    run: RunTransfer, verb: str, *, policy: TransferPolicy, key_path: Path, network: Network
) -> AsyncIterator[Transfers]:
    """``verb``: ``pulled`` or ``pushed``. On exit all transfers are cancelled."""
    with ThreadPoolExecutor(_THREADS, verb) as threads:
        transfers = Transfers(run, verb, TransferContext(threads, policy, key_path, network))
        try:
            yield transfers
        finally:
            await transfers.close()
