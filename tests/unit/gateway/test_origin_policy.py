"""Which pages and which host names may reach the server."""

from __future__ import annotations

import socket

import pytest

from ollama_async.core.settings import Settings
from ollama_async.gateway.origin_policy import OriginPolicy
from ollama_async.gateway.routes import build_application


def make_policy(listen: str = "127.0.0.1", *origins: str) -> OriginPolicy:
    return OriginPolicy(listen_host=listen, origins=origins)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1:1",
        "https://0.0.0.0",
        "app://obsidian.md",
        "vscode-webview://x",
        "http://mine.example:8080",
        "https://a.lab.example",
    ],
)
def test_local_pages_shells_and_named_origins_are_allowed(origin):
    policy = make_policy("127.0.0.1", "http://mine.example:8080", "https://*.LAB.example")
    assert policy.is_allowed_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost.evil.example",
        "null",
        "https://lab.example",
        "http://mine.example",
        "https://.lab.exampl",
    ],
)
def test_other_pages_are_not(origin):
    policy = make_policy("127.0.0.1", "http://mine.example:8080", "https://*.lab.example")
    assert not policy.is_allowed_origin(origin)


@pytest.mark.parametrize(
    ("host", "on_loopback", "on_network"),
    [
        ("", True, True),
        ("localhost:11434", True, True),
        ("LocalHost", True, True),
        ("127.0.0.1:11434", True, True),
        ("[::1]:11434", True, True),
        ("[::1]", True, True),
        ("192.168.1.7:80", True, True),
        ("8.8.8.8", False, True),
        ("[2606:4700::1111]:443", False, True),
        (socket.gethostname(), True, True),
        ("box.local", True, True),
        ("host.docker.internal:11434", True, True),
        ("x.localhost", True, True),
        ("ollama:11434", False, True),
        ("gpu.lan", False, True),
        ("ollama.default.svc:11434", False, True),
        ("llm.example:8443", True, True),
        ("evil.example", False, False),
        ("127.0.0.1.evil.example", False, False),
        ("localhost.evil.example:11434", False, False),
        ("evil.example:notaport", False, False),
        ("local", False, True),
    ],
)
def test_hosts_that_a_foreign_page_can_have_are_refused(host, on_loopback, on_network):
    proxy = "https://llm.example"
    assert make_policy("127.0.0.1", proxy).is_allowed_host(host) is on_loopback
    assert make_policy("::1", proxy).is_allowed_host(host) is on_loopback
    assert make_policy("0.0.0.0", proxy).is_allowed_host(host) is on_network


def test_a_star_allows_everybody():
    policy = make_policy("127.0.0.1", "*")
    assert policy.is_allowed_host("evil.example")
    assert policy.is_allowed_origin("http://evil.example")
    assert policy.cors_headers("http://evil.example") == [("Access-Control-Allow-Origin", "*")]


async def test_a_refused_page_is_told_the_variable(session, url):
    headers = {"Origin": "http://evil.example"}
    async with session.post(url + "/api/generate", json={}, headers=headers) as response:
        assert response.status == 403
        assert "OLLAMA_ORIGINS" in (await response.json())["error"]
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_refused_host_is_told_the_variable(session, url):
    headers = {"Host": "evil.example"}
    async with session.get(url + "/api/tags", headers=headers) as response:
        assert response.status == 403
        assert "OLLAMA_ORIGINS" in (await response.json())["error"]


async def test_an_allowed_page_gets_cors_headers_on_answers_and_errors(session, url, backend):
    backend.script = lambda job: job.start().send("a").end()
    headers = {"Origin": "http://localhost:3000"}
    for body, status in (({"model": "m", "prompt": "x"}, 200), ({"model": "no"}, 404)):
        async with session.post(url + "/api/generate", json=body, headers=headers) as response:
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("path", "header"), [("/v1/messages", "request-id"), ("/v1/chat/completions", "x-request-id")]
)
async def test_a_page_may_read_the_id_of_its_request_and_when_to_come_again(
    session, url, path, header
):
    headers = {"Origin": "http://localhost:3000"}
    async with session.post(url + path, json={"model": "no"}, headers=headers) as response:
        readable = response.headers["Access-Control-Expose-Headers"].lower().split(",")
        assert header in response.headers
    assert {header, "retry-after"} <= set(readable)


async def test_a_preflight_lists_what_a_page_may_send(session, url):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    async with session.options(url + "/api/chat", headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert response.headers["Access-Control-Max-Age"] == "43200"
        assert "Access-Control-Expose-Headers" not in response.headers
        assert "DELETE" in response.headers["Access-Control-Allow-Methods"].split(",")
        assert "X-Stainless-Lang" in response.headers["Access-Control-Allow-Headers"].split(",")
        assert set(response.headers.getall("Vary")) == {
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        }


async def test_a_page_may_send_what_anthropics_client_sends(session, url):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    async with session.options(url + "/v1/messages", headers=headers) as response:
        allowed = response.headers["Access-Control-Allow-Headers"].lower().split(",")
    assert {
        "x-api-key",
        "anthropic-version",
        "anthropic-beta",
        "anthropic-dangerous-direct-browser-access",
        "x-stainless-helper",
    } <= set(allowed)


async def test_options_without_a_page_are_answered(session, url):
    async with session.options(url + "/api/chat") as response:
        assert response.status == 204


async def test_the_servers_own_page_needs_no_cors(session, url):
    async with session.get(url + "/api/version", headers={"Origin": url}) as response:
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_origins_come_from_the_settings(session, serve, dependencies):
    import msgspec

    settings = Settings.from_environ({"OLLAMA_ORIGINS": "http://a.example, https://b.example"})
    url = await serve(build_application(msgspec.structs.replace(dependencies, settings=settings)))
    headers = {"Origin": "https://b.example", "Host": "a.example:11434"}
    async with session.get(url + "/api/version", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("raw", ["https://*.*.example", "example.com", "ftp://x"])
def test_an_origin_that_cannot_be_meant_is_a_warning(raw):
    settings = Settings.from_environ({"OLLAMA_ORIGINS": raw})
    assert settings.origins == ()
    assert "OLLAMA_ORIGINS" in settings.warnings[0]
