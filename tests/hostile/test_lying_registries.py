"""Registries that use the server as their hand in a network that is not theirs.

Those who answer on 127.0.0.2 are the liars, those on 127.0.0.1 what they want to reach. Where a
test needs hosts on the internet, names and the kinds of these addresses are the test's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import hashlib
import inspect
import json
from pathlib import Path

import httpx
import msgspec
import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed
from ollama_async.registry.address_policy import (
    DEFAULT_NETWORK,
    LOCAL_REQUESTER,
    AddressScope,
    Network,
    Requester,
)
from ollama_async.registry.pull import open_pulls
from ollama_async.registry.transfer_policy import RetryPolicy, TransferPolicy
from ollama_async.store.store import Store
from tests.integration.conftest import LONG_WAIT_S

pytestmark = pytest.mark.slow

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


# ----------------------------------------------------------------- what is told


async def test_a_neighbour_s_bytes_are_not_told_one_by_one(listen, ask):
    def secret(request):
        return web.Response(body=SECRET[(at := int(request.query["at"])) : at + 1])

    def lie(request):
        at = request.path.split("/")[3][1:]
        if "/manifests/" in request.path:
            return manifest_of(("sha256:" + "0" * 64, 1))
        return redirect(f"http://{neighbour.name}/secret?at={at}")

    neighbour = await listen(secret)
    liar = await listen(lie)
    found = b""
    for at in range(len(SECRET)):
        said = await ask(f"{liar.name}/x/m{at}")
        assert "digest mismatch" in said
        found += b"".join(
            bytes([byte]) for byte in range(256) if digest_of(bytes([byte]))[7:] in said
        )
    assert found == b""


@pytest.mark.parametrize("status", [400, 401, 403, 405, 418])
async def test_the_words_of_a_service_that_is_no_registry_are_not_told(listen, ask, status):
    service = await listen(lambda _: web.Response(status=status, body=SECRET, reason="hunter2!"))
    said = await ask(f"{service.name}/x/y")
    assert "error" in said
    assert SECRET.decode() not in said


@pytest.mark.parametrize("verb", ["pull", "push"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_who_asks_over_the_network_cannot_name_this_machine(listen, ask, verb, host):
    service = await listen(lambda _: web.Response(status=403, body=SECRET))
    said = await ask(f"{host}:{service.port}/x/y", verb, ELSEWHERE)
    assert "has an address that this client may not name" in said
    assert service.asked == []


async def test_nor_by_way_of_a_model_to_start_from(listen, ask):
    service = await listen(lambda _: web.Response(status=403, body=SECRET))
    said = await ask("mine", "create", ELSEWHERE, **{"from": f"{service.name}/x/y"})
    assert "has an address that this client may not name" in said


async def test_but_they_can_name_what_the_operator_trusts(listen, start_server):
    registry = await listen(lambda _: web.Response(status=404))
    start = functools.partial(start_server, OLLAMA_ASYNC_TRUSTED_REGISTRIES=registry.name)
    server = await asyncio.get_running_loop().run_in_executor(None, start)
    asked = {"model": f"{registry.name}/x/y", "insecure": True}
    async with httpx.AsyncClient(timeout=LONG_WAIT_S, base_url=server.url) as client:
        said = await client.post("/api/pull", json=asked, headers=ELSEWHERE)
    assert "file does not exist" in said.text


async def test_who_may_not_name_a_registry_cannot_join_those_who_may(listen, ask):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_request):
        reached.set()
        await go_on.wait()
        return web.Response(status=404)

    registry = await listen(slowly)
    name = f"{registry.name}/x/y"
    async with asyncio.timeout(LONG_WAIT_S), asyncio.TaskGroup() as group:
        local = group.create_task(ask(name))
        await reached.wait()
        said = await ask(name, headers=ELSEWHERE)
        go_on.set()
    assert "may not name" in said
    assert "file does not exist" in local.result()


# ----------------------------------------------------------------- where it leads


async def test_a_token_is_not_fetched_from_a_neighbour_for_a_liar(listen, ask):
    def lie(_request):
        realm = f'Bearer realm="http://{neighbour.name}/latest/token",service="s"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    neighbour = await listen(lambda _: web.json_response({"token": SECRET.decode()}))
    liar = await listen(lie, "127.0.0.2")
    said = await ask(f"{liar.name}/x/y")
    assert liar.authorizations() == [""]
    assert neighbour.asked == []
    assert "which is not allowed" in said


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
async def test_an_upload_does_not_go_on_at_a_neighbour(listen, ask, address):
    def lie(request):
        if request.method == "POST":
            location = f"http://{neighbour.name}/containers/1/start"
            return web.Response(status=202, headers={"Location": location})
        return web.Response(status=404)

    neighbour = await listen(lambda _: web.Response(status=202))
    liar = await listen(lie, address)
    assert "error" in await ask(f"{liar.name}/x/y", "push")
    assert neighbour.asked == []


async def test_the_server_does_not_ask_itself(listen, ask, demo_server):
    own = demo_server.url.removeprefix("http://")

    def lie(request):
        if "/manifests/" in request.path:
            return manifest_of((digest_of(SECRET), len(SECRET)))
        return redirect(f"http://{own}/api/tags")

    liar = await listen(lie)
    for name in (f"{own}/x/y", f"{liar.name}/x/y"):
        assert "is this server itself" in await ask(name)


# ----------------------------------------------------------------- names that change

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


async def test_a_name_that_comes_home_later_is_not_followed(listen, pull):
    registry = await listen(registry_of(SECRET), "127.0.0.2")
    neighbour = await listen(registry_of(SECRET), "127.0.0.1", registry.port)
    names = world(evil_example=["127.0.0.2", "127.0.0.1"])
    assert await pull(f"evil.example:{registry.port}/x/y", names) == "success"
    assert neighbour.asked == []


async def test_a_name_that_is_at_home_first_opens_nothing(listen, pull):
    neighbour = await listen(lambda _: web.Response(status=503), "127.0.0.1")

    def where():
        return f"http://127.0.0.1:{neighbour.port}/secret"

    liar = await listen(registry_of(SECRET, where), "127.0.0.2", neighbour.port)
    names = world(evil_example=["127.0.0.1", "127.0.0.2"])
    with pytest.raises(RegistryFailed, match="may not name"):
        await pull(f"evil.example:{liar.port}/x/y", names)
    with pytest.raises(RegistryFailed, match="503"):  # it stays where it was
        await pull(
            f"evil.example:{liar.port}/x/y", world(evil_example=["127.0.0.1"]), LOCAL_REQUESTER
        )
    assert liar.asked == []
    assert {request.path for request in neighbour.asked} == {"/v2/x/y/manifests/latest"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.4", "127.0.0.6"])
@pytest.mark.parametrize("requester", [STRANGER, LOCAL_REQUESTER])
async def test_a_public_registry_leads_to_nobody_s_network(listen, pull, address, requester):
    neighbour = await listen(lambda _: web.Response(body=SECRET), address)
    names = world(evil_example=["127.0.0.2"], inner_example=[address])
    for host in ("inner.example", address):
        liar = await listen(
            registry_of(SECRET, lambda host=host: f"http://{host}:{neighbour.port}/"), "127.0.0.2"
        )
        with pytest.raises(RegistryFailed, match="leads to a private address"):
            await pull(f"evil.example:{liar.port}/x/y", names, requester)
    assert neighbour.asked == []


async def test_a_storage_that_comes_home_later_is_not_followed(listen, pull):
    storage = await listen(lambda _: web.Response(status=500), "127.0.0.3")
    neighbour = await listen(lambda _: web.Response(body=SECRET), "127.0.0.1", storage.port)
    liar = await listen(
        registry_of(SECRET, lambda: f"http://cdn.example:{storage.port}/"), "127.0.0.2"
    )
    names = world(evil_example=["127.0.0.2"], cdn_example=["127.0.0.3", "127.0.0.1"])
    with pytest.raises(RegistryFailed, match="leads to a private address"):
        await pull(f"evil.example:{liar.port}/x/y", names)
    assert neighbour.asked == []


async def test_a_registry_on_the_internet_may_keep_its_files_at_several_others(listen, pull, store):
    storage = await listen(lambda _: web.Response(body=SECRET), "127.0.0.3")
    middle = await listen(
        lambda _: redirect(f"http://cdn.example:{storage.port}/", 302), "127.0.0.2"
    )
    registry = await listen(
        registry_of(SECRET, lambda: f"http://site.example:{middle.port}/"), "127.0.0.3"
    )
    names = world(hf_example=["127.0.0.3"], site_example=["127.0.0.2"], cdn_example=["127.0.0.3"])
    assert await pull(f"hf.example:{registry.port}/x/y", names) == "success"
    assert store.blob_path(digest_of(SECRET)).read_bytes() == SECRET


async def test_a_registry_of_our_network_is_for_those_whom_the_operator_lets(listen, pull):
    storage = await listen(lambda _: web.Response(body=SECRET), "127.0.0.5")
    registry = await listen(
        registry_of(SECRET, lambda: f"http://files.corp:{storage.port}/"), "127.0.0.4"
    )
    name = f"registry.corp:{registry.port}/x/y"
    places = {"registry_corp": ["127.0.0.4"], "files_corp": ["127.0.0.5"]}
    with pytest.raises(RegistryFailed, match="may not name"):
        await pull(name, world(**places))
    assert registry.asked == []
    assert await pull(name, world(**places), LOCAL_REQUESTER) == "success"
    assert await pull(name, world("registry.corp", **places)) == "success"


SPELLINGS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.0.0.1."),
    *("localhost", "localhost.", "LOCALHOST", "a.localhost", "user:word@127.0.0.1", "0.0.0.0", "0"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("[2002:7f00:1::]", "127.0.0.1%2f@8.8.8.8", "%31%32%37.0.0.1", "127.0.0.1%00.example"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_this_machine_is_reached(listen, pull, spelling):
    neighbour = await listen(lambda _: web.Response(body=SECRET))
    where = f"http://{spelling}:{neighbour.port}/secret"
    liar = await listen(registry_of(SECRET, lambda: where), "127.0.0.2")
    with pytest.raises(RegistryFailed):
        await pull(f"{liar.name}/x/y", requester=LOCAL_REQUESTER, network=DEFAULT_NETWORK)
    assert neighbour.asked == []


# ----------------------------------------------------------------- answers


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503, 600])
async def test_nothing_of_what_another_host_says_is_told(listen, pull, status):
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


async def test_what_the_registry_itself_says_does_not_change_a_terminal(listen, pull):
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
async def test_a_range_that_lies_is_refused(listen, pull, content_range):
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


async def test_a_blob_without_end_is_read_as_far_as_the_manifest_says(listen, pull):
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


async def test_a_key_that_cannot_be_used_does_not_keep_a_guest_out(
    listen, pull, environment, caplog
):
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
