"""gin's habits, bugs in handlers, bodies that are too large or too slow."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re

import pytest
from aiohttp import web

from ollama_async.core.errors import BadRequest
from ollama_async.gateway import body
from ollama_async.gateway.body import BODY_PROCESSOR
from ollama_async.gateway.routes import ROUTES, build_application

DEADLINE_S = 10.0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_says_that_ollama_is_running(session, url, method):
    async with session.request(method, url + "/") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert await response.text() == ("Ollama is running" if method == "GET" else "")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_version_is_the_ollama_that_we_match(session, url, method):
    async with session.request(method, url + "/api/version") as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert await response.text() == ('{"version":"0.33.0"}' if method == "GET" else "")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nosuch", 404, "404 page not found"),
        ("POST", "/api/nosuch/", 404, "404 page not found"),
        ("GET", "/api/generate/", 404, "404 page not found"),
        ("GET", "/api/generate", 405, "405 method not allowed"),
        ("HEAD", "/api/ps", 405, ""),
        ("DELETE", "/", 405, "405 method not allowed"),
    ],
)
async def test_unknown_paths_and_methods_are_answered_as_gin_does(
    session, url, method, path, status, text
):
    async with session.request(method, url + path, allow_redirects=False) as response:
        assert (response.status, await response.text()) == (status, text)
        assert response.content_type == "text/plain"


@pytest.mark.parametrize(
    ("method", "path", "status", "target"),
    [
        ("GET", "/api/tags/?a=b", 301, "/api/tags?a=b"),
        ("POST", "/api/chat/", 307, "/api/chat"),
        ("HEAD", "/api/version/", 307, "/api/version"),
    ],
)
async def test_a_trailing_slash_is_redirected(session, url, method, path, status, target):
    async with session.request(method, url + path, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (status, target)


@pytest.mark.parametrize(
    ("path", "header"),
    [("/v1/models", "X-Request-Id"), ("/v1/messages", "Request-Id"), ("/api/version", None)],
)
async def test_the_id_of_a_request_is_where_clients_look_for_it(session, url, path, header):
    async with session.get(url + path) as response:
        found = [name for name in response.headers if name.lower().endswith("request-id")]
        assert [name.title() for name in found] == ([header] if header else [])
        assert not header or response.headers[header].startswith("req_")


@pytest.fixture
async def broken_url(serve, dependencies) -> str:
    """The gateway with two handlers that have bugs: before and after the first byte."""
    application = build_application(dependencies)

    async def early(_request: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError("secret")

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise ZeroDivisionError("secret")

    application.router.add_get("/early", early)
    application.router.add_get("/late", late)
    return await serve(application)


async def test_a_bug_is_a_500_with_a_request_id_and_one_log_entry(session, broken_url, caplog):
    async with session.get(broken_url + "/early") as response:
        text = (await response.json())["error"]

    assert response.status == 500
    (entry,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    request_id = text.removeprefix("internal error (request ").removesuffix(")")
    assert request_id in entry.getMessage()
    assert entry.exc_info
    assert "secret" not in text


async def test_a_bug_after_the_first_byte_cuts_the_connection(broken_url, caplog):
    host, port = broken_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /late HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()

    assert answer.count(b"HTTP/1.1") <= 1
    assert not answer.endswith(b"0\r\n\r\n")
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1


async def test_bytes_that_are_not_http_do_not_fill_the_log(url, caplog):
    host, port = url.removeprefix("http://").split(":")
    for garbage in (b"\x16\x03\x01 tls \r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
        assert b" 400 " in answer.splitlines()[0]

    assert not caplog.records


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", b" 415 "),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n", b" 400 "),
    ],
)
async def test_a_broken_body_does_not_fill_the_log(url, caplog, broken, status):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/chat HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    writer.write(head.encode() + broken)
    answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()

    assert status in answer.splitlines()[0]
    assert not caplog.records


async def test_all_large_bodies_together_have_a_limit(session, url, backend, application):
    application[BODY_PROCESSOR].budget.limit_bytes = 1_000_000
    text = "x" * 600_000

    def post(prompt):
        asked = {"model": "m", "prompt": prompt, "stream": False}
        return asyncio.create_task(session.post(url + "/api/generate", json=asked))

    first = post(text)
    held = (await backend.job()).start()
    refused = await post(text)
    small = post("x")
    (await backend.job()).start().end()
    held.end()

    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert "large" in (await refused.json())["error"]
    assert (await small).status == 200
    assert (await first).status == 200
    again = post(text)
    (await backend.job()).start().end()
    assert (await again).status == 200


@pytest.mark.slow
async def test_a_disconnected_client_releases_the_bytes_of_its_body(
    session, url, backend, application
):
    application[BODY_PROCESSOR].budget.limit_bytes = 1_000_000
    asked = {"model": "m", "prompt": "x" * 600_000, "stream": False}
    for _ in range(3):
        task = asyncio.create_task(session.post(url + "/api/generate", json=asked))
        job = await backend.job()
        task.cancel()
        async with asyncio.timeout(DEADLINE_S):
            await job.cancelled.wait()


async def test_a_body_over_the_limit_is_413(session, url, monkeypatch):
    monkeypatch.setattr(body, "BODY_LIMIT_BYTES", 100)

    async def chunks():
        for _ in range(3):
            yield b" " * 50

    for data in (b" " * 101, chunks()):
        async with session.post(url + "/api/chat", data=data) as response:
            assert response.status == 413
            assert "limit" in (await response.json())["error"]


async def test_a_large_body_is_decoded(session, url, backend):
    backend.script = lambda job: job.start().end()
    prompt = "ü" * body.OFF_LOOP_BYTES
    data = io.BytesIO(json.dumps({"model": "m", "prompt": prompt}).encode())

    async with session.post(url + "/api/generate", data=data) as response:
        assert response.status == 200

    inference = (await backend.job()).job.task
    assert inference.prompt.messages[0].content == prompt


async def test_a_client_that_stops_sending_its_body_is_refused(url, monkeypatch):
    monkeypatch.setattr(body, "GRACE_S", 0.05)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /api/chat HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n{{".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    text = await asyncio.wait_for(reader.readuntil(b"}"), DEADLINE_S)
    writer.close()

    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(text) == {"error": "timed out reading the request body"}


async def test_a_client_that_drips_its_body_runs_out_of_time(monkeypatch):
    monkeypatch.setattr(body, "GRACE_S", 0.05)
    content = _Dripping()
    upload = body.Body(content)

    async def read_on() -> None:
        while True:
            await upload.next_chunk()

    with pytest.raises(BadRequest, match="timed out"):
        await read_on()

    assert content.served > 1


class _Dripping:
    """A request whose content takes 10 ms for each single byte."""

    remote = "10.0.0.1"

    def __init__(self) -> None:
        self.content = self
        self.served = 0

    async def readany(self) -> bytes:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        loop.call_later(0.01, waiter.set_result, None)
        await waiter
        self.served += 1
        return b"x"


async def test_every_route_of_the_table_is_served(session, url):
    for route in ROUTES:
        path = re.sub("{[^}]*}", "x", route.path)
        async with session.request(route.method, url + path, data=b"") as response:
            assert response.status in {200, 400, 401, 404}, route
            text = await response.text()
            assert not re.search("page not found|no such route", text), route
