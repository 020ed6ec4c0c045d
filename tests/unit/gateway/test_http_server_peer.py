"""What the kernel says about a client, whatever waits to be read."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from ollama_async.gateway.http_server import UNREACHABLE_LIMIT_S, Peer, enable_probes, peer_state

DEADLINE_S = 10.0


@pytest.fixture
async def pair() -> AsyncIterator[tuple[socket.socket, asyncio.Transport]]:
    """A client that has sent something, and the server's transport, which does not read it."""
    accepted: asyncio.Queue[asyncio.Transport] = asyncio.Queue()

    class Unread(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()
            accepted.put_nowait(transport)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Unread, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.sendall(b"unread")
        transport = await accepted.get()
        yield client, transport
        transport.abort()
    server.close()
    await server.wait_closed()


async def seen(transport: asyncio.Transport, expected: Peer) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while peer_state(transport) is not expected:  # noqa: ASYNC110
            await asyncio.sleep(0)  # nothing tells, which is the point


async def test_an_open_connection_is_connected(pair):
    assert peer_state(pair[1]) is Peer.CONNECTED


async def test_a_connection_without_more_input_is_half_closed(pair):
    client, transport = pair
    client.shutdown(socket.SHUT_WR)
    await seen(transport, Peer.HALF_CLOSED)


async def test_a_reset_connection_is_reset(pair):
    client, transport = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await seen(transport, Peer.RESET)


async def test_the_kernel_probes_for_vanished_clients(pair):
    _, transport = pair
    enable_probes(transport)

    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < UNREACHABLE_LIMIT_S
    limit_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert limit_ms == UNREACHABLE_LIMIT_S * 1000


async def test_a_unix_socket_is_connected():
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=ours
        )
        enable_probes(transport)
        assert peer_state(transport) is Peer.CONNECTED
        transport.abort()
        await asyncio.sleep(0)
