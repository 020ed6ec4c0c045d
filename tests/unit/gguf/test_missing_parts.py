"""Files that cannot be run are refused by the name of what they lack, and others are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ollama_async.api.ollama_models import CreateRequest
from ollama_async.core.errors import BadRequest
from ollama_async.core.model_names import ModelName
from ollama_async.create.builder import create_model
from ollama_async.gocompat.json_encode import encode_line
from ollama_async.store.manifests import Config, Layer, Manifest, Manifests
from ollama_async.store.store import Store
from tests.unit.gguf_files import GgufBuilder, build_tiny, tiny_adapter
from tests.unit.store.store_helpers import MODEL, created, list_models

KIND, TOKENS = "tokenizer.ggml.model", "tokenizer.ggml.tokens"


Build = Callable[[], GgufBuilder]


def model() -> GgufBuilder:
    """Weights for two tokens, and no vocabulary."""
    return GgufBuilder().tensor("token_embd.weight", [32, 2], size=256)


LACKING: list[tuple[Build, str]] = [
    (model, f"no vocabulary: '{KIND}' is missing"),
    (lambda: model().texts(TOKENS, ["a", "b"]), f"no vocabulary: '{KIND}' is missing"),
    (lambda: model().text(KIND, "none"), f"no vocabulary: '{KIND}' is 'none'"),
    (
        lambda: model().text(KIND, "no_vocab").number("llama.vocab_size", "u32", 2),
        f"no vocabulary: '{KIND}' is 'no_vocab'",
    ),
    (lambda: model().text(KIND, ""), f"no vocabulary: '{KIND}' is ''"),
    (lambda: model().number(KIND, "u32", 7), f"no vocabulary: '{KIND}' is '7'"),
    (lambda: model().text(KIND, "gpt2"), f"no vocabulary: '{TOKENS}' is missing"),
    (lambda: model().text(KIND, "gpt2").texts(TOKENS, []), f"no vocabulary: '{TOKENS}' is empty"),
    (
        lambda: model().text(KIND, "gpt2").text(TOKENS, "a b"),
        f"no vocabulary: '{TOKENS}' is not a list of texts",
    ),
    (
        lambda: model().text(KIND, "gpt2").numbers(TOKENS, "u32", [1, 2]),
        f"no vocabulary: '{TOKENS}' is not a list of texts",
    ),
    (
        lambda: model().text(KIND, "gpt2").texts(TOKENS, ["a", "b", "c"]),
        (
            "no weights that fit its vocabulary: 'token_embd.weight' has the shape [32, 2], "
            "for 3 tokens"
        ),
    ),
    (
        lambda: GgufBuilder().text(KIND, "gpt2").texts(TOKENS, ["a"]),
        "no weights: it has no tensors, only a vocabulary",
    ),
    (GgufBuilder, "no weights: it has no tensors"),
    (
        lambda: (
            model()
            .text(KIND, "gpt2")
            .texts(TOKENS, ["a", "b"])
            .tensor("v.blk.0.attn_q.weight", [32, 2], size=256)
        ),
        (
            "text and vision together, as models of Ollama's library do; the engine reads vision"
            " only from a projector file of its own"
        ),
    ),
]


@pytest.fixture
def planted(store: Store, upload: Callable[[bytes], str]) -> Callable[[bytes], str]:
    """Puts a model into the store that was made by another program, or by an earlier release."""

    def plant(data: bytes) -> str:
        digest = upload(data)
        config = encode_line(Config(model_format="gguf"))
        manifest = Manifest(
            config=Layer(
                "application/vnd.docker.container.image.v1+json", upload(config), len(config)
            ),
            layers=[Layer(MODEL, digest, len(data))],
        )
        Manifests(store.root).write(ModelName.parse("planted"), encode_line(manifest))
        return "planted"

    return plant


@pytest.mark.parametrize(("build", "lack"), LACKING)
def test_an_incomplete_model_is_rejected_with_its_missing_part(
    store: Store, upload: Callable[[bytes], str], build: Build, lack: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        created(store, model="m", files={"m.gguf": upload(build().build())})
    assert caught.value.message == f'file "m.gguf" has {lack}'
    assert list_models(store) == []


def test_it_is_refused_before_it_is_quantized(store: Store, upload: Callable[[bytes], str]) -> None:
    files = {"m.gguf": upload(model().build())}
    statuses = create_model(store, CreateRequest(model="m", files=files, quantize="q8_0"))
    assert next(statuses) == {"status": "parsing GGUF"}
    with pytest.raises(BadRequest, match="no vocabulary"):
        next(statuses)


@pytest.mark.parametrize("more", [{}, {"quantize": "q8_0"}])
def test_a_model_of_the_store_that_cannot_be_run_is_no_base(
    store: Store, planted: Callable[[bytes], str], more: dict[str, str]
) -> None:
    name = planted(model().build())
    with pytest.raises(BadRequest, match="has no vocabulary"):
        created(store, model="m", from_=name, **more)
    assert store.find(name).summary.missing_part  # it can still be shown, copied and deleted


def test_projectors_and_adapters_need_none(store: Store, upload: Callable[[bytes], str]) -> None:
    projector = GgufBuilder("clip").tensor("v.patch_embd.weight", [32, 2], size=256).build()
    base = build_tiny().tensor("output.weight", [32, 2], size=256).build()
    files = {"m.gguf": upload(base), "p.gguf": upload(projector)}
    created(store, model="m", files=files, adapters={"a.gguf": upload(tiny_adapter().build())})
    model = store.find("m")
    assert (len(model.projectors), len(model.adapters), model.summary.missing_part) == (1, 1, "")
