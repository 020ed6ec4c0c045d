"""Pulls that are redirected, or go through a proxy."""

import pytest
from aiohttp import web

from ollama_async.core.errors import RegistryFailed
from tests.integration.registry.conftest import MODEL, unauthorized, with_tokens

pytestmark = pytest.mark.slow


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
                return unauthorized(request)
            if "/blobs/" in request.path:
                return _redirect(f"http://user:word@{other}{request.path}?signed=1")
            return None

        proxy.fault = with_tokens(fault, lambda _request: "secret")
        assert (await pull(name))[-1] == {"status": "success"}
    assert blob.read_bytes() == MODEL
    assert elsewhere
    assert not any("Authorization" in headers for headers in elsewhere)


async def test_a_404_of_another_host_is_not_retried(proxy, pull, serve):
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


async def test_redirects_to_cloud_metadata_are_rejected(name, proxy, pull):
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
