"""Who counts as a program on this machine."""

import pytest
from aiohttp import web

from ollama_async.gateway.client_identity import requester_of
from ollama_async.registry.address_policy import Requester


@pytest.fixture
async def client(aiohttp_client):
    async def tell(request):
        requester = requester_of(request)
        return web.json_response([requester.is_local, requester.server_port])

    application = web.Application()
    application.router.add_get("/", tell)
    return await aiohttp_client(application)


async def test_a_connection_from_this_machine_is_local(client):
    assert await (await client.get("/")).json() == [True, client.port]


@pytest.mark.parametrize(
    "header",
    [
        *("Origin", "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"),
        *("x-real-ip", "X-Forwarded-Proto", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP"),
    ],
)
async def test_a_forwarded_request_is_not_local(client, header):
    answer = await client.get("/", headers={header: "http://localhost"})
    assert await answer.json() == [False, client.port]


class Connection:
    def __init__(self, peer, own):
        self._names = {"peername": peer, "sockname": own}
        self.get_extra_info = self._names.get


class Request:
    headers: dict[str, str] = {}

    def __init__(self, transport):
        self.transport = transport


@pytest.mark.parametrize(
    ("peer", "own", "is_local"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 80), True),
        (("::ffff:127.0.0.1", 1, 0, 0), ("::ffff:127.0.0.1", 80, 0, 0), True),
        (("::1", 1, 0, 0), ("::1", 80, 0, 0), True),
        (("192.168.1.10", 1), ("192.168.1.10", 80), True),  # to our own address in the network
        (("192.168.1.11", 1), ("192.168.1.10", 80), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 80, 0, 2), False),
        (("8.8.8.8", 1), ("192.168.1.10", 80), False),
    ],
)
def test_addresses_of_connections(peer, own, is_local):
    assert requester_of(Request(Connection(peer, own))) == Requester(is_local, 80)


def test_an_unknown_peer_is_not_local():
    for transport in (None, Connection(None, None), Connection("", "/run/socket")):
        assert requester_of(Request(transport)) == Requester()
