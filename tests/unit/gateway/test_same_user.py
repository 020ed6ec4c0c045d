"""Who counts as the server's own user."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from ollama_async.core.local_key import HEADER, proof
from ollama_async.gateway.client_identity import is_same_user

KEY = b"k" * 32


@pytest.fixture
async def whose(serve):
    """A server that says what it found; without a key of its own if it is asked ``?key=none``."""

    async def handler(request: web.Request) -> web.Response:
        key = None if request.query.get("key") == "none" else KEY
        return web.json_response(is_same_user(request, key))

    application = web.Application()
    application.router.add_get("/", handler)
    return await serve(application)


def proven(url: str, key: bytes = KEY, port: int = 0) -> dict[str, str]:
    host, _, own_port = url.removeprefix("http://").rpartition(":")
    return {HEADER: proof(key, host, port or int(own_port))}


async def ask(session, url, **options):
    async with session.get(url, **options) as response:
        return await response.json()


async def test_a_proof_by_the_key_is_the_same_user(session, whose):
    assert await ask(session, whose, headers=proven(whose))


async def test_a_local_connection_without_a_proof_is_not_the_same_user(session, whose):
    """A port forward or a proxy that adds no header looks like this."""
    assert not await ask(session, whose)


async def test_a_proof_by_another_key_or_for_another_server_is_refused(session, whose):
    assert not await ask(session, whose, headers=proven(whose, b"o" * 32))
    assert not await ask(session, whose, headers=proven(whose, port=11434))
    assert not await ask(session, whose, headers={HEADER: KEY.hex()})
    assert not await ask(session, whose, headers={HEADER: "\xe9"})


async def test_a_proof_that_is_not_text_is_refused(whose):
    host, _, port = whose.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{HEADER}: ".encode()
    writer.write(head + b"\xff\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"false")


async def test_a_server_without_a_key_trusts_nobody(session, whose):
    assert not await ask(session, whose, params={"key": "none"}, headers=proven(whose))


@pytest.mark.parametrize(
    "name",
    [
        "Origin",
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "x-forwarded-server",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
    ],
)
async def test_a_forwarded_request_is_not_the_same_user(session, whose, name):
    headers = {name: "http://localhost", **proven(whose)}
    assert not await ask(session, whose, headers=headers)
