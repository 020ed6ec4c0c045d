"""Pulls from registries that want a token."""

import base64
import hashlib
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from ollama_async.core.errors import BadRequest, RegistryFailed
from tests.integration.registry.conftest import MODEL, unauthorized, with_tokens

pytestmark = pytest.mark.slow


async def test_a_token_request_is_signed_with_the_key(name, proxy, pull, blob, environment):
    asked = []

    def token(request):
        asked.append(request)
        return "secret"

    async def fault(request):
        is_known = request.headers.get("Authorization") == "Bearer secret"
        return None if is_known else unauthorized(request)

    proxy.fault = with_tokens(fault, token)
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
        return None if is_known else unauthorized(request)

    proxy.fault = with_tokens(fault, token)
    assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL
    assert len(asked) == 2


async def test_a_guest_is_one_who_shows_no_signature(name, proxy, pull):
    async def fault(request):
        known = request.headers.get("Authorization")
        if request.path == "/token":
            return web.Response(status=401) if known else web.json_response({"access_token": "g"})
        return None if known == "Bearer g" else unauthorized(request)

    proxy.fault = fault
    assert (await pull(name))[-1] == {"status": "success"}


async def test_denied_access_is_reported(name, proxy, pull):
    async def fault(request):
        return unauthorized(request)

    proxy.fault = with_tokens(fault, lambda _request: "refused")
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


async def test_plain_http_must_be_requested(name, proxy, pull):
    with pytest.raises(RegistryFailed, match=r"^insecure protocol http$"):
        await pull(f"http://{name}", is_insecure=False)
    with pytest.raises(RegistryFailed, match=r"^pull model manifest: Get .https://"):
        await pull(name, is_insecure=False)
    assert proxy.requests == []
    assert (await pull(f"http://{name}"))[-1] == {"status": "success"}


async def test_invalid_names_are_rejected_before_any_request(pull):
    for text in ("a/b/../c", "x:y:z", "h/../x", "h:99999999/library/x"):
        with pytest.raises(BadRequest, match=r"^invalid model name$"):
            await pull(text)
