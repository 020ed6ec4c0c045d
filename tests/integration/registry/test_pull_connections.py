"""Pulls over connections that break, stall, trickle or are refused."""

import asyncio
import contextlib

import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed
from ollama_async.registry import transport
from tests.integration.registry.conftest import CHUNK, MODEL

pytestmark = pytest.mark.slow


async def test_cut_connections_are_made_again_from_where_they_broke(name, proxy, pull, blob):
    cuts = {100_000, CHUNK + 50_000, 3 * CHUNK + 150_000, 3 * CHUNK + 200_000}

    async def spoil(offset, piece):
        due = {cut for cut in cuts if offset <= cut < offset + len(piece)}
        cuts.difference_update(due)
        return None if due else piece

    proxy.spoil = spoil
    statuses = await pull(name)

    assert statuses[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL
    assert cuts == set()
    # What was in the sockets and not written yet is lost: less than a quarter of the file here.
    assert proxy.sent < len(MODEL) * 1.25


async def test_a_silent_connection_is_replaced(name, proxy, pull, blob):
    silent = asyncio.Event()
    stalled = []

    async def spoil(offset, piece):
        if not stalled and offset > 100_000:
            stalled.append(offset)
            await silent.wait()
        return piece

    proxy.spoil = spoil
    statuses = await pull(name)
    silent.set()

    assert statuses[-1] == {"status": "success"}
    assert stalled
    assert blob.read_bytes() == MODEL


async def test_a_silent_connection_times_out(name, proxy, short_timeout_pulls):
    silent = asyncio.Event()

    async def spoil(_offset, piece):
        await silent.wait()
        return piece

    proxy.spoil = spoil
    with pytest.raises(
        RegistryFailed, match=r"^max retries exceeded: .*nothing was received for too long"
    ):
        async for _ in short_timeout_pulls.follow(name, is_insecure=True):
            pass
    silent.set()


def _trickling(blob, most_connections):
    """A fault: so many connections for the blob bring a byte now and then; never silent, never
    done.
    """
    trickled = []

    async def fault(request):
        if blob.name.replace("-", ":") not in request.path or len(trickled) >= most_connections:
            return None
        trickled.append(request)
        start = int(request.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
        response = web.StreamResponse(
            status=206,
            headers={"Content-Range": f"bytes {start}-{len(MODEL) - 1}/{len(MODEL)}"},
        )
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for byte in MODEL[start:]:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.02)  # this is how slow it is
        return response

    fault.trickled = trickled
    return fault


async def test_a_part_that_is_too_slow_is_requested_again(name, proxy, short_timeout_pulls, blob):
    proxy.fault = _trickling(blob, 2)
    seen = [status async for status in short_timeout_pulls.follow(name, is_insecure=True)]
    assert seen[-1] == {"status": "success"}
    assert len(proxy.fault.trickled) == 2
    assert blob.read_bytes() == MODEL


async def test_a_trickle_is_no_progress(name, proxy, short_timeout_pulls, blob):
    proxy.fault = _trickling(blob, 1 << 30)
    with pytest.raises(RegistryFailed, match=r"^max retries exceeded: too slow: \d+ bytes in"):
        async for _ in short_timeout_pulls.follow(name, is_insecure=True):
            pass


async def test_a_byte_for_each_connection_is_no_progress(name, proxy, pull, blob):
    begun_at = []

    async def fault(request):
        if blob.name.replace("-", ":") not in request.path:
            return None
        response = web.StreamResponse(status=206)
        start = int(request.headers["Range"].partition("=")[2].partition("-")[0])
        begun_at.append(start)
        response.headers["Content-Range"] = f"bytes {start}-{len(MODEL) - 1}/{len(MODEL)}"
        await response.prepare(request)
        await response.write(MODEL[start : start + 1])
        await response.write_eof()
        return response

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=r"^max retries exceeded: "):
        await pull(name)
    assert any(start % CHUNK for start in begun_at)  # each went on from where the last one ended


async def test_an_answer_that_never_begins_is_not_waited_for(short_timeout_pulls, monkeypatch):
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.2)

    async def trickle(_reader, writer):
        with contextlib.suppress(ConnectionError):
            for letter in b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 1000:
                writer.write(bytes([letter]))
                await writer.drain()
                await asyncio.sleep(0.02)  # this is how slow it is
        writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RegistryFailed, match="no progress for too long"):
            async for _ in short_timeout_pulls.follow(
                f"127.0.0.1:{port}/library/x", is_insecure=True
            ):
                pass


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_requests_to_a_busy_registry_are_retried(name, proxy, pull, blob, status):
    refused = []

    async def fault(request):
        if refused.count(request.path) < 2:
            refused.append(request.path)
            return web.Response(status=status, text="not now")
        return None

    proxy.fault = fault
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL
    assert len(refused) == 2 * 4  # manifest, model, template, config


async def test_retry_after_is_honoured(name, proxy, pull):
    times = []

    async def fault(_request):
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return None

    proxy.fault = fault
    await pull(name)
    assert times[1] - times[0] >= 1


async def test_a_long_retry_after_is_an_error(name, proxy, pull):
    async def fault(_request):
        return web.Response(status=429, headers={"Retry-After": "3600"}, text="slow down")

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=r"max retries exceeded: 429: Too Many Requests$"):
        await pull(name)
    assert len(proxy.requests) == 1


async def test_a_refusal_is_final_and_quotes_the_registry(name, proxy, pull):
    async def fault(_request):
        return web.json_response({"errors": [{"code": "DENIED"}]}, status=403)

    proxy.fault = fault
    with pytest.raises(RegistryFailed) as refused:
        await pull(name)
    assert refused.value.message == 'pull model manifest: 403: {"errors": [{"code": "DENIED"}]}'
    assert len(proxy.requests) == 1


async def test_a_registry_that_is_not_there_is_an_error_at_once(pull):
    with pytest.raises(RegistryFailed, match=r'^pull model manifest: Get "http://127.0.0.1:1/v2/'):
        await pull("127.0.0.1:1/library/x")
