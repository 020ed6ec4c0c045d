"""Pulls through a proxy that cuts, corrupts, stalls, refuses and sends elsewhere."""

import asyncio
import base64
import contextlib
import hashlib
import json
import random
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from ollama_async.core.errors import BadRequest, RegistryFailed, StorageFailed
from ollama_async.registry import transport
from ollama_async.store.partial_files import SUFFIX

pytestmark = pytest.mark.slow
CHUNK = 256 << 10
MODEL = random.Random(1).randbytes(5 * CHUNK + 1000)  # not a GGUF: a pull need not know


@pytest.fixture
def name(registry, proxy, request):
    """A model of its own for each test, pushed, to be pulled through the proxy."""
    repository = f"faults/{hashlib.md5(request.node.name.encode()).hexdigest()}"
    registry.push(repository, MODEL, template="{{ .Prompt }}")
    return f"{proxy.host}/{repository}"


@pytest.fixture
def blob(store, digest):
    return store.blob_path(digest(MODEL))


def begun(store):
    """Names of the partial files."""
    return [path.name for path in (store.root / "blobs").glob(f"*{SUFFIX}")]


# ----------------------------------------------------------------- connections


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


async def test_a_connection_that_never_says_anything_is_given_up(name, proxy, short_timeout_pulls):
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


async def test_a_part_that_trickles_is_asked_for_again(name, proxy, short_timeout_pulls, blob):
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
async def test_a_registry_that_is_busy_is_asked_again(name, proxy, pull, blob, status):
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


async def test_nobody_waits_for_an_hour(name, proxy, pull):
    async def fault(_request):
        return web.Response(status=429, headers={"Retry-After": "3600"}, text="slow down")

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=r"max retries exceeded: 429: Too Many Requests$"):
        await pull(name)
    assert len(proxy.requests) == 1


async def test_a_refusal_is_final_and_says_what_the_registry_says(name, proxy, pull):
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


# ----------------------------------------------------------------- content


async def test_corrupt_bytes_are_never_published(name, proxy, pull, blob, store, digest):
    async def spoil(offset, piece):
        return bytes([piece[0] ^ 1]) + piece[1:] if offset == CHUNK else piece

    proxy.spoil = spoil
    with pytest.raises(RegistryFailed) as failed:
        await pull(name)
    assert failed.value.message == (  # and not what came instead, which may be anybody's
        f"digest mismatch, file must be downloaded again: want {digest(MODEL)}"
    )
    assert not blob.exists()
    assert blob.name + SUFFIX not in begun(store)

    proxy.spoil = None
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


async def test_corrupt_bytes_are_noticed_before_anything_else_is_fetched(name, proxy, pull):
    async def spoil(offset, piece):
        return bytes([piece[0] ^ 1]) + piece[1:] if offset == CHUNK else piece

    proxy.spoil = spoil
    with pytest.raises(RegistryFailed, match=r"^digest mismatch"):
        await pull(name)
    blobs = {request.path for request in proxy.asked("/blobs/")}
    assert len(blobs) == 1  # not the template, not the config


async def test_what_is_complete_is_not_believed_after_somebody_wrote_to_it(
    name, proxy, pull, store, blob, digest
):
    damaged = []

    async def fault(request):
        if digest(b"{{ .Prompt }}") in request.path and not damaged:
            (partial,) = (store.root / "blobs").glob(f"{blob.name}{SUFFIX}")
            with partial.open("r+b") as file:
                damaged.append(file.write(b"somebody was here"))

    proxy.fault = fault
    assert (await pull(name))[-1] == {"status": "success"}
    assert damaged
    assert blob.read_bytes() == MODEL


async def test_a_blob_that_lost_its_end_is_fetched_again(name, pull, blob):
    await pull(name)
    blob.write_bytes(MODEL[:-1])
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


async def test_a_part_that_was_damaged_on_the_disk_is_fetched_again(name, proxy, pull, store, blob):
    async def spoil(offset, piece):
        return None if offset > 3 * CHUNK else piece

    proxy.spoil = spoil
    with pytest.raises(RegistryFailed, match="max retries exceeded"):
        await pull(name)
    proxy.spoil = None
    (partial,) = [path for path in (store.root / "blobs").glob(f"*{SUFFIX}") if not path.is_dir()]
    with partial.open("r+b") as file:
        file.write(b"what a power cut may leave")

    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


async def test_a_registry_without_ranges_will_do(name, proxy, pull, blob):
    proxy.has_ranges = False
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_size_that_is_not_the_file_s_is_refused(registry, proxy, pull, store, change):
    manifest = json.loads(registry.push("faults/sizes", MODEL))
    manifest["layers"][0]["size"] += change

    async def fault(request):
        return web.json_response(manifest) if "/manifests/" in request.path else None

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=r"size of the registry's blob|digest mismatch"):
        await pull(f"{proxy.host}/faults/sizes")
    assert store.list() == []


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"digest": "sha256:../../../../etc/passwd", "size": 1}, "invalid digest format"),
        ({"digest": "sha256:" + "A" * 64, "size": 1}, "invalid digest format"),
        ({"digest": "sha256-" + "a" * 64, "size": 1}, "invalid digest format"),
        ({"digest": "sha512:" + "a" * 64, "size": 1}, "invalid digest format"),
        ({"digest": "", "size": 1}, "invalid digest format"),
        ({"digest": "sha256:" + "a" * 64, "size": -1}, "an impossible size"),
        ({"digest": "sha256:" + "a" * 64, "size": 1 << 60}, "an impossible size"),
        ({"digest": "sha256:" + "a" * 64, "size": "1"}, "the manifest is invalid"),
        (None, "names no layers"),
    ],
)
async def test_a_manifest_that_asks_for_the_impossible_is_refused(proxy, pull, store, layer, words):
    async def fault(_request):
        return web.json_response({"layers": [layer] if layer else []})

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=f"^pull model manifest: .*{words}"):
        await pull(f"{proxy.host}/library/x")
    assert len(proxy.requests) == 1
    assert not (store.root / "blobs").exists()


async def test_a_manifest_without_end_is_not_read_to_the_end(proxy, pull):
    sent = []

    async def fault(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1 << 10):
            await response.write(b" " * (1 << 20))
            sent.append(1)
        return response

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match="larger than 1048576 bytes"):
        await pull(f"{proxy.host}/library/x")
    assert len(sent) < 64


async def test_more_than_the_disk_can_hold_is_refused_before_it_is_fetched(proxy, pull):
    async def fault(_request):
        layer = {"digest": "sha256:" + "a" * 64, "size": 1 << 49}
        return web.json_response({"layers": [layer]})

    proxy.fault = fault
    with pytest.raises(StorageFailed, match="no space left on the disk of the model store"):
        await pull(f"{proxy.host}/library/x")
    assert len(proxy.requests) == 1


# ----------------------------------------------------------------- redirects


def _redirect(location):
    return web.Response(status=307, headers={"Location": location})


async def test_blobs_may_be_elsewhere_and_no_credentials_go_there(name, proxy, pull, serve, blob):
    elsewhere = []

    async def storage(request):
        elsewhere.append(dict(request.headers))
        return await proxy.handle(request)

    async with serve(storage) as other:

        async def fault(request):
            if request.host == other:
                return None
            if request.headers.get("Authorization") != "Bearer secret":
                return _unauthorized(request)
            if "/blobs/" in request.path:
                return _redirect(f"http://user:word@{other}{request.path}?signed=1")
            return None

        proxy.fault = _with_tokens(fault, lambda _request: "secret")
        assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL
    assert elsewhere
    assert not any("Authorization" in headers for headers in elsewhere)


async def test_what_is_not_there_elsewhere_either_is_not_asked_for_again(proxy, pull, serve):
    asked = []

    async def nothing(request):
        asked.append(request)
        return web.Response(status=404)

    async with serve(nothing) as other:

        async def fault(request):
            return _redirect(f"http://{other}{request.path}")

        proxy.fault = fault
        with pytest.raises(RegistryFailed, match=r"^pull model manifest: file does not exist$"):
            await pull(f"{proxy.host}/library/x")
    assert len(asked) == 1


@pytest.mark.parametrize("scheme", ["", "http://"])
async def test_a_proxy_of_the_environment_is_used(registry, proxy, pull, monkeypatch, scheme):
    registry.push("faults/proxied", MODEL)
    monkeypatch.setenv("http_proxy", f"{scheme}{proxy.host.replace('127.0.0.1', 'localhost')}")
    monkeypatch.setenv("no_proxy", "other.example,[::1")
    assert (await pull("registry.invalid/faults/proxied"))[-1] == {"status": "success"}
    assert {request.host for request in proxy.requests} == {"registry.invalid"}
    with pytest.raises(RegistryFailed, match=r"other.example"):
        await pull("other.example/faults/proxied")


async def test_nobody_is_led_to_the_secrets_of_a_cloud_machine(name, proxy, pull):
    async def fault(request):
        if "/blobs/" in request.path:
            return _redirect("http://169.254.169.254/latest/meta-data")
        return None

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match=r"leads to a private address \(169.254.169.254\)"):
        await pull(name)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "", "gopher://127.0.0.1/x", "http://[::1"]
)
async def test_redirects_to_no_web_address_are_refused(name, proxy, pull, location):
    async def fault(request):
        if "/blobs/" in request.path:
            return _redirect(location)
        return None

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match="redirects to an invalid address"):
        await pull(name)


async def test_redirects_in_a_circle_end(name, proxy, pull):
    async def fault(request):
        return _redirect(request.path)

    proxy.fault = fault
    with pytest.raises(RegistryFailed, match="stopped after 10 redirects"):
        await pull(name)
    assert len(proxy.requests) == 10


# ----------------------------------------------------------------- tokens


def _unauthorized(request, realm="/token"):
    header = (
        f'Bearer realm="http://{request.host}{realm}",service="s",scope="repository:x:pull a:b"'
    )
    return web.Response(status=401, headers={"WWW-Authenticate": header})


def _with_tokens(fault, token):
    async def both(request):
        if request.path == "/token":
            return web.json_response({"token": token(request)})
        return await fault(request)

    return both


async def test_a_token_is_asked_for_with_a_signature_of_the_key(
    name, proxy, pull, blob, environment
):
    asked = []

    def token(request):
        asked.append(request)
        return "secret"

    async def fault(request):
        is_known = request.headers.get("Authorization") == "Bearer secret"
        return None if is_known else _unauthorized(request)

    proxy.fault = _with_tokens(fault, token)
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL

    (request,) = asked
    assert request.query.getall("scope") == ["repository:x:pull", "a:b"]
    assert request.query["service"] == "s"
    assert request.query["ts"].isdigit()
    assert request.query["nonce"]
    public, _, signature = request.headers["Authorization"].partition(":")
    key_path = Path(environment["HOME"]) / ".ollama" / "id_ed25519"
    line = key_path.with_suffix(".pub").read_bytes()
    assert line.split()[:2] == [b"ssh-ed25519", public.encode()]
    nothing = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    signed = f"GET,http://{request.host}{request.path_qs},{nothing}"
    key = serialization.load_ssh_public_key(line)
    key.verify(base64.b64decode(signature), signed.encode())  # raises
    assert key_path.stat().st_mode & 0o777 == 0o600


async def test_a_token_that_expires_is_replaced_once_for_all_connections(name, proxy, pull, blob):
    valid = ["token-1"]
    asked = []

    def token(_request):
        asked.append(1)
        return valid[0]

    async def fault(request):
        if len(asked) == 1 and len(proxy.asked("/blobs/")) == 3:
            valid[0] = "token-2"
        is_known = request.headers.get("Authorization") == f"Bearer {valid[0]}"
        return None if is_known else _unauthorized(request)

    proxy.fault = _with_tokens(fault, token)
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL
    assert len(asked) == 2


async def test_a_guest_is_one_who_shows_no_signature(name, proxy, pull):
    async def fault(request):
        known = request.headers.get("Authorization")
        if request.path == "/token":
            return web.Response(status=401) if known else web.json_response({"access_token": "g"})
        return None if known == "Bearer g" else _unauthorized(request)

    proxy.fault = fault
    assert (await pull(name))[-1] == {"status": "success"}


async def test_who_is_not_let_in_is_told_so(name, proxy, pull):
    async def fault(request):
        return _unauthorized(request)

    proxy.fault = _with_tokens(fault, lambda _request: "refused")
    with pytest.raises(RegistryFailed, match=r"^pull model manifest: unauthorized: access denied$"):
        await pull(name)
    assert len(proxy.requests) == 3


async def test_another_host_that_gives_out_tokens_gets_no_signature_and_no_token(
    name, proxy, pull, serve
):
    asked = []

    async def authority(request):
        asked.append(request)
        return web.json_response({"token": "guest"})

    async with serve(authority) as other:

        async def fault(request):
            if request.headers.get("Authorization") == "Bearer guest":
                return None
            header = f'Bearer realm="http://{other}/token",service="s",scope="a b"'
            return web.Response(status=401, headers={"WWW-Authenticate": header})

        proxy.fault = fault
        assert (await pull(name))[-1] == {"status": "success"}
    assert [request.path_qs for request in asked] == ["/token?service=s&scope=a&scope=b"]
    assert "Authorization" not in asked[0].headers


async def test_plain_http_must_be_asked_for(name, proxy, pull):
    with pytest.raises(RegistryFailed, match=r"^insecure protocol http$"):
        await pull(f"http://{name}", is_insecure=False)
    with pytest.raises(RegistryFailed, match=r"^pull model manifest: Get .https://"):
        await pull(name, is_insecure=False)
    assert proxy.requests == []
    assert (await pull(f"http://{name}"))[-1] == {"status": "success"}


async def test_names_that_are_none_are_refused_before_anything_is_asked(pull):
    for text in ("a/b/../c", "x:y:z", "h/../x", "h:99999999/library/x"):
        with pytest.raises(BadRequest, match=r"^invalid model name$"):
            await pull(text)
