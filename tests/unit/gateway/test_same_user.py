"""Whose a local connection is."""

from __future__ import annotations

import asyncio
import os

import pytest
from aiohttp import web

from ollama_async.gateway.same_user import is_same_user

DEADLINE_S = 10.0
HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
)


@pytest.fixture
async def whose(serve, tmp_path):
    """A server that says what it found; ``tables`` are the kernel's or the test's own."""

    async def handler(request: web.Request) -> web.Response:
        own = {"tables": tmp_path} if request.query.get("tables") else {}
        return web.json_response(is_same_user(request, **own))

    application = web.Application()
    application.router.add_get("/", handler)
    return await serve(application)


async def ask(session, url, **options):
    async with session.get(url, **options) as response:
        return await response.json()


async def test_our_own_connection_is_ours(session, whose):
    assert await ask(session, whose)


@pytest.mark.parametrize(
    "name", ["Origin", "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"]
)
async def test_what_was_passed_on_or_comes_from_a_page_is_not(session, whose, name):
    assert not await ask(session, whose, headers={name: "http://localhost"})


async def test_without_the_kernels_word_it_is_not(session, whose):
    assert not await ask(session, whose, params={"tables": "none"})


@pytest.mark.parametrize(("user", "verdict"), [(os.geteuid(), b"true"), (7654321, b"false")])
@pytest.mark.parametrize(
    ("kind", "host"), [("tcp", "0100007F"), ("tcp6", "0000000000000000FFFF00000100007F")]
)
async def test_the_kernels_word_counts(whose, tmp_path, kind, host, user, verdict):
    _, _, port = whose.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    ours = f"{host}:{int(port):04X}"
    theirs = f"{host}:{writer.get_extra_info('sockname')[1]:04X}"
    rows = [
        f"0: {ours} {theirs} 01 0:0 0:0 0 {os.geteuid()} 0",  # the server's end
        f"1: {theirs} {ours} 01 0:0 0:0 0 {user} 0",
    ]
    (tmp_path / kind).write_text("\n".join([HEADER, *rows]))
    writer.write(b"GET /?tables=own HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    writer.close()
    assert answer.endswith(verdict)
