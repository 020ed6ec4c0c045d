"""From the names of models to the URLs of their repositories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.errors import BadRequest, RegistryFailed
from ollama_async.core.model_names import ModelName
from ollama_async.registry.repository import resolve_repository


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


def test_insecure_means_http_unless_the_name_has_a_scheme():
    assert address("host/a/b", is_insecure=True) == "http://host/v2/a/b/manifests/latest"
    assert address("http://host/a/b", is_insecure=True).startswith("http://")
    assert address("https://host/a/b", is_insecure=True).startswith("https://")
    with pytest.raises(RegistryFailed, match=r"^insecure protocol http$"):
        address("http://host/a/b")


def test_insecure_does_not_apply_to_ollama_s_registry_without_a_scheme():
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
