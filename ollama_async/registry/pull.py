"""One pull: manifest, blobs, digests, name; in Ollama's order and words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from ollama_async import shipped_models
from ollama_async.core.errors import NotFound, RegistryFailed
from ollama_async.core.model_names import DEFAULT_TAG, ModelName
from ollama_async.core.threads import run_in_thread
from ollama_async.registry.address_policy import USUAL, Surroundings
from ollama_async.registry.download import Download, Tuning
from ollama_async.registry.errors import Failure, Refused, Unreachable
from ollama_async.registry.repository import OCI_TYPE, checked_manifest
from ollama_async.registry.transfer_policy import Patience, retried
from ollama_async.registry.transfers import Asked, Board, Means, Status, Transfers, open_transfers
from ollama_async.registry.transport import Transport
from ollama_async.store.manifest import MANIFEST_LIMIT_BYTES, MANIFEST_TYPE, Layer, Manifest
from ollama_async.store.partial_files import Partial, Stamp
from ollama_async.store.store import Store
from ollama_async.store.transfers import Arrivals

T = TypeVar("T")

_OTHER_S = 0.25
"""Between two looks at a blob that somebody else is fetching."""
_OTHER_PATIENCE_S = 600.0
_MOST_ROUNDS = 3


async def fetch_manifest(
    transport: Transport, tag: str, patience: Patience
) -> tuple[bytes, Manifest]:
    """The bytes as they came, and what they say; every digest and size in it can be used.

    :raises Refused: there is none, or it cannot be used; also if the registry cannot be reached,
        because a name is misspelled, or the network gone, more often than it is worth waiting.
    """
    url = transport.endpoint.manifest(tag)

    async def ask() -> bytes:
        try:
            async with transport.get(url, {"Accept": f"{MANIFEST_TYPE}, {OCI_TYPE}"}) as response:
                return await transport.read_small(response, MANIFEST_LIMIT_BYTES)
        except Unreachable as failure:
            raise Refused(str(failure)) from failure

    data = await retried(ask, patience)
    return data, checked_manifest(data)


class Pull:
    """``post`` gets the statuses; ``threads`` do what touches the disk."""

    def __init__(
        self,
        transport: Transport,
        arrivals: Arrivals,
        *,
        tuning: Tuning,
        threads: Executor,
        post: Callable[[Status], None],
    ) -> None:
        self._transport = transport
        self._arrivals = arrivals
        self._tuning = tuning
        self._threads = threads
        self._post = post
        self._verified: dict[str, Stamp] = {}
        """By digest: how the partial files looked when they were complete and right."""

    async def run(self, name: ModelName) -> None:
        """Until the model is there, complete, or nothing of it has changed.

        What was fetched by a pull that fails or is cancelled stays for the next one.

        :raises RegistryFailed: why the registry cannot give it.
        :raises StorageFailed: why the disk cannot take it.
        """
        try:
            try:
                data, manifest = await fetch_manifest(
                    self._transport, name.tag, self._tuning.patience
                )
            except Failure as failure:
                raise RegistryFailed(f"pull model manifest: {failure}") from failure
            await self._blobs_and_name(name, data, manifest)
        except Failure as failure:
            raise RegistryFailed(str(failure)) from failure

    async def _blobs_and_name(self, name: ModelName, data: bytes, manifest: Manifest) -> None:
        layers = list({layer.digest: layer for layer in manifest.blobs}.values())
        for _ in range(_MOST_ROUNDS):
            await self._disk(self._arrivals.make_room, layers)
            fetched = [layer for layer in layers if await self._fetch(layer)]
            self._post({"status": "verifying sha256 digest"})
            for layer in fetched:
                await self._publish(layer)
            self._post({"status": "writing manifest"})
            try:
                has_unused = await self._disk(self._arrivals.publish, name, data, manifest)
            except NotFound:  # somebody removed a blob that we had found: fetch it after all
                continue
            if has_unused:
                self._post({"status": "removing unused layers"})
            return
        raise Refused("blobs are being removed as fast as they are pulled; try again")

    async def _fetch(self, layer: Layer) -> bool:
        """Have the blob on the disk: whole, verified, and noted as such; or False, if it is in the
        store.
        """
        while (partial := await self._claim(layer)) is not None:
            try:
                if await self._disk(self._arrivals.has, layer):
                    await self._disk(partial.discard)  # published before we had the lock
                    continue
                await self._download(layer, partial)
                self._verified[layer.digest] = await self._disk(partial.stamp)
            finally:
                await self._disk(partial.close)
            return True
        return False

    async def _download(self, layer: Layer, partial: Partial) -> None:
        """:raises Refused: what came is not what the manifest promised; nothing of it is kept."""
        found = await self._received(layer, partial)
        if found != layer.digest and partial.is_resumed:
            # the older part may have been damaged by a power cut: once more, all of it
            await self._disk(partial.restart)
            found = await self._received(layer, partial)
        if found != layer.digest:
            await self._disk(partial.discard)
            # what was found stays here: of a small file it would tell everything, and a redirect
            # may have led to a host that the client could not reach
            raise Refused(f"digest mismatch, file must be downloaded again: want {layer.digest}")

    async def _received(self, layer: Layer, partial: Partial) -> str:
        """The digest of what is there when nothing is missing any more."""
        self._progress(layer, partial.arrived)
        return await Download(
            self._transport,
            partial,
            tuning=self._tuning,
            threads=self._threads,
            progressed=lambda arrived: self._progress(layer, arrived),
        ).run()

    async def _publish(self, layer: Layer) -> None:
        """Make what :meth:`_fetch` has verified a blob of the store."""
        while (partial := await self._claim(layer)) is not None:
            try:
                if await self._disk(partial.stamp) == self._verified.get(layer.digest):
                    await self._disk(partial.publish)
                    return
            finally:
                await self._disk(partial.close)
            await self._fetch(layer)  # somebody else was at it meanwhile

    async def _claim(self, layer: Layer) -> Partial | None:
        """The partial file of a blob, to be closed; None if the blob is there.

        While another pull or another process has it, its progress is ours.
        """
        deadline, before = 0.0, -1
        clock = asyncio.get_running_loop().time
        while not await self._disk(self._arrivals.has, layer):
            claim = self._arrivals.claim
            chunk_bytes = self._tuning.chunk_bytes
            partial: Partial | None = await run_in_thread(
                claim, layer, chunk_bytes, undo=_close, threads=self._threads
            )
            if partial is not None:
                return partial
            arrived = await self._disk(self._arrivals.arrived, layer.digest, layer.size)
            if arrived != before:
                deadline, before = clock() + _OTHER_PATIENCE_S, arrived
                self._progress(layer, arrived)
            elif clock() > deadline:
                raise Refused(f"{layer.digest} is held by another process that makes no progress")
            await asyncio.sleep(_OTHER_S)
        self._progress(layer, layer.size)
        return None

    def _progress(self, layer: Layer, arrived: int) -> None:
        status: Status = {"status": f"pulling {layer.digest[7:19]}", "digest": layer.digest}
        for key, value in (("total", layer.size), ("completed", arrived)):
            if value:
                status[key] = value
        self._post(status)

    async def _disk(self, call: Callable[..., T], *args: Any) -> T:
        return await run_in_thread(call, *args, threads=self._threads)


def _close(partial: Partial | None) -> None:
    if partial is not None:
        partial.close()


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
            await run_in_thread(add, self._store, name, folder, threads=means.threads)
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
