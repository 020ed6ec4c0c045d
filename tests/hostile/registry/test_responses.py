"""Registries and other hosts whose responses are hostile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed
from tests.hostile.registry.conftest import (
    QUICK,
    SECRET,
    digest_of,
    manifest_of,
    redirect,
    registry_of,
    world,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503, 600])
async def test_errors_contain_nothing_from_another_host(listen, pull, status):
    body = json.dumps({"error": SECRET.decode(), "errors": [{"code": SECRET.decode()}]})
    other = await listen(lambda _: web.Response(status=status, text=body), "127.0.0.3")
    liar = await listen(
        registry_of(SECRET, lambda: f"http://cdn.example:{other.port}/"), "127.0.0.2"
    )
    names = world(evil_example=["127.0.0.2"], cdn_example=["127.0.0.3"])
    with pytest.raises(RegistryFailed, match=rf"^max retries exceeded: {status}") as refused:
        await pull(f"evil.example:{liar.port}/x/y", names)
    assert SECRET.decode() not in refused.value.message
    assert set(other.authorizations()) == {""}


async def test_the_registry_s_own_texts_cannot_change_a_terminal(listen, pull):
    body = {"errors": [{"code": "DENIED", "message": "\x1b]0;x\x07\x9b31m\u202eno" + "!" * 2000}]}
    liar = await listen(lambda _: web.json_response(body, status=403), "127.0.0.2")
    with pytest.raises(RegistryFailed, match="DENIED") as refused:
        await pull(f"evil.example:{liar.port}/x/y", world(evil_example=["127.0.0.2"]))
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 700


RAW = {
    "another protocol": b"SSH-2.0-hunter2!\r\n",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"hunter2!" * 4096 + b"\r\n\r\n",
    "a chunk that lies": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhunter2!\r\n",
    "a length that lies": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nhunter2!",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\nhunter2!",
    "a challenge without end": b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n"
    b'WWW-Authenticate: Bearer realm="' + b"hunter2!" * 900 + b"\r\n\r\n",
    "no manifest": b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhunter2!",
    "a manifest of another kind": b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n"
    b'{"layers":"hunter2!"}',
}


@pytest.mark.parametrize("what", RAW)
async def test_what_is_no_answer_is_not_quoted(pull, what):
    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(RAW[what])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.2", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryFailed) as refused:
            await pull(f"evil.example:{port}/x/y", world(evil_example=["127.0.0.2"]))
    assert SECRET.decode() not in refused.value.message
    assert refused.value.message.startswith("pull model manifest: ")


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n\r\n1;", b"X: "])
async def test_bytes_that_are_no_answer_do_not_come_for_ever(pull, head):
    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n" + head)
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        writer.close()

    policy = msgspec.structs.replace(QUICK, stall_s=0.3)
    server = await asyncio.start_server(answer, "127.0.0.2", 0)
    async with server:
        name = f"evil.example:{server.sockets[0].getsockname()[1]}/x/y"
        with pytest.raises(RegistryFailed, match=r"nothing was received for too long|is not HTTP"):
            await pull(name, world(evil_example=["127.0.0.2"]), policy=policy)


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/", "/token"])
async def test_nothing_is_inflated(listen, pull, part):
    bomb = gzip.compress(bytes(64 << 20))
    headers = {"Content-Encoding": "gzip"}

    def lie(request):
        if part in request.path:
            return web.Response(body=bomb, headers=headers)
        if part == "/token":
            realm = f'Bearer realm="http://{request.host}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return manifest_of((digest_of(bytes(64 << 20)), 64 << 20))

    liar = await listen(lie, "127.0.0.2")
    with pytest.raises(RegistryFailed, match=r"is invalid|unexpected EOF|access denied"):
        await pull(f"evil.example:{liar.port}/x/y", world(evil_example=["127.0.0.2"]))


async def test_redirects_end(listen, pull):
    def lie(request):
        other = {"one.example": "two.example", "two.example": "one.example"}
        host, _, port = request.host.partition(":")
        return redirect(f"http://{other[host]}:{port}/{len(liar.asked)}")

    liar = await listen(lie, "127.0.0.2")
    names = world(one_example=["127.0.0.2"], two_example=["127.0.0.2"])
    with pytest.raises(RegistryFailed, match="stopped after 10 redirects"):
        await pull(f"one.example:{liar.port}/x/y", names)
    assert len(liar.asked) == 10


@pytest.mark.parametrize("content_range", ["bytes 0-7/9", "bytes 1-8/8", "bytes 0-7", "hunter2!"])
async def test_a_wrong_content_range_is_rejected(listen, pull, content_range):
    def lie(request):
        if "/manifests/" in request.path:
            return manifest_of((digest_of(SECRET), len(SECRET)))
        headers = {"Content-Range": content_range}
        return web.Response(status=206, body=SECRET, headers=headers)

    liar = await listen(lie, "127.0.0.2")
    words = "another range|not that in its manifest"
    with pytest.raises(RegistryFailed, match=words) as refused:
        await pull(f"evil.example:{liar.port}/x/y", world(evil_example=["127.0.0.2"]))
    assert "9" not in refused.value.message
    assert "hunter2!" not in refused.value.message


async def test_an_endless_blob_is_read_up_to_the_size_in_the_manifest(listen, pull):
    sent = []

    async def endless(request):
        if "/manifests/" in request.path:
            return manifest_of(("sha256:" + "0" * 64, 1 << 20))
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(1 << 10):
                await response.write(bytes(1 << 20))
                sent.append(1)
        return response

    liar = await listen(endless, "127.0.0.2")
    with pytest.raises(RegistryFailed, match="digest mismatch"):
        await pull(f"evil.example:{liar.port}/x/y", world(evil_example=["127.0.0.2"]))
    assert len(sent) < 64


async def test_an_unusable_key_still_gives_an_anonymous_token(listen, pull, environment, caplog):
    def answer(request):
        if request.path == "/token":
            known = request.headers.get("Authorization")
            return web.Response(status=403) if known else web.json_response({"token": "guest"})
        if request.headers.get("Authorization") != "Bearer guest":
            realm = f'Bearer realm="http://{request.host}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        return registry_of(SECRET)(request)

    folder = Path(environment["HOME"]) / "a-folder"
    folder.mkdir()
    registry = await listen(answer, "127.0.0.2")
    names = world(a_example=["127.0.0.2"])
    assert await pull(f"a.example:{registry.port}/x/y", names, key=folder.name) == "success"
    assert str(folder) in caplog.text
