"""Names to addresses, challenges, waiting, and headers of registries."""

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.errors import BadRequest, RegistryFailed
from ollama_async.core.model_names import ModelName
from ollama_async.registry.auth import BearerChallenge
from ollama_async.registry.errors import PermanentError, TransientError, parse_retry_after
from ollama_async.registry.repository import resolve_repository
from ollama_async.registry.transfer_policy import RetryPolicy, RetryState, retried


def address(text, *, is_insecure=False):
    name = ModelName.parse(text)
    return str(resolve_repository(text, name, is_insecure=is_insecure).manifest(name.tag))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama3", "https://registry.ollama.ai/v2/library/llama3/manifests/latest"),
        ("me/x:7b-q4_K_M", "https://registry.ollama.ai/v2/me/x/manifests/7b-q4_K_M"),
        ("hf.co/user/Repo-GGUF:Q8_0", "https://hf.co/v2/user/Repo-GGUF/manifests/Q8_0"),
        ("hf.co/user/Repo-GGUF", "https://hf.co/v2/user/Repo-GGUF/manifests/latest"),
        ("https://host:5000/a/b", "https://host:5000/v2/a/b/manifests/latest"),
        ("localhost:5000/a/b:c", "https://localhost:5000/v2/a/b/manifests/c"),
    ],
)
def test_where_a_model_is(text, expected):
    assert address(text) == expected


def test_insecure_means_http_unless_the_name_says_otherwise():
    assert address("host/a/b", is_insecure=True) == "http://host/v2/a/b/manifests/latest"
    assert address("http://host/a/b", is_insecure=True).startswith("http://")
    assert address("https://host/a/b", is_insecure=True).startswith("https://")
    with pytest.raises(RegistryFailed, match=r"^insecure protocol http$"):
        address("http://host/a/b")


def test_ollama_s_own_registry_has_https_which_nobody_switches_off_by_accident():
    expected = "https://registry.ollama.ai/v2/library/llama3/manifests/latest"
    for text in ("llama3", "Registry.Ollama.ai/library/llama3"):
        assert address(text, is_insecure=True).lower() == expected
    assert address("http://registry.ollama.ai/library/x", is_insecure=True).startswith("http://")


@pytest.mark.parametrize("text", ["ftp://host/a/b", "host:99999999/a/b", "a:b:c/a/b", ":1/a/b"])
def test_hosts_that_are_none(text):
    with pytest.raises((BadRequest, ValueError), match=r"^invalid model name$"):
        address(text)


host_letters = st.text("abcXYZ0189._:-[]%/@?#", max_size=20)


@given(host_letters, st.booleans())
def test_whatever_the_name_the_address_is_its_host_s(text, is_insecure):
    try:
        name = ModelName.parse(f"{text}/ns/model")
        repository = resolve_repository(f"{text}/ns/model", name, is_insecure=is_insecure)
    except (BadRequest, ValueError, RegistryFailed):
        return
    url = repository.blob("sha256:" + "a" * 64)
    assert url.path.startswith("/v2/ns/model/blobs/sha256:")
    assert url.user is None
    assert name.host.lower().startswith(str(url.host))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/t"', BearerChallenge("https://a/t")),
        ('bearer realm=https://a/t,scope="x y"', BearerChallenge("https://a/t", scope="x y")),
        (
            'Bearer realm="https://a/t", service="s, t" , scope="r:x:pull", error="invalid"',
            BearerChallenge("https://a/t", "s, t", "r:x:pull"),
        ),
        (r'Bearer realm="a\"b"', BearerChallenge('a"b')),
        ('Bearer realm="a",realm="b"', BearerChallenge("a")),
        ('Basic realm="a"', None),
        ("Bearer", None),
        ("", None),
        ('Bearer service="s"', None),
        ("Bearer realm=" + "x" * 9000, None),
    ],
)
def test_challenges(header, expected):
    assert BearerChallenge.parse(header) == expected


@given(st.text() | st.text('Bearer realm="=,\\').map(lambda text: "Bearer " + text))
def test_any_challenge_is_read_or_not(header):
    challenge = BearerChallenge.parse(header)
    assert challenge is None or challenge.realm


plain = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1)


@given(plain, plain, plain)
def test_a_challenge_is_read_as_it_was_written(realm, service, scope):
    def quoted(text):
        return text.replace("\\", "\\\\").replace('"', '\\"')

    header = f'Bearer realm="{quoted(realm)}",service="{quoted(service)}",scope="{quoted(scope)}"'
    assert BearerChallenge.parse(header) == BearerChallenge(realm, service, scope)


def test_where_a_token_is_asked_for():
    challenge = BearerChallenge("https://u:p@a/t?x=1#y", "s", "one two")
    assert str(challenge.url()) == "https://a/t?x=1&service=s&scope=one&scope=two"
    for realm in ("file:///x", "a", "https://", "http://[::1"):
        with pytest.raises(ValueError, match=r"."):
            BearerChallenge(realm).url()


@given(st.integers(1, 100), st.floats(0, 1))
def test_pauses_grow_and_are_bounded(failures, jitter):
    policy = RetryPolicy()
    pause_s = policy.pause_s(failures, 0, jitter=jitter)
    assert 0.5 <= pause_s <= 30
    assert pause_s <= 2.0 ** (failures - 1)
    assert policy.pause_s(failures, 60, jitter=jitter) == 60


QUICK = RetryPolicy(attempts=3, first_pause_s=0)


async def test_what_fails_for_now_is_tried_again_but_not_for_ever():
    calls = []

    async def succeeds_at_last():
        calls.append(1)
        if len(calls) < 3:
            raise TransientError("not now")
        return "well"

    async def never():
        raise TransientError("not now")

    assert await retried(succeeds_at_last, QUICK) == "well"
    with pytest.raises(PermanentError, match=r"^max retries exceeded: not now$"):
        await retried(never, QUICK)


async def test_progress_makes_patient():
    tries = RetryState(QUICK)
    for _ in range(10):
        await tries.pause(TransientError("x"))
        await tries.pause(TransientError("x"))
        tries.progressed()
    for _ in range(2):
        await tries.pause(TransientError("x"))
    with pytest.raises(PermanentError):
        await tries.pause(TransientError("x"))


def test_both_forms_of_retry_after():
    assert parse_retry_after("7") == 7
    assert 50 < parse_retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert parse_retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    for nonsense in ("", "-1", "soon", "²", "9" * 400, "nan"):
        assert parse_retry_after(nonsense) == 0
