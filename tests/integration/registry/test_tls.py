"""Registries over HTTPS: whose certificate counts, and where they may lead."""

import asyncio
import datetime as dt
import ipaddress
import random
import ssl

import httpx
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]  # several servers start
DEADLINE_S = 30.0
MODEL = random.Random(5).randbytes(300_000)


@pytest.fixture
def certificate(tmp_path):
    """A file with a key and its certificate for 127.0.0.1, by nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "registry.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
async def secure_host(proxy, serve, certificate):
    """``HOST:PORT`` of the proxy over TLS."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with serve(proxy.handle, tls) as host:
        yield host


async def last_line(server, name, verb="pull"):
    def ask():
        asked = {"model": name, "stream": False}
        return httpx.post(f"{server.url}/api/{verb}", json=asked, timeout=DEADLINE_S).json()

    return await asyncio.get_running_loop().run_in_executor(None, ask)


async def started(start_server, **variables):
    return await asyncio.get_running_loop().run_in_executor(None, lambda: start_server(**variables))


async def test_https_is_the_default_and_the_certificate_must_be_trusted(
    registry, proxy, secure_host, start_server, certificate
):
    registry.push("tls/plain", MODEL)
    name = f"{secure_host}/tls/plain"
    trusting = await started(start_server, SSL_CERT_FILE=str(certificate))
    assert await last_line(trusting, name) == {"status": "success"}

    stranger = await started(start_server, OLLAMA_MODELS=str(certificate.parent / "other"))
    answer = await last_line(stranger, name)
    assert answer["error"].startswith("pull model manifest: Get ")
    assert "certificate" in answer["error"].lower()

    answer = await last_line(stranger, f"{proxy.host}/tls/plain")
    assert answer["error"].startswith("pull model manifest: Get ")
    assert "is it a plain HTTP registry?" in answer["error"]


async def test_a_model_is_pushed_over_https_and_comes_back_the_same(
    registry, proxy, secure_host, start_server, certificate, tiny_model, digest
):
    def kept(server):
        data = tiny_model.read_bytes()
        httpx.post(f"{server.url}/api/blobs/{digest(data)}", content=data).raise_for_status()
        asked = {"model": name, "files": {"t.gguf": digest(data)}, "system": "be brief"}
        httpx.post(f"{server.url}/api/create", json=asked).raise_for_status()
        (model,) = httpx.get(f"{server.url}/api/tags").json()["models"]
        return model["digest"]

    name = f"{secure_host}/tls/pushed"
    server = await started(start_server, SSL_CERT_FILE=str(certificate))
    before = await asyncio.get_running_loop().run_in_executor(None, kept, server)
    assert await last_line(server, name, "push") == {"status": "success"}
    assert all(request.secure for request in proxy.requests)
    assert digest(registry.manifest("tls/pushed")) == f"sha256:{before}"

    other = str(certificate.parent / "other")
    puller = await started(start_server, SSL_CERT_FILE=str(certificate), OLLAMA_MODELS=other)
    assert await last_line(puller, name) == {"status": "success"}

    stranger = await started(start_server)
    answer = await last_line(stranger, name, "push")
    assert "certificate" in answer["error"].lower()


async def test_redirects_from_https_to_http_are_rejected(
    registry, proxy, secure_host, start_server, certificate
):
    registry.push("tls/led", MODEL)

    async def fault(request):
        if request.secure and "/blobs/" in request.path:
            location = f"http://{proxy.host}{request.path}"
            return web.Response(status=307, headers={"Location": location})
        return None

    proxy.fault = fault
    server = await started(start_server, SSL_CERT_FILE=str(certificate))
    answer = await last_line(server, f"{secure_host}/tls/led")
    assert answer == {"error": "the registry redirects from https to http (127.0.0.1)"}
    assert proxy.sent == 0
