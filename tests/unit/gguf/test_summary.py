from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api.ollama_models import format_parameter_count
from ollama_async.core.model_shape import ModelShape
from ollama_async.gguf.reader import Array, GgufHeader, TensorInfo, Value, read_header
from ollama_async.gguf.summary import GgufSummary, summarize


def summarized(metadata: dict[str, Value], *tensors: TensorInfo) -> GgufSummary:
    return summarize(GgufHeader(0, metadata, tensors))


def attention(**more: Value) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "block_count": 4,
        "embedding_length": 64,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
    }
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    return {"general.architecture": "a", **{f"a.{key}": value for key, value in keys.items()}}


def test_summary_of_a_small_file(tmp_path: Path, tiny_gguf: Any) -> None:
    path = tiny_gguf(tokenizer__chat_template="{{ messages }}").write(tmp_path / "tiny.gguf")
    assert summarize(read_header(path)) == GgufSummary(
        kind="model",
        architecture="llama",
        parameter_count=96,
        quantization="F32",
        train_ctx=512,
        embedding_length=32,
        cache_bytes_per_token=2 * 2 * (8 + 8) * 2,
        weights_bytes=384,
        chat_template="{{ messages }}",
        shape=ModelShape(
            repeated_bytes=256, row_bytes=2 * 32 * 4, vocab_size=2, heads=4, head_length=8
        ),
    )


def test_the_cache_of_a_plain_transformer() -> None:
    assert summarized(attention()).cache_bytes_per_token == 4 * 2 * (8 + 8) * 2


def test_the_cache_without_kv_heads_has_all_heads() -> None:
    metadata = attention()
    del metadata["a.attention.head_count_kv"]
    assert summarized(metadata).cache_bytes_per_token == 4 * 8 * (8 + 8) * 2


def test_the_cache_with_its_own_head_sizes() -> None:
    metadata = attention(attention__key_length=192, attention__value_length=128)
    assert summarized(metadata).cache_bytes_per_token == 4 * 2 * (192 + 128) * 2


def test_the_cache_of_layers_that_differ() -> None:
    metadata = attention(attention__head_count_kv=Array(4, (0, 2, 0, 4)))
    assert summarized(metadata).cache_bytes_per_token == (2 + 4) * (8 + 8) * 2


def test_the_cache_of_a_hybrid_that_attends_in_every_fourth_layer() -> None:
    assert summarized(attention(full_attention_interval=4)).cache_bytes_per_token == 2 * 16 * 2


def test_a_model_without_attention_has_no_cache_per_token() -> None:
    assert summarized(attention(attention__head_count=0)).cache_bytes_per_token == 0
    assert summarized({"general.architecture": "mamba", "mamba.block_count": 9}).train_ctx == 0


def test_the_quantization_is_the_declared_file_type() -> None:
    assert summarized({"general.file_type": 15}).quantization == "Q4_K_M"
    assert summarized({"general.file_type": 1024 + 7}).quantization == "Q8_0"
    assert summarized({"general.file_type": 999}).quantization == "unknown"


def test_an_undeclared_quantization_is_the_type_of_most_data() -> None:
    tensors = [TensorInfo("a", 0, (8,), 8, 0, 32), TensorInfo("b", 2, (512,), 512, 32, 288)]
    assert summarized({}, *tensors).quantization == "Q4_0"
    assert summarized({}).quantization == "unknown"


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"general.architecture": "llama"}, "model"),
        ({"general.architecture": "llama", "general.type": "adapter"}, "adapter"),
        ({"general.architecture": "clip"}, "projector"),
        ({"general.architecture": "x", "general.type": "mmproj"}, "projector"),
        ({"general.architecture": "x", "x.vision.block_count": 2}, "projector"),
        ({"general.architecture": "x", "x.vision.block_count": 2, "x.block_count": 2}, "model"),
    ],
)
def test_what_kind_of_file_it_is(metadata: dict[str, Value], kind: str) -> None:
    assert summarized(metadata).kind == kind


def test_modalities_come_from_their_keys() -> None:
    keys = {"x.pooling_type": 1, "x.vision.block_count": 1, "x.audio.block_count": 1}
    found = summarized({"general.architecture": "x", **keys})
    assert (found.is_embedding, found.has_vision, found.has_audio) == (True, True, True)


@pytest.mark.parametrize(
    ("architecture", "keys", "kind"),
    [
        ("bert", {}, "encoder"),
        ("nomic-bert", {"pooling_type": 1}, "encoder"),
        ("qwen3", {"pooling_type": 3}, "split"),
        ("qwen3", {"pooling_type": 4}, "split"),
        ("qwen3", {"pooling_type": 4, "classifier.pooling_type": 1}, "whole"),
        ("qwen3", {"pooling_type": 3, "attention.causal": False}, "whole"),
        ("qwen3", {"pooling_type": 3, "attention.causal": True}, "split"),
        ("qwen3", {"pooling_type": 1}, "whole"),
        ("qwen3", {}, ""),
    ],
)
def test_encoders_embed_and_have_no_cache(
    architecture: str, keys: dict[str, Value], kind: str
) -> None:
    numbers = {"block_count": 2, "embedding_length": 32, "attention.head_count": 4}
    metadata = {f"{architecture}.{key}": value for key, value in (numbers | keys).items()}
    found = summarized({"general.architecture": architecture, **metadata})
    assert (found.embedding, found.is_embedding) == (kind, kind != "")
    assert (found.cache_bytes_per_token > 0) == (kind != "encoder")


@given(
    st.dictionaries(
        st.sampled_from(
            ["general.architecture", "general.file_type", "tokenizer.chat_template", *attention()]
        ),
        st.one_of(
            st.integers(-(2**63), 2**64 - 1),
            st.floats(),
            st.booleans(),
            st.just("a"),
            st.lists(st.integers(-(2**63), 2**64 - 1), max_size=3).map(
                lambda values: Array(len(values), tuple(values))
            ),
        ),
    )
)
def test_absurd_values_never_fail_and_stay_in_range(metadata: dict[str, Value]) -> None:
    found = summarized({"general.architecture": "a", **metadata})
    for number in (found.cache_bytes_per_token, found.train_ctx, found.embedding_length):
        assert 0 <= number < 2**62


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (260_000, "260K"),
        (137_000_000, "137M"),
        (22_566_000, "22.57M"),
        (8_000_000_000, "8B"),
        (8_030_000_000, "8.0B"),
        (1_235_814_432, "1.2B"),
    ],
)
def test_big_numbers_are_shown_as_ollama_does(value: int, text: str) -> None:
    assert format_parameter_count(value) == text
