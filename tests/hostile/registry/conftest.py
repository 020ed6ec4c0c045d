"""Registries that lie, on 127.0.0.2, and hosts that they want to reach, on 127.0.0.1.

Where a test needs hosts on the internet, names and the scopes of these addresses are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from ollama_async.registry.address_policy import (
    AddressScope,
    Network,
    Requester,
)
from ollama_async.registry.pull import open_pulls
from ollama_async.registry.transfer_policy import RetryPolicy, TransferPolicy
from ollama_async.store.store import Store
from tests.integration.conftest import LONG_WAIT_S

SECRET = b"hunter2!"
STRANGER = Requester()
ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}
"""What makes a request one of somebody behind a proxy on this machine."""


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest_of(*blobs):
    """Of a model of these blobs, each given as its digest and size. Nobody looks into them."""
    kind = "application/vnd.ollama.image.tensor"
    layers = [{"mediaType": kind, "digest": digest, "size": size} for digest, size in blobs]
    return web.json_response({"schemaVersion": 2, "layers": layers})


def redirect(location, status=307):
    return web.Response(status=status, headers={"Location": location})


class Host:
    """Answers with ``answer``; ``asked`` are the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self.name = ""

    async def handle(self, request):
        self.asked.append(request)
        answer = self.answer(request)
        return await answer if inspect.isawaitable(answer) else answer

    @property
    def port(self):
        return int(self.name.rpartition(":")[2])

    def authorizations(self):
        return [request.headers.get("Authorization", "") for request in self.asked]


@pytest.fixture
async def listen():
    """Have a host listen: ``listen(answer, address, port)``."""
    async with contextlib.AsyncExitStack() as stack:

        async def listen(answer, address="127.0.0.1", port=0):
            host = Host(answer)
            runner = web.ServerRunner(web.Server(host.handle), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, address, port).start()
            host.name = f"{address}:{runner.addresses[0][1]}"
            return host

        yield listen


@pytest.fixture
async def ask(demo_server):
    """Ask the running server to pull, to push a copy of ``demo``, or for another thing; all that it
    says.
    """
    async with httpx.AsyncClient(timeout=LONG_WAIT_S, base_url=demo_server.url) as client:

        async def ask(name, verb="pull", headers=None, **fields):
            if verb == "push":
                copy = {"source": "demo", "destination": name}
                (await client.post("/api/copy", json=copy)).raise_for_status()
            asked = {"model": name, "insecure": True, **fields}
            return (await client.post(f"/api/{verb}", json=asked, headers=headers)).text

        yield ask


LOOPBACK = {
    "127.0.0.1": AddressScope.THIS_MACHINE,
    "127.0.0.2": AddressScope.PUBLIC,
    "127.0.0.3": AddressScope.PUBLIC,
    "127.0.0.4": AddressScope.PRIVATE,
    "127.0.0.5": AddressScope.PRIVATE,
    "127.0.0.6": AddressScope.SPECIAL,
}
QUICK = TransferPolicy(
    connections=2,
    stall_s=5.0,
    retry=RetryPolicy(attempts=3, first_pause_s=0.01, longest_pause_s=0.02),
)


def world(*trusted, **names):
    """Each look-up of a name takes the next of its addresses; the last one stays."""
    left = {name.replace("_", "."): list(found) for name, found in names.items()}

    def look_up(host, _port):
        found = left[host]
        return [found.pop(0) if len(found) > 1 else found[0]]

    return Network(frozenset(trusted), look_up, LOOPBACK.__getitem__)


@pytest.fixture
def store(environment):
    return Store(Path(environment["OLLAMA_MODELS"]))


@pytest.fixture
def pull(store, environment):
    """Pull in a world of the test's names; the last status."""

    async def pull(name, network, requester=STRANGER, key=".ollama/id_ed25519", policy=QUICK):
        key_path = Path(environment["HOME"]) / key
        async with (
            open_pulls(store, policy=policy, key_path=key_path, network=network) as pulls,
            asyncio.timeout(LONG_WAIT_S),
        ):
            statuses = pulls.follow(name, is_insecure=True, requester=requester)
            return [status async for status in statuses][-1]["status"]

    return pull


def registry_of(data, where=None):
    """Answers of a registry that has one blob, or says ``where`` it is."""

    def answer(request):
        if "/manifests/" in request.path:
            return manifest_of((digest_of(data), len(data)))
        return web.Response(body=data) if where is None else redirect(where())

    return answer
