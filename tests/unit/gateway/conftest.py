"""A fake queue whose answers a test plays by hand, and a real server around the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from ollama_async.core.conversation import (
    Inference,
    Prompt,
    Sampling,
    Task,
    Thought,
    ToolCall,
    Usage,
)
from ollama_async.core.errors import ServerError
from ollama_async.core.scripted_models import Script
from ollama_async.core.settings import Settings
from ollama_async.gateway.client_budgets import SEND_RESERVATION, Reservation, SendBudget
from ollama_async.gateway.dependencies import DEPENDENCIES, Dependencies, Lifecycle
from ollama_async.gateway.http_server import build_runner
from ollama_async.gateway.metrics import Metrics
from ollama_async.gateway.middleware import abort_connection
from ollama_async.gateway.response_formats.ollama import OllamaGenerateFormat
from ollama_async.gateway.routes import build_application
from ollama_async.gateway.streaming import StreamRequest, send_answer
from ollama_async.queue.backend import (
    Finish,
    Job,
    LoadedModel,
    LoadOptions,
    Sink,
    Snapshot,
    Start,
    Target,
)
from ollama_async.store.catalog import Catalog
from ollama_async.store.store import Store

DEADLINE_S = 10.0

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class FakeJob:
    """One accepted job: the test says what happens to it. ``cancelled`` is set when it is."""

    def __init__(self, job: Job, sink: Sink) -> None:
        self.job = job
        self.cancelled = asyncio.Event()
        self._sink = sink
        self._is_over = False

    def cancel(self) -> None:
        if not self._is_over:
            self._is_over = True
            self.cancelled.set()

    def start(self, load_ns: int = 5_000_000) -> FakeJob:
        if not self._is_over:
            self._sink.started(Start(load_ns, prompt=7, cached=3))
        return self

    def send(self, *pieces: str) -> FakeJob:
        for piece in pieces:
            if not self._is_over:
                self._sink.text(piece)
        return self

    def part(self, *parts: Thought | ToolCall) -> FakeJob:
        for part in parts:
            if not self._is_over:
                self._sink.part(part)
        return self

    def end(self, reason: str = "stop", *, context: list[int] | None = None) -> FakeJob:
        if not self._is_over:
            self._is_over = True
            usage = Usage(
                prompt=7,
                cached=3,
                prompt_ns=1_000,
                answer=2,
                answer_ns=2_000,
                drafted=6,
                accepted=1,
            )
            if reason == "load":
                usage = Usage()
            self._sink.finished(Finish(reason, usage, context or []))
        return self

    def fail(self, error: ServerError) -> FakeJob:
        if not self._is_over:
            self._is_over = True
            self._sink.failed(error)
        return self

    def restart(self) -> bool:
        """The worker died; true if the answer may restart."""
        return self._sink.try_restart()


class FakeRequest(dict[Any, Any]):
    """As much of a request as a :class:`Reservation` knows, and its transport."""

    def __init__(self, remote: str = "10.0.0.1") -> None:
        super().__init__()
        self.remote = remote
        self.transport = self
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class FakeBackend:
    """``InferenceBackend``: hands every job to the test, or refuses it, or plays ``script``."""

    def __init__(self) -> None:
        self.jobs: asyncio.Queue[FakeJob] = asyncio.Queue()
        self.unloaded: list[str] = []
        self.refusal: ServerError | None = None
        self.script: Callable[[FakeJob], object] | None = None
        self.loaded: list[LoadedModel] = []
        self.waiting = 0

    def submit(self, job: Job, sink: Sink) -> FakeJob:
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # else each raise would make it longer
        played = FakeJob(unpacked(job), sink)
        if self.script is not None:
            asyncio.get_running_loop().call_soon(self.script, played)
        self.jobs.put_nowait(played)
        return played

    async def unload(self, key: str) -> None:
        self.unloaded.append(key)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            queued=self.waiting, capacity=512, running={}, loaded=self.loaded, loading=0
        )

    async def job(self) -> FakeJob:
        """The next job that was submitted."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.jobs.get()


def unpacked(job: Job) -> Job:
    """With an inference that can be looked at."""
    if job.task is None:
        return job
    task = msgspec.msgpack.decode(job.task, type=Task)
    return msgspec.structs.replace(job, task=task)


def make_target(name: str = "m:latest") -> Target:
    return Target(
        key="k",
        name=name,
        digest="0" * 64,
        engine="scripted",
        path="",
        weights_bytes=0,
        cache_bytes_per_token=0,
        train_ctx=0,
        details={},
    )


def make_job() -> Job:
    task = msgspec.Raw(msgspec.msgpack.encode(Inference(Prompt(raw="hi"), Sampling())))
    return Job(target=make_target(), load_options=LoadOptions(), client="test", task=task)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="0", ollama_version="0")


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Application], Awaitable[str]]]:
    """Runs applications with the real runner on a free port of loopback; returns their URL."""
    runners: list[web.AppRunner] = []

    async def start(application: web.Application) -> str:
        runner = build_runner(application, shutdown_grace_s=0.2)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def catalog(store) -> Catalog:
    """An empty store, and a scripted model called ``m``."""
    return Catalog(store, {"m": Script()})


@pytest.fixture
def dependencies(tmp_path, catalog, backend, metrics) -> Dependencies:
    settings = Settings.from_environ({"OLLAMA_MODELS": str(tmp_path / "models")})
    return Dependencies(
        settings=settings,
        catalog=catalog,
        backend=backend,
        metrics=metrics,
        lifecycle=Lifecycle(),
    )


@pytest.fixture
def application(dependencies) -> web.Application:
    """The whole gateway, over the fake backend and a real store."""
    return build_application(dependencies)


@pytest.fixture
async def url(serve, application) -> str:
    """Where :func:`application` is served."""
    return await serve(application)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def make_post(
    session: aiohttp.ClientSession,
    url: str,
    defaults: dict[str, Any],
    read_events: Callable[[str], list[Any]] | None = None,
) -> Callable[..., Awaitable[tuple[aiohttp.ClientResponse, Any]]]:
    """``await post(**fields)`` → the response and its JSON, or its events: their data, or what
    ``read_events`` makes of the stream.
    """

    async def post(**fields: Any) -> tuple[aiohttp.ClientResponse, Any]:
        async with session.post(url, json={**defaults, **fields}) as response:
            text = await response.text()
            if response.headers["Content-Type"] == "text/event-stream":
                return response, (read_events or data_of_events)(text)
            return response, json.loads(text)

    return post


def data_of_events(text: str) -> list[str]:
    """Of a stream whose events have no names."""
    return [event.removeprefix("data: ") for event in text.removesuffix("\n\n").split("\n\n")]


@pytest.fixture
def ask(post, backend) -> Callable[..., Awaitable[Inference]]:
    """``await ask(**fields)`` → the inference that reaches the queue."""

    async def ask(**fields: Any) -> Inference:
        backend.script = answer_ok
        response, body = await post(**fields)
        assert response.status == 200, body
        task: Inference = (await backend.job()).job.task
        return task

    return ask


def everything(calls: list[ToolCall], *after: str) -> Callable[[FakeJob], None]:
    """A script with thinking, text, these calls, and text after them."""

    def script(job: FakeJob) -> None:
        job.start().part(Thought("h"), Thought("m")).send("so ", "on").part(*calls)
        job.send(*after).end()

    return script


def answer_ok(job: FakeJob) -> None:
    job.start().send("ok").end()


@pytest.fixture
async def stream_url(serve, dependencies) -> str:
    """``POST /?stream=0|1``: one fixed job through the streaming loop, nothing else."""

    async def handler(request: web.Request) -> web.StreamResponse:
        stall_s = float(request.query.get("stall_s", "10"))
        params = StreamRequest(
            jobs=[make_job()],
            response_format=OllamaGenerateFormat("m"),
            is_streamed=request.query.get("stream") != "0",
            began_at=perf_counter(),
        )
        request[SEND_RESERVATION] = Reservation(SendBudget(), request)
        try:
            return await send_answer(request, params, stall_s=stall_s)
        except ConnectionError:
            return abort_connection(request)

    application = web.Application()
    application[DEPENDENCIES] = dependencies
    application.router.add_post("/", handler)
    return await serve(application)


@pytest.fixture
async def connect(url) -> AsyncIterator[Connect]:
    """Opens raw connections to the gateway."""
    host, _, port = url.removeprefix("http://").partition(":")
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
