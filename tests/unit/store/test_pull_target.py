"""What is pulled gets its name only if it could be run, or is none of our business."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ollama_async.core.errors import LoadFailed, NotFound
from ollama_async.core.model_names import ModelName
from ollama_async.gocompat.json_encode import encode_line
from ollama_async.store.manifests import (
    CONFIG_TYPE,
    TEXT_LIMIT_BYTES,
    Layer,
    Manifest,
    layer_type,
)
from ollama_async.store.store import Store
from ollama_async.store.transfers import PullTarget
from tests.unit.gguf_files import GgufBuilder, build_tiny, tiny_adapter, tiny_with_output

NAME = ModelName.parse("m")
Arrive = Callable[..., Manifest]


@pytest.fixture
def arrive(store: Store, upload: Callable[[bytes], str]) -> Arrive:
    """Publishes a model of layers, each with its kind before it, and a config."""

    def publish(*layers: tuple[str, bytes], config: bytes = b'{"model_format":"gguf"}') -> Manifest:
        manifest = Manifest(
            config=Layer(CONFIG_TYPE, upload(config), len(config)),
            layers=[Layer(layer_type(kind), upload(data), len(data)) for kind, data in layers],
        )
        PullTarget(store.layout).publish(NAME, encode_line(manifest), manifest)
        return manifest

    return publish


@pytest.mark.parametrize(
    "layers",
    [
        [("model", build_tiny().build()), ("template", b"{{ .Prompt }}"), ("license", b"MIT")],
        [("model", tiny_with_output().build()), ("adapter", tiny_adapter().build())],
        [("model", build_tiny().build()), ("projector", b"of an old format")],
        [("model", build_tiny().build()), ("draft", build_tiny().build())],
        [("model", build_tiny().build()), ("something.new", b"?")],
        [("tensor", b"of a model for others"), ("json", b"{}")],
    ],
)
def test_a_sound_model_gets_its_name(
    store: Store, arrive: Arrive, layers: list[tuple[str, bytes]]
) -> None:
    arrive(*layers)
    assert (store.root / "manifests" / NAME.manifest_path).exists()


def test_what_another_server_runs_passes(store: Store, arrive: Arrive) -> None:
    arrive(config=b'{"remote_host":"https://ollama.com","remote_model":"big"}')
    assert (store.root / "manifests" / NAME.manifest_path).exists()


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([("model", b"")], "is broken: supplied file was not in GGUF format"),
        ([("model", build_tiny().build()[:-1])], r"is broken: .*\(truncated\?\)"),
        ([("model", GgufBuilder().build())], "has no weights: it has no tensors"),
        (
            [("model", build_tiny().build()), ("model", b"GGUF")],
            "is broken: invalid GGUF file: the version goes past the end",
        ),
        ([("model", build_tiny().build()), ("draft", b"GGUF")], "is broken: invalid GGUF"),
        (
            [("model", build_tiny().build()), ("adapter", tiny_adapter().build())],
            "is broken: the adapter changes 'output.weight', which the base model does not have",
        ),
        (
            [("model", build_tiny().build()), ("params", b"[")],
            "is broken: its params layer is not valid",
        ),
        (
            [("model", build_tiny().build()), ("system", bytes(TEXT_LIMIT_BYTES + 1))],
            "is broken: sha256-.* is larger than 1048576 bytes",
        ),
    ],
)
def test_a_broken_model_gets_none_and_the_old_one_stays(
    store: Store, arrive: Arrive, layers: list[tuple[str, bytes]], reason: str
) -> None:
    with pytest.raises(LoadFailed, match=rf"^the pulled model 'm:latest' {reason}") as caught:
        arrive(*layers)
    assert str(store.root) not in str(caught.value)
    with pytest.raises(NotFound):
        store.find("m")
    arrive(("model", build_tiny().build()))
    with pytest.raises(LoadFailed):
        arrive(*layers)
    assert store.find("m")
