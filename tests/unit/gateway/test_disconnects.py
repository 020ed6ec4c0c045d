"""Clients that send more than one request at a time, or leave in the middle of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from ollama_async.gateway import http_server
from tests.unit.gateway.conftest import Connect

FLOOD_BYTES = 15_000_000
"""More than two sockets hold, and less than what is read and discarded before the client is cut."""
DEADLINE_S = 10.0
HEAD = "HTTP/1.1\r\nHost: localhost\r\n"
GET = f"GET /api/version {HEAD}\r\n".encode()
LAST_GET = GET[:-2] + b"Connection: close\r\n\r\n"


def post(path: str, fields: dict) -> bytes:
    body = json.dumps(fields)
    return f"POST {path} {HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


GENERATE = post("/api/generate", {"model": "m", "prompt": "x", "stream": False})


@pytest.fixture
async def connect(connect) -> AsyncIterator[Connect]:
    """The same, with a deadline for what is done with the connections."""
    async with asyncio.timeout(DEADLINE_S):
        yield connect


def statuses(answers: bytes) -> list[bytes]:
    return [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]


async def test_pipelined_requests_are_answered_in_order(connect, backend):
    reader, writer = await connect()
    writer.write(GENERATE + GENERATE + LAST_GET)
    for text in ("one", "two"):
        (await backend.job()).start().send(text).end()

    answers = await reader.read()
    assert statuses(answers) == [b"200"] * 3
    assert answers.index(b'"one"') < answers.index(b'"two"') < answers.index(b'"version"')


@pytest.mark.parametrize("behind", [GET * 100, post("/api/show", {"model": "x" * 1_000_000})])
async def test_input_behind_a_long_request_is_dropped_and_its_answer_is_the_last(
    connect, backend, monkeypatch, behind
):
    monkeypatch.setattr(http_server, "_PEER_CHECK_S", 0.01)
    monkeypatch.setattr(http_server, "_UNREAD_INPUT_S", 0.02)
    reader, writer = await connect()
    writer.write(GENERATE + behind)
    job = await backend.job()
    flood = GET * (FLOOD_BYTES // len(GET))
    writer.write(flood)
    await writer.drain()  # so it is read, for the kernel does not hold as much
    job.start().send("one").end()

    answers = await reader.read()
    assert statuses(answers) == [b"200"]
    assert b"\r\nConnection: close\r\n" in answers


async def test_a_client_that_floods_behind_a_long_request_is_disconnected(
    connect, backend, monkeypatch
):
    monkeypatch.setattr(http_server, "_PEER_CHECK_S", 0.01)
    monkeypatch.setattr(http_server, "_UNREAD_INPUT_S", 0.02)
    _, writer = await connect()
    writer.write(GENERATE)
    job = await backend.job()
    with pytest.raises(ConnectionError):
        await floods(writer, GET)
    await job.cancelled.wait()


async def floods(writer: asyncio.StreamWriter, request: bytes) -> None:
    while True:
        writer.write(request * 10_000)
        await writer.drain()


async def test_a_half_closed_connection_gets_what_is_answered_at_once(connect, backend):
    backend.script = lambda job: job.start().send("one").end()
    for asked in (GET, GENERATE, GET + GENERATE):
        reader, writer = await connect()
        writer.write(asked)
        writer.write_eof()
        assert set(statuses(await reader.read())) == {b"200"}


@pytest.mark.slow
async def test_a_half_closed_connection_is_aborted_soon(connect, backend):
    reader, writer = await connect()
    writer.write(GENERATE)
    writer.write_eof()
    job = await backend.job()
    await job.cancelled.wait()
    assert await reader.read() == b""


@pytest.mark.slow
async def test_unread_short_answers_end_the_connection(connect, monkeypatch):
    monkeypatch.setattr(http_server, "_UNREAD_ANSWER_S", 0.1)
    _, writer = await connect()
    with pytest.raises(ConnectionError):
        await floods(writer, GET.replace(b"/api/version", b"/metrics"))
