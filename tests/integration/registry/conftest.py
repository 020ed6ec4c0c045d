"""A real registry server, and a proxy of ours in front of it that misbehaves as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import select
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from ollama_async.core.model_names import ModelName
from ollama_async.gocompat.json_encode import encode_line
from ollama_async.native import build
from ollama_async.registry.pull import open_pulls
from ollama_async.registry.push import open_pushes
from ollama_async.registry.transfer_policy import RetryPolicy, TransferPolicy
from ollama_async.registry.transfers import Transfers
from ollama_async.store.blobs import Blobs
from ollama_async.store.manifests import Layer, Manifest, Manifests, layer_type
from ollama_async.store.store import Store


def _program() -> str | None:
    """Where ``scripts/docker_registry.py`` finds the registry server."""
    unpacked = build.cache_folder() / "docker-registry" / "usr" / "bin"
    return shutil.which("docker-registry", path=f"{os.environ['PATH']}:{unpacked}")


DEADLINE_S = 30.0
CHUNK = 256 << 10
MODEL = random.Random(1).randbytes(5 * CHUNK + 1000)  # not a GGUF: a pull need not know
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MAY_SKIP = not (os.environ.get("OLLAMA_ASYNC_TEST_NO_SKIP") or os.environ.get("CI"))
PROGRAM = _program()
"""Looked for here, because tests run with a cache of their own."""
CONFIG = "application/vnd.docker.container.image.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the machine that runs the tests are none of their business."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# ----------------------------------------------------------------- the registry


class Registry:
    """A running ``docker-registry``. ``host``: ``127.0.0.1:PORT``."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.url = f"http://{host}"

    def push(self, name: str, model: bytes, *, media_type: str = MANIFEST, **texts: str) -> bytes:
        """Upload a model and some small layers as ``NAMESPACE/MODEL``; returns its manifest.

        Bytes that are no GGUF file are uploaded as a part of a model of another kind, which is
        pulled as it is: a file that claims to be a model is looked into.
        """
        config = json.dumps({"model_format": "gguf", "model_family": "llama"}).encode()
        main = "model" if model.startswith(b"GGUF") else "tensor"
        kinds = {main: model, **{kind: text.encode() for kind, text in texts.items()}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self._layer(name, CONFIG, config),
            "layers": [
                self._layer(name, f"application/vnd.ollama.image.{kind}", data)
                for kind, data in kinds.items()
            ],
        }
        data = json.dumps(manifest).encode()
        self.put_manifest(name, data, media_type)
        return data

    def manifest(self, name: str) -> bytes:
        url = f"{self.url}/v2/{name}/manifests/latest"
        return httpx.get(url, headers={"Accept": MANIFEST}).raise_for_status().content

    def put_manifest(self, name: str, data: bytes, media_type: str = MANIFEST) -> None:
        url = f"{self.url}/v2/{name}/manifests/latest"
        httpx.put(url, content=data, headers={"Content-Type": media_type}).raise_for_status()

    def _layer(self, name: str, media_type: str, data: bytes) -> dict[str, object]:
        digest = digest_of(data)
        begun = httpx.post(f"{self.url}/v2/{name}/blobs/uploads/")
        url = httpx.URL(begun.raise_for_status().headers["Location"])
        done = httpx.put(url.copy_merge_params({"digest": digest}), content=data)
        done.raise_for_status()
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


@pytest.fixture(scope="session")
def registry_program() -> str:
    """The program of Debian's package ``docker-registry``."""
    if PROGRAM is None:
        text = "no docker-registry: run scripts/docker_registry.py, or apt install docker-registry"
        if MAY_SKIP:
            pytest.skip(text)
        pytest.fail(text)
    return PROGRAM


@pytest.fixture(scope="session")
def registry(registry_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    settings = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (folder / "config.yml").write_text(json.dumps(settings))  # YAML is a superset
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [registry_program, "serve", str(folder / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield Registry(_address(log, process))
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        select.select([], [], [], 0.01)
    raise AssertionError(f"the registry did not start:\n{log.read_text()}")


# ----------------------------------------------------------------- the proxy

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Proxy:
    """Hands requests to the registry. ``fault`` may answer instead; ``spoil`` sees each piece of
    a blob's body with its offset in the blob, and returns what is sent, or None to hang up;
    ``swallow`` does the same with what is uploaded, with how much came in all before.
    """

    def __init__(self, upstream: Registry, session: aiohttp.ClientSession) -> None:
        self.host = ""
        self.requests: list[web.Request] = []
        self.has_ranges = True
        self.sent = 0
        self.taken = 0
        self.swallow: Callable[[int, bytes], Awaitable[bytes | None]] | None = None
        self.fault: Fault | None = None
        self.spoil: Callable[[int, bytes], Awaitable[bytes | None]] | None = None
        self._upstream = upstream
        self._session = session

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def asked(self, part: str) -> list[web.Request]:
        return [request for request in self.requests if part in request.path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.fault is not None and (answer := await self.fault(request)) is not None:
            return answer
        url = URL(f"{self._upstream.url}{request.rel_url.raw_path_qs}", encoded=True)
        passed = {"Accept", "Host", "Content-Type", "Content-Length", "Content-Range"}
        passed |= {"Range"} if self.has_ranges else set()
        headers = {name: value for name, value in request.headers.items() if name in passed}
        if request.secure:
            headers["X-Forwarded-Proto"] = "https"  # or the registry's addresses are plain ones
        body = self._body(request) if request.body_exists else None
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            kept = ("Content-Type", "Content-Length", "Content-Range", "Location", "Range")
            response = web.StreamResponse(
                status=answer.status,
                headers={name: answer.headers[name] for name in kept if name in answer.headers},
            )
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                await self._send(request, response, answer)
            return response

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        async for data in request.content.iter_chunked(16 << 10):
            piece: bytes | None = data
            if self.swallow is not None:
                piece = await self.swallow(self.taken, data)
            if piece is None:
                assert request.transport is not None
                request.transport.abort()
                raise ConnectionAbortedError
            self.taken += len(piece)
            yield piece

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        answer: aiohttp.ClientResponse,
    ) -> None:
        is_blob = "/blobs/" in request.path
        offset = int(answer.headers.get("Content-Range", "bytes 0-").split()[1].split("-")[0])
        async for data in answer.content.iter_chunked(16 << 10):
            piece: bytes | None = data
            if is_blob and self.spoil is not None:
                piece = await self.spoil(offset, data)
            if piece is None:
                assert request.transport is not None
                request.transport.abort()
                return
            await response.write(piece)
            offset += len(piece)
            self.sent += len(piece) if is_blob else 0
        await response.write_eof()


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    tls: ssl.SSLContext | None = None,
):
    """An HTTP server on loopback; yields ``127.0.0.1:PORT``."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def proxy(registry: Registry) -> AsyncIterator[Proxy]:
    async with aiohttp.ClientSession() as session:
        proxy = Proxy(registry, session)
        async with serving(proxy.handle) as proxy.host:
            yield proxy


def unauthorized(request, realm="/token"):
    header = (
        f'Bearer realm="http://{request.host}{realm}",service="s",scope="repository:x:pull a:b"'
    )
    return web.Response(status=401, headers={"WWW-Authenticate": header})


def with_tokens(fault, token):
    async def both(request):
        if request.path == "/token":
            return web.json_response({"token": token(request)})
        return await fault(request)

    return both


# ----------------------------------------------------------------- our side

QUICK = TransferPolicy(
    connections=4,
    chunk_bytes=CHUNK,
    stall_s=5.0,  # a machine may be busy with other things
    retry=RetryPolicy(attempts=4, first_pause_s=0.01, longest_pause_s=0.05),
)


@pytest.fixture
def store(environment: dict[str, str]) -> Store:
    return Store(Path(environment["OLLAMA_MODELS"]))


@pytest.fixture
async def pulls(store: Store, environment: dict[str, str]) -> AsyncIterator[Transfers]:
    key = Path(environment["HOME"]) / ".ollama" / "id_ed25519"
    async with open_pulls(store, policy=QUICK, key_path=key) as pulls:
        yield pulls


@pytest.fixture
async def short_timeout_pulls(
    store: Store, environment: dict[str, str]
) -> AsyncIterator[Transfers]:
    """Waits a moment only, for tests in which nothing comes."""
    key = Path(environment["HOME"]) / ".ollama" / "id_ed25519"
    policy = msgspec.structs.replace(QUICK, stall_s=0.3)
    async with open_pulls(store, policy=policy, key_path=key) as pulls:
        yield pulls


@pytest.fixture
def pull(pulls: Transfers) -> Callable[..., Awaitable[list[dict[str, object]]]]:
    """Pull to the end; the statuses."""

    async def pull(name: str, *, is_insecure: bool = True) -> list[dict[str, object]]:
        async with asyncio.timeout(DEADLINE_S):
            return [status async for status in pulls.follow(name, is_insecure=is_insecure)]

    return pull


@pytest.fixture
async def pushes(store: Store, environment: dict[str, str]) -> AsyncIterator[Transfers]:
    key = Path(environment["HOME"]) / ".ollama" / "id_ed25519"
    async with open_pushes(store.root, policy=QUICK, key_path=key) as pushes:
        yield pushes


@pytest.fixture
async def short_timeout_pushes(
    store: Store, environment: dict[str, str]
) -> AsyncIterator[Transfers]:
    key = Path(environment["HOME"]) / ".ollama" / "id_ed25519"
    policy = msgspec.structs.replace(QUICK, stall_s=0.3)
    async with open_pushes(store.root, policy=policy, key_path=key) as pushes:
        yield pushes


@pytest.fixture
def push(pushes: Transfers) -> Callable[..., Awaitable[list[dict[str, object]]]]:
    """Push to the end; the statuses."""

    async def push(name: str, *, is_insecure: bool = True) -> list[dict[str, object]]:
        async with asyncio.timeout(DEADLINE_S):
            return [status async for status in pushes.follow(name, is_insecure=is_insecure)]

    return push


@pytest.fixture
def keep(store: Store) -> Callable[..., bytes]:
    """Put a model into the store; returns its manifest."""

    def keep(name: str, model: bytes, *, origin: str = "", **texts: str) -> bytes:
        def layer(media_type: str, data: bytes) -> Layer:
            found, _ = Blobs(store.root).put(data)
            return Layer(media_type, found, len(data), from_=origin)

        main = "model" if model.startswith(b"GGUF") else "tensor"
        kinds = {main: model, **{kind: text.encode() for kind, text in texts.items()}}
        data = encode_line(
            Manifest(
                config=layer(CONFIG, b'{"model_format":"gguf"}'),
                layers=[layer(layer_type(kind), data) for kind, data in kinds.items()],
            )
        )
        Manifests(store.root).write(ModelName.parse(name), data)
        return data

    return keep


@pytest.fixture
def digest() -> Callable[[bytes], str]:
    return digest_of


@pytest.fixture
def serve() -> Callable[..., contextlib.AbstractAsyncContextManager[str]]:
    return serving


@pytest.fixture
def name(registry: Registry, proxy: Proxy, request: pytest.FixtureRequest) -> str:
    """A model of its own for each test, pushed, to be pulled through the proxy."""
    repository = f"faults/{hashlib.md5(request.node.name.encode()).hexdigest()}"
    registry.push(repository, MODEL, template="{{ .Prompt }}")
    return f"{proxy.host}/{repository}"


@pytest.fixture
def blob(store: Store) -> Path:
    return store.layout.blobs.path(digest_of(MODEL))
