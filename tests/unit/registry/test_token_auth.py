"""Token requests: which service gets them, and which are signed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from yarl import URL

from ollama_async.registry.auth import TokenAuth, load_key
from ollama_async.registry.errors import PermanentError


@pytest.fixture
def key_path(tmp_path):
    return tmp_path / "id_ed25519"


@pytest.fixture
def authenticate(key_path):
    """Answers a challenge of a registry; returns the token and the requests for it."""

    async def authenticate(base, realm, answers=(b'{"token": "t"}',)):
        requests = []
        left = list(answers)

        async def fetch(url, authorization):
            requests.append((url, authorization))
            return left.pop(0)

        with ThreadPoolExecutor(1) as threads:
            auth = TokenAuth(URL(base), key_path, fetch, threads)
            challenge = f'Bearer realm="{realm}",service="s",scope="repository:a/b:pull"'
            await auth.renew("", challenge)
        return auth.token, requests

    return authenticate


@pytest.mark.parametrize(
    ("base", "realm"),
    [
        ("https://registry.example", "https://registry.example/token"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token"),
        ("https://hf.co", "https://huggingface.co/v2/token"),
        ("https://registry.ollama.ai", "https://ollama.com/token"),
    ],
)
async def test_who_keeps_the_registry_sees_who_we_are(authenticate, key_path, base, realm):
    token, [(url, authorization)] = await authenticate(base, realm)
    assert token == "t"
    assert str(url).startswith(f"{realm}?service=s&scope=repository:a/b:pull&ts=")
    assert url.query["nonce"]
    assert authorization.startswith(f"{load_key(key_path).public}:")


@pytest.mark.parametrize(
    ("base", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://thief.example", "https://registry.ollama.ai/token"),
        ("https://registry.example", "https://registry.example:444/token"),
        ("https://hf.co", "https://huggingface.co:444/v2/token"),
        ("https://hf.co.thief.example", "https://huggingface.co/v2/token"),
        ("https://huggingface.co", "https://hf.co/v2/token"),
        ("http://hf.co", "https://huggingface.co/v2/token"),
    ],
)
async def test_other_token_services_get_anonymous_requests(authenticate, key_path, base, realm):
    token, requests = await authenticate(base, realm)
    assert token == "t"
    assert requests == [(URL(f"{realm}?service=s&scope=repository:a/b:pull"), "")]
    assert not key_path.exists()


async def test_an_unknown_key_gets_an_anonymous_token(authenticate):
    token, requests = await authenticate(
        "https://a", "https://a/t", [None, b'{"access_token": "guest"}']
    )
    assert token == "guest"
    assert [bool(authorization) for _, authorization in requests] == [True, False]


async def test_without_a_usable_key_the_token_is_anonymous(authenticate, key_path):
    key_path.mkdir()
    token, requests = await authenticate("https://a", "https://a/t", [b'{"token": "guest"}'])
    assert token == "guest"
    assert [authorization for _, authorization in requests] == [""]
    with pytest.raises(
        PermanentError, match=r"^unauthorized: access denied \(the server's key cannot"
    ):
        await authenticate("https://a", "https://a/t", [None])


@pytest.mark.parametrize(
    ("realm", "answers", "words"),
    [
        ("http://auth.example/token", [], "over http"),
        ("http://registry.example/token", [], "over http"),
        ("file:///etc/passwd", [], "access denied"),
        ("https://auth.example/token", [None], "access denied"),
        ("https://auth.example/token", [b'{"token": "a\\nb"}'], "access denied"),
        ("https://auth.example/token", [b"[" * 9999], "access denied"),
    ],
)
async def test_what_is_no_token_is_refused(authenticate, realm, answers, words):
    with pytest.raises(PermanentError, match=words):
        await authenticate("https://registry.example", realm, answers)
