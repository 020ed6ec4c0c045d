"""Where tokens are asked for, and who sees a signature of ours."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from yarl import URL

from ollama_async.registry.auth import TokenAuth, load_key
from ollama_async.registry.errors import PermanentError


@pytest.fixture
def key_path(tmp_path):
    return tmp_path / "id_ed25519"


@pytest.fixture
def ask(key_path):
    """Be challenged by a registry; the token in the end, and what was asked on the way."""

    async def ask(base, realm, answers=(b'{"token": "t"}',)):
        asked = []
        left = list(answers)

        async def fetch(url, authorization):
            asked.append((url, authorization))
            return left.pop(0)

        with ThreadPoolExecutor(1) as threads:
            auth = TokenAuth(URL(base), key_path, fetch, threads)
            challenge = f'Bearer realm="{realm}",service="s",scope="repository:a/b:pull"'
            await auth.renew("", challenge)
        return auth.token, asked

    return ask


@pytest.mark.parametrize(
    ("base", "realm"),
    [
        ("https://registry.example", "https://registry.example/token"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token"),
        ("https://hf.co", "https://huggingface.co/v2/token"),
        ("https://registry.ollama.ai", "https://ollama.com/token"),
    ],
)
async def test_who_keeps_the_registry_sees_who_we_are(ask, key_path, base, realm):
    token, [(url, authorization)] = await ask(base, realm)
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
async def test_anybody_else_sees_a_guest(ask, key_path, base, realm):
    token, asked = await ask(base, realm)
    assert token == "t"
    assert asked == [(URL(f"{realm}?service=s&scope=repository:a/b:pull"), "")]
    assert not key_path.exists()


async def test_who_is_not_known_is_a_guest(ask):
    token, asked = await ask("https://a", "https://a/t", [None, b'{"access_token": "guest"}'])
    assert token == "guest"
    assert [bool(authorization) for _, authorization in asked] == [True, False]


async def test_who_has_no_usable_key_is_a_guest(ask, key_path):
    key_path.mkdir()
    token, asked = await ask("https://a", "https://a/t", [b'{"token": "guest"}'])
    assert token == "guest"
    assert [authorization for _, authorization in asked] == [""]
    with pytest.raises(
        PermanentError, match=r"^unauthorized: access denied \(the server's key cannot"
    ):
        await ask("https://a", "https://a/t", [None])


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
async def test_what_is_no_token_is_refused(ask, realm, answers, words):
    with pytest.raises(PermanentError, match=words):
        await ask("https://registry.example", realm, answers)
