"""Pulls: manifest, blobs, digests, name; in Ollama's order and with its texts.

A failed or cancelled pull leaves partial files (:mod:`.store.partial_files`), where the next pull
resumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ollama_async import shipped_models
from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.core.errors import NotFound, RegistryFailed
from ollama_async.core.model_names import DEFAULT_TAG, ModelName
from ollama_async.registry.address_policy import DEFAULT_NETWORK, Network
from ollama_async.registry.download import Download
from ollama_async.registry.errors import PermanentError, RegistryUnreachable, TransferError
from ollama_async.registry.repository import parse_manifest
from ollama_async.registry.transfer_policy import TransferPolicy, retry
from ollama_async.registry.transfers import (
    ProgressBroadcast,
    TransferRequest,
    Transfers,
    layer_status,
    open_transfers,
)
from ollama_async.registry.transport import TransferContext, Transport
from ollama_async.store.manifests import MANIFEST_LIMIT_BYTES, MANIFEST_TYPE, Layer, Manifest
from ollama_async.store.partial_files import PartialFile, Stamp
from ollama_async.store.store import Store
from ollama_async.store.transfers import PullTarget

_ACCEPT = f"{MANIFEST_TYPE}, application/vnd.oci.image.manifest.v1+json"
_POLL_S = 0.25
"""How often to check a blob that another pull is fetching."""
_STALLED_S = 600.0
_MAX_ROUNDS = 3


def open_pulls(
    store: Store,
    *,
    policy: TransferPolicy,
    key_path: Path,
    network: Network = DEFAULT_NETWORK,
    shipped_folder: Path = shipped_models.FOLDER,
) -> AbstractAsyncContextManager[Transfers]:
    """Pulls into ``store``. Shipped models are copied from ``shipped_folder``. ``key_path``: the
    key pair that identifies us to registries.
    """

    async def run(
        context: TransferContext, request: TransferRequest, progress: ProgressBroadcast
    ) -> None:
        progress.post({"status": "pulling manifest"})
        name = request.name
        shipped = {
            ModelName.parse(f"{each}:{DEFAULT_TAG}")
            for each in shipped_models.names(shipped_folder)
        }
        if name.folded in shipped:
            add = shipped_models.add
            await context.run_in_thread(add, store, name.model.lower(), shipped_folder)
            progress.post({"status": "writing manifest"})
        else:
            async with request.transport(context) as transport:
                await Pull(transport, PullTarget(store.layout), post=progress.post).run(name)
        progress.post({"status": "success"})

    return open_transfers(run, "pulled", policy=policy, key_path=key_path, network=network)


class Pull:
    """One pull into the store. ``post`` receives the statuses."""

    def __init__(
        self, transport: Transport, target: PullTarget, *, post: Callable[[ProgressStatus], None]
    ) -> None:
        self._transport = transport
        self._policy = transport.context.policy
        self._run_in_thread = transport.context.run_in_thread
        self._target = target
        self._post = post
        self._verified: dict[str, Stamp] = {}
        """Stamps of complete, verified partial files, by digest."""

    async def run(self, name: ModelName) -> None:
        """Pull the model; after an error, an old model of this name is unchanged.

        :raises RegistryFailed: the registry cannot provide it.
        :raises StorageFailed: disk full or not writable.
        """
        try:
            try:
                data = await self._fetch_manifest(name.tag)
                manifest = parse_manifest(data)
            except TransferError as failure:
                raise RegistryFailed(f"pull model manifest: {failure}") from failure
            await self._fetch_and_publish(name, data, manifest)
        except TransferError as failure:
            raise RegistryFailed(str(failure)) from failure

    async def _fetch_manifest(self, tag: str) -> bytes:
        """:raises PermanentError: also if the registry is unreachable: most often its name is
        misspelled, or the network is down.
        """
        url = self._transport.repository.manifest(tag)

        async def fetch() -> bytes:
            try:
                async with self._transport.get(url, {"Accept": _ACCEPT}) as response:
                    return await self._transport.read_small(response, MANIFEST_LIMIT_BYTES)
            except RegistryUnreachable as failure:
                raise PermanentError(str(failure)) from failure

        return await retry(fetch, self._policy.retry)

    async def _fetch_and_publish(self, name: ModelName, data: bytes, manifest: Manifest) -> None:
        layers = list({layer.digest: layer for layer in manifest.blobs}.values())
        for _ in range(_MAX_ROUNDS):
            await self._run_in_thread(self._target.ensure_space, layers)
            fetched = [layer for layer in layers if await self._fetch(layer)]
            self._post({"status": "verifying sha256 digest"})
            for layer in fetched:
                await self._publish(layer)
            self._post({"status": "writing manifest"})
            try:
                has_unused = await self._run_in_thread(self._target.publish, name, data, manifest)
            except NotFound:  # a blob has been removed meanwhile: fetch it, too
                continue
            if has_unused:
                self._post({"status": "removing unused layers"})
            return
        raise PermanentError("blobs are being removed as fast as they are pulled; try again")

    async def _fetch(self, layer: Layer) -> bool:
        """Make a complete, verified partial file; False if the blob is in the store."""
        while (partial := await self._claim(layer)) is not None:
            try:
                if await self._run_in_thread(self._target.has, layer):
                    await self._run_in_thread(partial.discard)  # published before we had the lock
                    continue
                await self._download(layer, partial)
                self._verified[layer.digest] = await self._run_in_thread(partial.stamp)
            finally:
                await self._run_in_thread(partial.close)
            return True
        return False

    async def _download(self, layer: Layer, partial: PartialFile) -> None:
        """:raises PermanentError: the digest differs from the manifest's; nothing is kept."""
        while True:
            self._progress(layer, partial.received)
            download = Download(
                self._transport, partial, progressed=lambda done: self._progress(layer, done)
            )
            if await download.run() == layer.digest:
                return
            if not partial.is_resumed:
                break
            # a power cut may have damaged the older part: start over
            await self._run_in_thread(partial.restart)
        await self._run_in_thread(partial.discard)
        # The error omits the actual digest: it would reveal the content of a small file, perhaps
        # from a host that the client cannot reach.
        raise PermanentError(f"digest mismatch, file must be downloaded again: want {layer.digest}")

    async def _publish(self, layer: Layer) -> None:
        """Publish the partial file that :meth:`_fetch` has verified."""
        while (partial := await self._claim(layer)) is not None:
            try:
                stamp = await self._run_in_thread(partial.stamp)
                if stamp == self._verified.get(layer.digest):
                    await self._run_in_thread(partial.publish)
                    return
            finally:
                await self._run_in_thread(partial.close)
            await self._fetch(layer)  # another process has changed it meanwhile

    async def _claim(self, layer: Layer) -> PartialFile | None:
        """The partial file of a blob, to be closed; None if the blob is in the store.

        While another pull or process has it open, reports that one's progress.
        """
        deadline, before = 0.0, -1
        clock = asyncio.get_running_loop().time
        while not await self._run_in_thread(self._target.has, layer):
            claim, chunk_bytes = self._target.claim, self._policy.chunk_bytes
            partial: PartialFile | None = await self._run_in_thread(
                claim, layer, chunk_bytes, undo=_close
            )
            if partial is not None:
                return partial
            received = await self._run_in_thread(
                self._target.received_bytes, layer.digest, layer.size
            )
            if received != before:
                deadline, before = clock() + _STALLED_S, received
                self._progress(layer, received)
            elif clock() > deadline:
                raise PermanentError(
                    f"{layer.digest} is locked by another process that makes no progress"
                )
            await asyncio.sleep(_POLL_S)
        self._progress(layer, layer.size)
        return None

    def _progress(self, layer: Layer, received: int) -> None:
        self._post(layer_status("pulling", layer, received))


def _close(partial: PartialFile | None) -> None:
    if partial is not None:
        partial.close()
