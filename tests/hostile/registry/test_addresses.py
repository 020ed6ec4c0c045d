"""Registries that use the server to reach hosts in a network that is not theirs."""

from __future__ import annotations

import asyncio
import functools

import httpx
import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed
from ollama_async.registry.address_policy import (
    DEFAULT_NETWORK,
    LOCAL_REQUESTER,
)
from tests.hostile.registry.conftest import (
    ELSEWHERE,
    SECRET,
    STRANGER,
    digest_of,
    manifest_of,
    redirect,
    registry_of,
    world,
)
from tests.integration.conftest import LONG_WAIT_S

pytestmark = pytest.mark.slow

# ----------------------------------------------------------------- what is told


async def test_a_neighbour_s_bytes_are_not_revealed_one_by_one(listen, ask):
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
async def test_the_text_of_a_service_that_is_no_registry_is_not_shown(listen, ask, status):
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


async def test_this_server_cannot_be_the_registry(listen, ask, demo_server):
    own = demo_server.url.removeprefix("http://")

    def lie(request):
        if "/manifests/" in request.path:
            return manifest_of((digest_of(SECRET), len(SECRET)))
        return redirect(f"http://{own}/api/tags")

    liar = await listen(lie)
    for name in (f"{own}/x/y", f"{liar.name}/x/y"):
        assert "is this server itself" in await ask(name)


# ----------------------------------------------------------------- names that change


async def test_a_registry_name_that_resolves_to_loopback_later_is_not_followed(listen, pull):
    registry = await listen(registry_of(SECRET), "127.0.0.2")
    neighbour = await listen(registry_of(SECRET), "127.0.0.1", registry.port)
    names = world(evil_example=["127.0.0.2", "127.0.0.1"])
    assert await pull(f"evil.example:{registry.port}/x/y", names) == "success"
    assert neighbour.asked == []


async def test_a_registry_name_that_resolves_to_loopback_first_opens_nothing(listen, pull):
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
async def test_a_public_registry_cannot_redirect_to_private_networks(
    listen, pull, address, requester
):
    neighbour = await listen(lambda _: web.Response(body=SECRET), address)
    names = world(evil_example=["127.0.0.2"], inner_example=[address])
    for host in ("inner.example", address):
        liar = await listen(
            registry_of(SECRET, lambda host=host: f"http://{host}:{neighbour.port}/"), "127.0.0.2"
        )
        with pytest.raises(RegistryFailed, match="leads to a private address"):
            await pull(f"evil.example:{liar.port}/x/y", names, requester)
    assert neighbour.asked == []


async def test_a_storage_that_resolves_to_loopback_later_is_not_followed(listen, pull):
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
    assert store.layout.blobs.path(digest_of(SECRET)).read_bytes() == SECRET


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
