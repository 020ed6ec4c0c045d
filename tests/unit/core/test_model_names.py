from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.core.model_names import ModelName, split_source

PIECES = st.sampled_from(
    ["a", "B", "0", "_", "-", ".", "..", "/", ":", "://", "https://", "\\", "\0", "\n", "é", "%2e"]
)
HOSTILE = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=12).map("".join))
WORD = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,9}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("llama3:8B", "registry.ollama.ai/library/llama3:8B", "llama3:8B"),
        ("me/x", "registry.ollama.ai/me/x:latest", "me/x:latest"),
        ("hf.co/me/x.gguf:Q4_K_M", "hf.co/me/x.gguf:Q4_K_M", "hf.co/me/x.gguf:Q4_K_M"),
        ("localhost:5000/me/x", "localhost:5000/me/x:latest", "localhost:5000/me/x:latest"),
        ("http://h:1/n/m:t", "h:1/n/m:t", "h:1/n/m:t"),
        ("Registry.Ollama.AI/Library/x", "Registry.Ollama.AI/Library/x:latest", "x:latest"),
    ],
)
def test_a_reference_gets_ollamas_defaults(text: str, full: str, short: str) -> None:
    name = ModelName.parse(text)
    assert (name.full, name.short) == (full, short)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":tag",
        "x:",
        "/x",
        "x/",
        "a//b",
        "..",
        "../x",
        "a/../b",
        "n.s/x",
        "-x",
        ".x",
        "x:-y",
        "x@sha256:abc",
        "x y",
        "x\n",
        "x:y\n",
        "https://x",
        "a/b/c/d",
        "é",
        "m" * 81,
        "x:" + "t" * 81,
        "h" * 351 + "/n/m",
        "x\0",
    ],
)
def test_an_invalid_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid model name$"):
        ModelName.parse(text)


def test_the_longest_parts_are_valid() -> None:
    assert ModelName.parse(f"https://{'h' * 350}/{'n' * 80}/{'m' * 80}:{'t' * 80}").tag == "t" * 80


@given(HOSTILE)
def test_every_valid_name_is_a_path_below_the_manifests_folder(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except ValueError:
        return
    path = posixpath.join("/store/manifests", name.manifest_path)
    assert posixpath.normpath(path) == path
    assert path.startswith("/store/manifests/")
    assert path.count("/") == 6
    assert "\0" not in path


@given(HOSTILE)
def test_the_display_form_parses_to_the_same_name(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except ValueError:
        return
    assert ModelName.parse(name.full) == name
    assert ModelName.parse(name.short).folded == name.folded


@given(WORD, WORD, WORD, WORD)
def test_four_valid_parts_are_a_name(host: str, namespace: str, model: str, tag: str) -> None:
    name = ModelName.parse(f"{host}/{namespace}/{model}:{tag}")
    assert name.parts == (host, namespace, model, tag)
    assert name.folded == ModelName.parse(name.full.upper()).folded


@pytest.mark.parametrize(
    ("text", "rest", "is_cloud"),
    [
        (" x ", "x", False),
        ("x:8b", "x:8b", False),
        ("x:local", "x", False),
        ("x:8b:LOCAL", "x:8b", False),
        ("x:Cloud", "x", True),
        ("x:120b-cloud", "x:120b", True),
        ("host:5000/n/local", "host:5000/n/local", False),
    ],
)
def test_the_source_suffix_is_removed(text: str, rest: str, is_cloud: bool) -> None:
    reference = split_source(text)
    assert (reference.text, reference.is_cloud) == (rest, is_cloud)


def test_two_source_suffixes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r'^use either :local or :cloud, not both: "x:cloud:local"'
    ):
        split_source("x:cloud:local")


def test_an_empty_reference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model is required$"):
        split_source("  ")
