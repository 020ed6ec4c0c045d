"""``/api/show`` and ``/api/copy``, the errors in Ollama's words."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import threading

import msgspec
import pytest

from ollama_async.api.ollama_models import ShowRequest
from ollama_async.gateway import responses
from ollama_async.gateway.client_budgets import SEND_BUDGET, Reservation, SendBudget
from ollama_async.gateway.handlers import models as handler
from ollama_async.gateway.handlers.models import ShowService
from tests.unit.gateway.conftest import FakeRequest

DEADLINE_S = 10.0
LONG_DEADLINE_S = 60.0


@pytest.fixture
async def mine(session, url, tiny_model) -> str:
    """A model with weights, called ``Mine``."""
    data = tiny_model.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with session.post(f"{url}/api/blobs/{digest}", data=data) as response:
        assert response.status == 201
    asked = {"model": "Mine", "files": {"t.gguf": digest}, "system": "be brief", "stream": False}
    async with session.post(f"{url}/api/create", json=asked) as response:
        assert response.status == 200
    return "Mine"


async def show(session, url, **fields):
    headers = {"User-Agent": fields.pop("user_agent", "test")}
    async with session.post(f"{url}/api/show", json=fields, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("field", ["model", "name"])
async def test_show_finds_a_model_by_either_field_in_any_case(session, url, mine, field):
    status, shown = await show(session, url, **{field: mine.upper()})
    assert status == 200
    assert list(shown) == [
        "modelfile",
        "template",
        "system",
        "details",
        "model_info",
        "tensors",
        "capabilities",
        "modified_at",
    ]
    assert shown["system"] == "be brief"
    assert shown["details"]["format"] == "gguf"
    assert shown["capabilities"] == ["completion"]
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    assert set(shown["tensors"][0]) == {"name", "type", "shape"}


async def test_show_applies_the_requests_system_and_options(session, url, mine):
    fields = {"system": "be long", "options": {"top_k": 7}, "template": "ignored"}
    _, shown = await show(session, url, model=mine, **fields)
    assert shown["system"] == "be long"
    assert shown["parameters"].split() == ["top_k", "7"]
    assert "ignored" not in shown["template"]


async def test_verbose_shows_the_vocabulary(session, url, mine):
    _, shown = await show(session, url, model=mine, verbose=True)
    assert shown["model_info"]["tokenizer.ggml.tokens"][:3] == ["<unk>", "<s>", "</s>"]


@pytest.fixture
async def unread(url):
    """Opens a connection, sends a body to a path, and reads nothing."""
    writers = []
    host, _, port = url.removeprefix("http://").partition(":")

    async def unread(path, body):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 10)
        writers.append(writer)
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader

    yield unread
    for writer in writers:
        writer.close()


@pytest.mark.slow
async def test_a_client_that_does_not_read_a_long_answer_is_disconnected(
    url, mine, session, unread, monkeypatch
):
    ended = asyncio.Semaphore(0)
    release = SendBudget.release

    def given_back(*of):
        release(*of)
        ended.release()

    length = 8 << 20
    body = json.dumps({"model": mine, "verbose": True, "system": "x" * length}).encode()
    with monkeypatch.context() as patch:
        patch.setattr(responses, "GRACE_S", 0.2)
        patch.setattr(SendBudget, "release", given_back)
        readers = [await unread("/api/show", body) for _ in range(4)]
        async with asyncio.timeout(LONG_DEADLINE_S):
            for _ in readers:
                await ended.acquire()  # a client that begins to read in time is not cut
    # With the usual grace: this client reads, however slow the machine is.
    async with asyncio.timeout(LONG_DEADLINE_S):
        assert (await show(session, url, model=mine, verbose=True))[0] == 200
        for reader in readers:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(length)


@pytest.mark.slow
async def test_unread_long_answers_leave_bytes_for_short_ones(
    url, mine, session, unread, application
):
    application[SEND_BUDGET].client_limit_bytes = 20 << 20
    body = json.dumps({"model": mine, "system": "x" * (8 << 20)}).encode()
    async with asyncio.timeout(DEADLINE_S):
        reader = await unread("/api/show", body)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        second = await unread("/api/show", body)
        assert await second.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert (await second.read(1 << 10)).endswith(b'too many answers wait to be read"}')
        assert (await show(session, url, model=mine))[0] == 200


async def test_a_show_that_waits_too_long_behind_long_ones_is_busy(url, mine, session, monkeypatch):
    monkeypatch.setattr(handler, "SHOW_WAIT_S", 0.05)
    began, may_end = threading.Event(), threading.Event()
    build = ShowService._build

    def slow(*of):
        began.set()
        assert may_end.wait(DEADLINE_S)
        return build(*of)

    monkeypatch.setattr(ShowService, "_build", slow)
    first = asyncio.ensure_future(show(session, url, model=mine, verbose=True))
    assert await asyncio.to_thread(began.wait, DEADLINE_S)
    status, answer = await show(session, url, model=mine, verbose=True)
    may_end.set()

    assert status == 503
    assert answer["error"] == "too many models are being described, try again later"
    assert (await first)[0] == 200


async def test_copilot_gets_the_name_that_it_asked_for(session, url, mine):
    _, shown = await show(session, url, model=mine, user_agent="GitHubCopilotChat/0.1")
    assert shown["model_info"]["general.basename"] == "Mine"
    _, shown = await show(session, url, model=mine)
    assert "general.basename" not in shown["model_info"]


async def test_a_scripted_model_can_be_shown(session, url):
    status, shown = await show(session, url, model="m", verbose=True)
    assert (status, shown["details"]["family"]) == (200, "scripted")


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": " "}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "NoSuch"}, 404, "model 'NoSuch:latest' not found"),
        ({"name": "x/nosuch:1"}, 404, "model 'x/nosuch:1' not found"),
    ],
)
async def test_show_refuses_with_ollamas_texts(session, url, fields, status, text):
    assert await show(session, url, **fields) == (status, {"error": text})


async def test_copy_gives_a_second_name(session, url, mine):
    asked = {"source": mine.lower(), "destination": "Other:v1"}
    async with session.post(f"{url}/api/copy", json=asked) as response:
        assert (response.status, await response.read()) == (200, b"")
    async with session.get(f"{url}/api/tags") as response:
        rows = {row["name"]: row["digest"] for row in (await response.json())["models"]}
    assert rows["Other:v1"] == rows["Mine:latest"]


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"source": "nosuch", "destination": "b"}, 404, 'model "nosuch" not found'),
        ({"destination": "b"}, 400, 'source "" is invalid'),
        ({"source": "Mine", "destination": "a b"}, 400, 'destination "a b" is invalid'),
    ],
)
@pytest.mark.usefixtures("mine")
async def test_copy_refuses_with_ollamas_texts(session, url, fields, status, text):
    async with session.post(f"{url}/api/copy", json=fields) as response:
        assert (response.status, await response.json()) == (status, {"error": text})


@pytest.mark.parametrize("path", ["/api/show", "/api/copy"])
async def test_a_missing_body_is_refused(session, url, path):
    async with session.post(f"{url}{path}") as response:
        assert (response.status, await response.json()) == (400, {"error": "missing request body"})


async def writer_of(path) -> int:
    """The writing end of a pipe that somebody reads by now."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads it yet, of which no event tells
                await asyncio.sleep(0.001)


async def test_long_shows_run_one_at_a_time_even_if_a_client_disconnects(catalog, tmp_path):
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        os.mkfifo(path)
    model = catalog.find("m")
    models = [msgspec.structs.replace(model, licenses=(str(path),)) for path in paths]
    show_service, asked = ShowService(), ShowRequest(model="m", verbose=True)
    reservation = Reservation(SendBudget(), FakeRequest())
    first = asyncio.create_task(show_service.answer(models[0], asked, "", reservation))
    pipe = await writer_of(paths[0])
    second = asyncio.create_task(show_service.answer(models[1], asked, "", reservation))

    first.cancel()
    await asyncio.wait({first}, timeout=0.05)
    was_held = not first.done()

    os.close(pipe)  # first of all: threads that wait for a pipe would outlive a failure
    os.close(await writer_of(paths[1]))
    async with asyncio.timeout(DEADLINE_S):
        assert b"scripted" in await second
    assert was_held
    assert first.cancelled()


async def waits(show_service: ShowService, count: int) -> None:
    """Until so many answers wait for others."""
    while True:
        if show_service.waiting >= count:
            return
        await asyncio.sleep(0.001)  # threads come first, of which no event tells


async def test_a_client_with_many_long_shows_delays_another_by_one(catalog, monkeypatch):
    order, may_end = [], threading.Event()

    def build(_self, _model, _asked, basename):
        order.append(basename)
        assert may_end.wait(DEADLINE_S)
        return bytearray()

    monkeypatch.setattr(ShowService, "_build", build)
    budget, show_service, model = SendBudget(), ShowService(), catalog.find("m")
    asked = ShowRequest(model="m", verbose=True)
    answers = []
    async with asyncio.timeout(DEADLINE_S):
        for address in ["10.0.0.1"] * 4 + ["10.0.0.2"]:
            reservation = Reservation(budget, FakeRequest(address))
            answering = show_service.answer(model, asked, address, reservation)
            answers.append(asyncio.create_task(answering))
            await waits(show_service, len(answers) - 1)
    may_end.set()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*answers)
    assert order == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1"]
