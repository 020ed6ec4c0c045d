"""One push: the manifest, what the registry has not yet, the manifest again; in Ollama's words."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ollama_async.core.errors import Forbidden, RegistryFailed, StorageFailed
from ollama_async.core.model_names import DEFAULT_HOST, DEFAULT_NAMESPACE, ModelName
from ollama_async.core.threads import run_in_thread
from ollama_async.registry.address_policy import USUAL, Surroundings
from ollama_async.registry.download import Tuning
from ollama_async.registry.errors import Failure, Refused, Unreachable
from ollama_async.registry.repository import checked_manifest
from ollama_async.registry.transfer_policy import retried
from ollama_async.registry.transfers import Asked, Board, Means, Status, Transfers, open_transfers
from ollama_async.registry.transport import Transport
from ollama_async.registry.upload import COMMIT_S, Upload, is_there
from ollama_async.store.manifest import Layer, Manifest
from ollama_async.store.push_source import Departures

T = TypeVar("T")

NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)


class Push:
    """``post`` gets the statuses; ``threads`` do what touches the disk."""

    def __init__(
        self,
        transport: Transport,
        departures: Departures,
        *,
        tuning: Tuning,
        threads: Executor,
        post: Callable[[Status], None],
    ) -> None:
        self._transport = transport
        self._departures = departures
        self._tuning = tuning
        self._threads = threads
        self._post = post
        self._is_reached = False

    async def run(self, name: ModelName) -> None:
        """Until the registry has the model, byte for byte as it is in the store.

        Files that a push has brought there before it failed or was cancelled are not sent again.

        :raises StorageFailed: there is no such model, or a file of it is missing.
        :raises Forbidden: the namespace is the library of Ollama's registry.
        :raises RegistryFailed: why the registry does not take it.
        """
        data = await self._manifest(name)
        try:
            manifest = checked_manifest(data)
            layers = list({layer.digest: layer for layer in manifest.blobs}.values())
            await self._disk(self._departures.check, layers)
            if (name.host.lower(), name.namespace.lower()) == (DEFAULT_HOST, DEFAULT_NAMESPACE):
                raise Forbidden(NOT_YOURS)
            for layer in layers:
                await self._blob(layer, name)
            self._post({"status": "pushing manifest"})
            await self._publish(name.tag, data, manifest)
        except Failure as failure:
            raise RegistryFailed(str(failure)) from failure

    async def _manifest(self, name: ModelName) -> bytes:
        try:
            return await self._disk(self._departures.manifest, name)
        except StorageFailed:
            self._post({"status": "couldn't retrieve manifest"})
            raise

    async def _blob(self, layer: Layer, name: ModelName) -> None:
        if not await retried(lambda: self._has(layer), self._tuning.patience):
            self._progress(layer, 0)
            file = await run_in_thread(
                self._departures.open,
                layer.digest,
                undo=lambda file: file.close(),
                threads=self._threads,
            )
            with file:
                await Upload(
                    self._transport,
                    layer,
                    file,
                    tuning=self._tuning,
                    threads=self._threads,
                    progressed=lambda sent: self._progress(layer, sent),
                ).run(_origin(layer, name))
        self._progress(layer, layer.size)

    async def _has(self, layer: Layer) -> bool:
        """Whether the registry has it. Who is not there at all has a misspelled name: no retry."""
        try:
            found = await is_there(self._transport, layer.digest)
        except Unreachable as failure:
            if self._is_reached:
                raise
            raise Refused(str(failure)) from failure
        self._is_reached = True
        return found

    async def _publish(self, tag: str, data: bytes, manifest: Manifest) -> None:
        url = self._transport.endpoint.manifest(tag)
        headers = {"Content-Type": manifest.media_type}

        async def put() -> None:
            async with self._transport.send("PUT", url, headers, data, answer_s=COMMIT_S):
                pass

        await retried(put, self._tuning.patience)

    def _progress(self, layer: Layer, sent: int) -> None:
        status: Status = {"status": f"pushing {layer.digest[7:19]}", "digest": layer.digest}
        for key, value in (("total", layer.size), ("completed", sent)):
            if value:
                status[key] = value
        self._post(status)

    async def _disk(self, call: Callable[..., T], *args: Any) -> T:
        return await run_in_thread(call, *args, threads=self._threads)


def _origin(layer: Layer, name: ModelName) -> str:
    """The repository in the same registry that the layer came from; "" if there is none.

    ``from_`` may be a file's name instead, which is nobody's business.
    """
    try:
        origin = ModelName.parse(layer.from_)
    except ValueError:
        return ""
    is_other = origin.folded.parts[:3] != name.folded.parts[:3]
    is_near = origin.host.lower() == name.host.lower()
    return f"{origin.namespace}/{origin.model}" if is_near and is_other else ""


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
    name = await run_in_thread(departures.spelled, asked.name, threads=means.threads)
    async with msgspec.structs.replace(asked, name=name).transport(means) as transport:
        await Push(
            transport,
            departures,
            tuning=means.tuning,
            threads=means.threads,
            post=board.post,
        ).run(name)
    board.post({"status": "success"})
