"""Pushes: missing blobs first, then the manifest; with Ollama's texts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from io import FileIO
from pathlib import Path

import msgspec

from ollama_async.api.ollama_models import ProgressStatus
from ollama_async.core.errors import Forbidden, RegistryFailed, StorageFailed
from ollama_async.core.model_names import DEFAULT_HOST, DEFAULT_NAMESPACE, ModelName
from ollama_async.registry.address_policy import DEFAULT_NETWORK, Network
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
from ollama_async.registry.upload import COMMIT_S, Upload, has_blob
from ollama_async.store.manifests import Layer, Manifest
from ollama_async.store.transfers import PushSource

NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)


def open_pushes(
    root: Path, *, policy: TransferPolicy, key_path: Path, network: Network = DEFAULT_NETWORK
) -> AbstractAsyncContextManager[Transfers]:
    """Pushes from the store at ``root``. ``key_path``: see :func:`.open_pulls`."""
    source = PushSource(root)

    async def run(
        context: TransferContext, request: TransferRequest, progress: ProgressBroadcast
    ) -> None:
        progress.post({"status": "retrieving manifest"})
        name = await context.run_in_thread(source.stored_spelling, request.name)
        async with msgspec.structs.replace(request, name=name).transport(context) as transport:
            await Push(transport, source, post=progress.post).run(name)
        progress.post({"status": "success"})

    return open_transfers(run, "pushed", policy=policy, key_path=key_path, network=network)


class Push:
    """One push from the store. ``post`` receives the statuses."""

    def __init__(
        self, transport: Transport, source: PushSource, *, post: Callable[[ProgressStatus], None]
    ) -> None:
        self._transport = transport
        self._retry = transport.context.policy.retry
        self._run_in_thread = transport.context.run_in_thread
        self._source = source
        self._post = post
        self._is_reached = False

    async def run(self, name: ModelName) -> None:
        """Push the model, byte for byte. Does not send blobs that the registry has.

        :raises StorageFailed: the model or one of its files is missing.
        :raises Forbidden: the namespace is the library of Ollama's registry.
        :raises RegistryFailed: the registry does not accept it.
        """
        data = await self._read_manifest(name)
        try:
            manifest = parse_manifest(data)
            layers = list({layer.digest: layer for layer in manifest.blobs}.values())
            await self._run_in_thread(self._source.check, layers)
            if (name.host.lower(), name.namespace.lower()) == (DEFAULT_HOST, DEFAULT_NAMESPACE):
                raise Forbidden(NOT_YOURS)
            for layer in layers:
                await self._push_blob(layer, name)
            self._post({"status": "pushing manifest"})
            await self._publish(name.tag, data, manifest)
        except TransferError as failure:
            raise RegistryFailed(str(failure)) from failure

    async def _read_manifest(self, name: ModelName) -> bytes:
        try:
            return await self._run_in_thread(self._source.manifest, name)
        except StorageFailed:
            self._post({"status": "couldn't retrieve manifest"})
            raise

    async def _push_blob(self, layer: Layer, name: ModelName) -> None:
        def progressed(sent: int) -> None:
            self._post(layer_status("pushing", layer, sent))

        if not await retry(lambda: self._has_blob(layer), self._retry):
            progressed(0)
            file = await self._run_in_thread(self._source.open, layer.digest, undo=FileIO.close)
            with file:
                upload = Upload(self._transport, layer, file, progressed=progressed)
                await upload.run(_origin(layer, name))
        progressed(layer.size)

    async def _has_blob(self, layer: Layer) -> bool:
        """Does not retry if no request has reached the registry: its name may be misspelled."""
        try:
            found = await has_blob(self._transport, layer.digest)
        except RegistryUnreachable as failure:
            if self._is_reached:
                raise
            raise PermanentError(str(failure)) from failure
        self._is_reached = True
        return found

    async def _publish(self, tag: str, data: bytes, manifest: Manifest) -> None:
        url = self._transport.repository.manifest(tag)
        headers = {"Content-Type": manifest.media_type}

        async def put() -> None:
            async with self._transport.send("PUT", url, headers, data, response_s=COMMIT_S):
                pass

        await retry(put, self._retry)


def _origin(layer: Layer, name: ModelName) -> str:
    """The layer's original repository in the same registry, or "".

    ``from_`` may be a local path, which must not be sent.
    """
    try:
        origin = ModelName.parse(layer.from_)
    except ValueError:
        return ""
    is_other = origin.folded.parts[:3] != name.folded.parts[:3]
    is_same_host = origin.host.lower() == name.host.lower()
    return f"{origin.namespace}/{origin.model}" if is_same_host and is_other else ""
