"""Pushes through a proxy that cuts, stalls, refuses and forgets."""

import asyncio
import hashlib
import json
import random
import re
from contextlib import aclosing

import httpx
import pytest
from aiohttp import web

from ollama_async.core.errors import BadRequest, Forbidden, RegistryFailed, StorageFailed

pytestmark = pytest.mark.slow
DEADLINE_S = 30.0
CHUNK = 256 << 10
MODEL = random.Random(11).randbytes(4 * CHUNK + 1000)  # not a GGUF: a push need not know
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def name(proxy, request):
    """A repository of its own for each test, to be pushed to through the proxy."""
    return f"{proxy.host}/pushed/{hashlib.md5(request.node.name.encode()).hexdigest()}"


@pytest.fixture
def unique(request):
    """A model that no other test has: the registry keeps the blobs of all repositories."""
    return MODEL + request.node.name.encode()


@pytest.fixture
def fetch(registry, name):
    """What the registry has of the repository."""

    def fetch(digest):
        path = "manifests/latest" if digest is None else f"blobs/{digest}"
        url = f"{registry.url}/v2/{name.partition('/')[2]}/{path}"
        return httpx.get(url, headers={"Accept": MANIFEST}).raise_for_status().content

    return fetch


def texts(statuses):
    return list(dict.fromkeys(status["status"] for status in statuses))


async def test_the_registry_gets_the_model_as_it_is(name, proxy, push, keep, fetch, unique, digest):
    manifest = keep(name, unique, template="{{ .Prompt }}")
    statuses = await push(name)

    layers = [*json.loads(manifest)["layers"], json.loads(manifest)["config"]]
    assert texts(statuses) == [
        "retrieving manifest",
        *(f"pushing {layer['digest'][7:19]}" for layer in layers),
        "pushing manifest",
        "success",
    ]
    last = {status["digest"]: status for status in statuses if "digest" in status}
    for layer in layers:
        assert last[layer["digest"]]["total"] == layer["size"]
        assert last[layer["digest"]]["completed"] == layer["size"]
    assert fetch(None) == manifest
    assert fetch(digest(unique)) == unique
    ranges = [request.headers["Content-Range"] for request in proxy.asked("/uploads/")
              if request.method == "PATCH"]  # fmt: skip
    assert ranges[:2] == [f"0-{CHUNK - 1}", f"{CHUNK}-{2 * CHUNK - 1}"]


async def test_what_is_there_is_not_sent_again(name, proxy, push, keep, fetch, unique):
    keep(name, unique)
    await push(name)
    manifest = keep(name, unique, system="another")
    proxy.taken = 0
    proxy.requests.clear()
    statuses = await push(name)
    assert statuses[-1] == {"status": "success"}
    assert proxy.taken == len("another") + len(manifest)
    assert fetch(None) == manifest
    asked = len([request for request in proxy.requests if request.method == "POST"])
    assert asked == 1


async def test_a_layer_of_another_repository_is_mounted(name, proxy, push, keep, unique, digest):
    keep(name, unique)
    await push(name)
    proxy.taken = 0
    manifest = keep(f"{name}-two", unique, origin=f"{name}:latest", system="x")
    assert (await push(f"{name}-two"))[-1] == {"status": "success"}
    assert proxy.taken == len(manifest) + len("x")
    (mounted,) = [
        request for request in proxy.asked("/uploads/")
        if request.query.get("mount") == digest(unique)
    ]  # fmt: skip
    assert mounted.query["from"] == name.partition("/")[2]


async def test_the_name_of_a_file_stays_here(name, proxy, push, keep, unique):
    keep(name, unique, origin="/home/me/secret/model.gguf")
    await push(name)
    assert not [request for request in proxy.requests if "from" in request.query]


# ----------------------------------------------------------------- connections


async def test_a_cut_connection_is_made_again(name, proxy, push, keep, fetch, unique, digest):
    cuts = {100_000, 2 * CHUNK + 50_000}

    async def swallow(offset, piece):
        due = {cut for cut in cuts if offset <= cut < offset + len(piece)}
        cuts.difference_update(due)
        return None if due else piece

    proxy.swallow = swallow
    keep(name, unique)
    statuses = await push(name)
    assert statuses[-1] == {"status": "success"}
    assert cuts == set()
    assert fetch(digest(unique)) == unique


async def test_a_connection_that_is_always_cut_is_given_up(name, proxy, push, keep, unique):
    async def swallow(_offset, _piece):
        return None

    proxy.swallow = swallow
    keep(name, unique)
    with pytest.raises(RegistryFailed, match=r"^max retries exceeded: Patch "):
        await push(name)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_requests_to_a_busy_registry_are_retried(
    name, proxy, push, keep, fetch, unique, digest, status
):
    refused = []

    async def fault(request):
        what = request.method, request.path
        if refused.count(what) < 2:
            refused.append(what)
            return web.Response(status=status, text="not now")
        return None

    proxy.fault = fault
    manifest = keep(name, unique)
    assert (await push(name))[-1] == {"status": "success"}
    assert fetch(None) == manifest
    assert fetch(digest(unique)) == unique
    assert {method for method, _ in refused} >= {"HEAD", "POST", "PATCH", "PUT"}


async def test_a_session_that_is_lost_begins_anew(name, proxy, push, keep, fetch, unique, digest):
    lost = []

    async def fault(request):
        if request.method == "PATCH" and not request.headers["Content-Range"].startswith("0-"):
            lost.append(request.path)
            if len(lost) == 1:
                return web.json_response({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}, status=404)
        return None

    proxy.fault = fault
    keep(name, unique)
    assert (await push(name))[-1] == {"status": "success"}
    assert fetch(digest(unique)) == unique
    assert len({re.split("[?]", path)[0] for path in lost}) == 2


async def test_an_answer_that_is_lost_costs_nothing(name, proxy, push, keep, fetch, unique, digest):
    hung_up = []

    async def fault(request):
        if request.query.get("digest") == digest(unique) and not hung_up:
            hung_up.append(1)
            proxy.fault = None
            await proxy.handle(request)  # the registry has it now
            request.transport.abort()
            return web.Response()
        return None

    proxy.fault = fault
    keep(name, unique)
    assert (await push(name))[-1] == {"status": "success"}
    assert fetch(digest(unique)) == unique
    assert proxy.taken < len(unique) + 10_000


async def test_a_registry_that_takes_nothing_is_given_up(name, proxy, short_timeout_pushes, keep):
    silent = asyncio.Event()

    async def swallow(_offset, piece):
        await silent.wait()
        return piece

    proxy.swallow = swallow
    keep(name, bytes(48 << 20))  # more than sockets hold
    with pytest.raises(RegistryFailed, match=r"^max retries exceeded: .*no progress for too long"):
        async for _ in short_timeout_pushes.follow(name, is_insecure=True):
            pass
    silent.set()


async def test_a_refusal_is_final_and_quotes_the_registry(name, proxy, push, keep):
    async def fault(request):
        if request.method == "POST":
            return web.json_response({"errors": [{"code": "DENIED"}]}, status=403)
        return None

    proxy.fault = fault
    keep(name, MODEL + b"refused")
    with pytest.raises(RegistryFailed) as refused:
        await push(name)
    assert refused.value.message == '403: {"errors": [{"code": "DENIED"}]}'
    assert proxy.taken == 0


async def test_a_registry_that_is_not_there_is_an_error_at_once(push, keep):
    keep("127.0.0.1:1/library/x", MODEL)
    with pytest.raises(RegistryFailed, match=r'^Head "http://127.0.0.1:1/v2/'):
        await push("127.0.0.1:1/library/x")


# ----------------------------------------------------------------- tokens


async def test_a_token_has_the_requested_scope_and_is_renewed_when_it_expires(
    name, proxy, push, keep, fetch, unique, digest
):
    scopes = []
    patches = []

    async def fault(request):
        if request.path == "/token":
            scopes.append(request.query["scope"])
            return web.json_response({"token": f"{request.query['scope']}#{len(scopes)}"})
        scope = "repository:x:pull" if request.method == "HEAD" else "repository:x:pull,push"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        patches.extend([token] if request.method == "PATCH" else [])
        is_expired = len(set(patches)) == 1 and len(patches) == 2
        if token.partition("#")[0].startswith(scope) and not is_expired:
            return None
        challenge = f'Bearer realm="http://{request.host}/token",service="s",scope="{scope}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    proxy.fault = fault
    keep(name, unique)
    assert (await push(name))[-1] == {"status": "success"}
    assert fetch(digest(unique)) == unique
    assert scopes == ["repository:x:pull", "repository:x:pull,push", "repository:x:pull,push"]


async def test_a_push_without_permission_is_reported(name, proxy, push, keep, unique):
    async def fault(request):
        if request.path == "/token":
            return web.json_response({"token": "pull-only"})
        if request.method == "HEAD":
            return None
        challenge = f'Bearer realm="http://{request.host}/token",scope="repository:x:pull,push"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    proxy.fault = fault
    keep(name, unique)
    with pytest.raises(RegistryFailed, match=r"^unauthorized: access denied$"):
        await push(name)
    assert proxy.taken == 0


# ----------------------------------------------------------------- what is not there


async def test_the_error_for_a_missing_model_has_its_path(proxy, pushes, store):
    async with aclosing(pushes.follow(f"{proxy.host}/no/such", is_insecure=True)) as statuses:
        assert await anext(statuses) == {"status": "retrieving manifest"}
        assert await anext(statuses) == {"status": "couldn't retrieve manifest"}
        with pytest.raises(StorageFailed) as failed:
            await anext(statuses)
    path = store.root / "manifests" / proxy.host / "no/such/latest"
    assert failed.value.message == f"open {path}: no such file or directory"
    assert proxy.requests == []


async def test_nothing_is_sent_of_a_model_that_is_not_whole(name, proxy, push, keep, store, digest):
    keep(name, MODEL, system="s")
    store.layout.blobs.path(digest(b"s")).unlink()
    with pytest.raises(StorageFailed, match=f"^the model is not complete: {digest(b's')} is not"):
        await push(name)
    store.layout.blobs.path(digest(b"s")).write_bytes(b"longer")
    with pytest.raises(StorageFailed, match="has 6 bytes, its manifest says 1"):
        await push(name)
    assert proxy.requests == []


async def test_a_model_that_is_deleted_meanwhile_is_an_error(
    name, proxy, push, keep, store, unique
):
    async def swallow(_offset, piece):
        for path in (store.root / "blobs").iterdir():
            path.unlink()
        return piece

    proxy.swallow = swallow
    keep(name, unique, system="never sent before")
    with pytest.raises(StorageFailed, match=r"^the model was removed while it was pushed: sha256:"):
        await push(name)


async def test_the_library_of_ollama_is_not_ours_to_fill(push, keep):
    keep("demo", MODEL)
    with pytest.raises(Forbidden, match=r"^you are not authorized to push to this namespace"):
        await push("demo", is_insecure=False)


async def test_invalid_names_are_rejected_before_any_request(push):
    with pytest.raises(BadRequest, match=r"^model is required$"):
        await push(" ")
    for text in ("a/b/../c", "x:y:z", "h/../x"):
        with pytest.raises(BadRequest, match=r"^invalid model name$"):
            await push(text)


async def test_plain_http_must_be_requested(name, proxy, push, keep):
    keep(name, MODEL)
    with pytest.raises(RegistryFailed, match=r"^insecure protocol http$"):
        await push(f"http://{name}", is_insecure=False)
    assert proxy.requests == []


# ----------------------------------------------------------------- several, and none


async def test_a_push_ends_with_its_last_asker(name, proxy, pushes, keep, unique):
    reached, held = asyncio.Event(), asyncio.Event()

    async def swallow(offset, piece):
        if offset > CHUNK:
            reached.set()
            await held.wait()
        return piece

    proxy.swallow = swallow
    keep(name, unique)
    first = pushes.follow(name, is_insecure=True)
    second = pushes.follow(name, is_insecure=True)
    async with asyncio.timeout(DEADLINE_S), aclosing(first), aclosing(second):
        assert await anext(first) == await anext(second) == {"status": "retrieving manifest"}
        await reached.wait()
        await first.aclose()
        assert (await anext(second))["total"] == len(unique)  # it goes on
        await second.aclose()
    held.set()
    assert len({request.path for request in proxy.requests if request.method == "POST"}) == 1
    assert not [request for request in proxy.requests if request.method == "PUT"]
