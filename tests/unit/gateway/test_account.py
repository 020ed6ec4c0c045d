"""Ollama's account and cloud, without an account: enabled, and disabled by ``OLLAMA_NO_CLOUD``."""

from __future__ import annotations

import base64
import socket
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

SIGNED_OUT = "you are not currently signed in"
ASKED = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where the key pair is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(params=[False, True], ids=["enabled", "disabled"])
def is_disabled(request) -> bool:
    return request.param


@pytest.fixture
def dependencies(dependencies, is_disabled):
    settings = msgspec.structs.replace(dependencies.settings, no_cloud=is_disabled)
    return msgspec.structs.replace(dependencies, settings=settings)


@pytest.fixture
def ask(session, url):
    """``await ask(method, path, **fields)`` → (status, decoded body)."""

    async def ask(method: str, path: str, **fields):
        async with session.request(method, url + path, json=fields or None) as response:
            return response.status, await response.json()

    return ask


async def test_the_status_says_what_disabled_the_cloud(ask, is_disabled):
    cloud = {"disabled": is_disabled, "source": "env" if is_disabled else "none"}
    assert await ask("GET", "/api/status") == (200, {"cloud": cloud})


async def test_nobody_is_signed_in(ask, home):
    status, body = await ask("POST", "/api/me")
    assert (status, body["error"]) == (401, "unauthorized")
    url = urlsplit(body["signin_url"])
    query = parse_qs(url.query)
    assert (url.netloc, url.path) == ("ollama.com", "/connect")
    assert query["name"] == [socket.gethostname()]
    key = query["key"][0]
    line = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)).decode()
    assert line == (home / ".ollama" / "id_ed25519.pub").read_text().strip()


async def test_without_a_key_there_is_no_page_to_sign_in(ask, home):
    (home / ".ollama").mkdir()
    (home / ".ollama" / "id_ed25519").write_text("no key")
    assert await ask("POST", "/api/me") == (401, {"error": "unauthorized"})


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/signout"), ("DELETE", "/api/user/keys/c3NoLQ")]
)
async def test_nobody_signs_out(ask, method, path):
    assert await ask(method, path) == (401, {"error": SIGNED_OUT})


@pytest.mark.parametrize(
    ("path", "fields", "what"),
    [
        ("/api/experimental/web_search", {"query": "x", "max_results": 3}, "web search is"),
        ("/api/experimental/web_fetch", {"url": "https://example.com"}, "web fetch is"),
        ("/api/show", {"model": "big:cloud"}, "remote model details are"),
        ("/api/chat", {"model": "big:1b-cloud", "messages": ASKED}, "remote model is"),
        ("/api/generate", {"model": "big:Cloud", "prompt": "x"}, "remote model is"),
        ("/api/embed", {"model": "big:cloud", "input": "x"}, "remote model is"),
    ],
)
async def test_the_cloud_is_unavailable(ask, backend, is_disabled, path, fields, what):
    status, body = await ask("POST", path, **fields)
    if is_disabled:
        expected = {"error": f"ollama cloud is disabled: {what} unavailable"}
        assert (status, body) == (403, expected)
    else:
        assert (status, body["error"]) == (401, "unauthorized")
        assert body["signin_url"].startswith("https://ollama.com/connect?")
    assert backend.jobs.empty()


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/v1/chat/completions", ("invalid_request_error", "invalid_request_error")),
        ("/v1/messages", ("authentication_error", "permission_error")),
    ],
)
async def test_other_protocols_have_errors_of_their_own(ask, is_disabled, path, kinds):
    status, body = await ask("POST", path, model="big:cloud", max_tokens=1, messages=ASKED)
    assert status == (403 if is_disabled else 401)
    assert body["error"]["type"] == kinds[is_disabled]


async def test_the_suffix_of_local_models_is_removed(ask, backend):
    backend.script = lambda job: job.start().send("ok").end()
    status, body = await ask("POST", "/api/chat", model="m:local", messages=ASKED, stream=False)
    assert (status, body["message"]["content"]) == (200, "ok")
    status, body = await ask("POST", "/api/chat", model="m:cloud:local", messages=ASKED)
    text = 'use either :local or :cloud, not both: "m:cloud:local"'
    assert (status, body) == (400, {"error": text})


@pytest.mark.parametrize("path", ["web_search", "web_fetch"])
async def test_a_search_needs_a_body(ask, path):
    expected = (400, {"error": "missing request body"})
    assert await ask("POST", f"/api/experimental/{path}") == expected


async def test_nothing_is_recommended(ask):
    expected = (200, {"recommendations": []})
    assert await ask("GET", "/api/experimental/model-recommendations") == expected
