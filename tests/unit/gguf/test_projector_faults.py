"""Projectors that the engine library cannot use, by their headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ollama_async.core.errors import BadRequest
from ollama_async.gguf.projector_faults import check_projector, find_audio_fault
from ollama_async.gguf.reader import GgufHeader, TensorInfo, Value
from ollama_async.gguf.summary import summarize
from ollama_async.store.store import Store
from tests.unit.gguf_files import GgufBuilder
from tests.unit.store.store_helpers import created

WIDTH = 32


def header(metadata: dict[str, Value], *tensors: tuple[str, tuple[int, ...]]) -> GgufHeader:
    infos = tuple(TensorInfo(name, 0, shape, 0, 0, 0) for name, shape in tensors)
    return GgufHeader(data_offset=0, metadata=metadata, tensors=infos)


BASE: dict[str, Value] = {"general.architecture": "llama", "llama.embedding_length": WIDTH}


def projector(kind: str, *tensors: tuple[str, tuple[int, ...]], key: str = "") -> GgufHeader:
    name = f"clip.{key}projector_type"
    return header({"general.architecture": "clip", name: kind}, *tensors)


def hearing(kind: str, factor: int, width: int) -> GgufHeader:
    names = {"projector.stack_factor": factor, "embedding_length": width}
    keys: dict[str, Value] = {f"clip.audio.{name}": value for name, value in names.items()}
    declared: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.projector_type": kind,
        "clip.has_audio_encoder": True,
    }
    return header(declared | keys)


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("mlp", "mm.2.weight", (64, WIDTH)),
        ("pixtral", "mm.2.weight", (64, WIDTH)),
        ("qwen2.5vl_merger", "mm.2.bias", (WIDTH,)),
        ("gemma3", "mm.input_projection.weight", (WIDTH, 64)),
        ("idefics3", "mm.model.fc.weight", (64, WIDTH)),
        ("internvl", "mm.model.mlp.3.weight", (64, WIDTH)),
        ("ultravox", "mm.a.mlp.2.weight", (64, WIDTH)),
        ("qwen2a", "mm.a.fc.weight", (64, WIDTH)),
    ],
)
@pytest.mark.parametrize("key", ["", "vision.", "audio."])
def test_embeddings_must_fit_the_base(
    kind: str, name: str, shape: tuple[int, ...], key: str
) -> None:
    check_projector(projector(kind, (name, shape), key=key), header(BASE))
    wide = tuple(96 if each == WIDTH else each for each in shape)
    with pytest.raises(BadRequest, match="its embeddings have 96 dimensions, those of the base"):
        check_projector(projector(kind, (name, wide), key=key), header(BASE))


@pytest.mark.parametrize(
    ("given", "base"),
    [
        (projector("of tomorrow", ("mm.2.weight", (64, 96))), BASE),
        (projector("mlp", ("mm.2.weight", (64, 96)), ("mm.3.weight", (64, 32))), BASE),
        (projector("mlp", ("mm.2.weight", (96,))), BASE),
        (projector("mlp"), BASE),
        (header({"general.architecture": "clip", "clip.projector_type": 7}), BASE),
        (projector("mlp", ("mm.2.weight", (64, 96))), {"general.architecture": "llama"}),
        (projector("mlp", ("mm.2.weight", (64, 96))), BASE | {"llama.n_deepstack_layers": 2}),
    ],
)
def test_what_is_not_known_is_left_to_the_library(
    given: GgufHeader, base: dict[str, Value]
) -> None:
    check_projector(given, header(base))


def test_the_dimension_that_llava_declares_is_not_that_of_its_embeddings() -> None:
    llava = projector("mlp", ("mm.2.weight", (64, WIDTH)))
    llava.metadata["clip.vision.projection_dim"] = 768
    check_projector(llava, header(BASE))


def test_create_refuses_a_projector_of_another_model(
    store: Store, upload: Callable[[bytes], str], gguf: Any, tiny: str
) -> None:
    def file(width: int) -> GgufBuilder:
        builder: GgufBuilder = gguf("clip").text("clip.projector_type", "mlp")
        return builder.tensor("mm.2.weight", [8, width], size=8 * width * 4)

    fits, wide = upload(file(WIDTH).build()), upload(file(96).build())
    with pytest.raises(BadRequest, match="the projector is for another model"):
        created(store, model="m", files={"m.gguf": tiny, "p.gguf": wide})
    created(store, model="m", files={"m.gguf": tiny, "p.gguf": fits})
    with pytest.raises(BadRequest, match="the projector is for another model"):
        created(store, model="n", from_="m", files={"p.gguf": wide})


@pytest.mark.parametrize(
    ("kind", "factor", "width"),
    [
        ("ultravox", 8, 1280),  # as published
        ("ultravox", 4, 32),
        ("ultravox", 1, 1280),
        ("voxtral", 4, 1280),
        ("meralion", 15, 1280),
        ("qwen2a", 8, 32),
    ],
)
def test_models_that_hear(kind: str, factor: int, width: int) -> None:
    assert find_audio_fault(hearing(kind, factor, width)) == ""
    assert summarize(hearing(kind, factor, width)).has_audio


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (8, "counts 187 embeddings for a recording, but makes 188"),
        (4000, "counts 0 embeddings for a recording, but makes 1"),
        (0, "clip.audio.projector.stack_factor is 0"),
    ],
)
def test_models_whose_recordings_end_the_process(factor: int, text: str) -> None:
    assert text in find_audio_fault(hearing("ultravox", factor, 32))
    assert not summarize(hearing("ultravox", factor, 32)).has_audio
