"""Memory follows from the shapes of tensors, whatever the metadata claims."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ollama_async.gguf.reader import GgufHeader, TensorInfo
from ollama_async.gguf.summary import summarize

KV_BYTES = 2


def tensor(name: str, *shape: int) -> TensorInfo:
    elements = 1
    for size in shape:
        elements *= size
    return TensorInfo(name, 0, shape, elements, 0, 4 * elements)


def summarized(*tensors: TensorInfo, architecture: str = "a", **keys: Any) -> Any:
    metadata = {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
    metadata["general.architecture"] = architecture
    return summarize(GgufHeader(0, metadata, tensors))


def attention(number: int = 0, *, keys: int = 8, values: int = 4) -> list[TensorInfo]:
    return [
        tensor(f"blk.{number}.attn_q.weight", 64, 64),
        tensor(f"blk.{number}.attn_k.weight", 64, keys),
        tensor(f"blk.{number}.attn_v.weight", 64, values),
        tensor(f"blk.{number}.attn_output.weight", 64, 64),
    ]


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"attention__causal": False},
        {"full_attention_interval": 99},
        {"attention__head_count": 4, "attention__head_count_kv": 0, "block_count": 1},
        {"attention__head_count": 0},
    ],
)
def test_the_cache_is_what_the_matrices_make(claims: dict[str, Any]) -> None:
    layers = [*attention(0), *attention(1)]
    assert summarized(*layers, **claims).cache_bytes_per_token == 2 * (8 + 4) * KV_BYTES


@pytest.mark.parametrize(
    ("layer", "values"),
    [
        ([("attn_k.weight", (64, 8))], 16),
        ([("attn_qkv.weight", (64, 96)), ("attn_output.weight", (64, 64))], 32),
        ([("attn_qkv.weight", (64, 96))], 96),
        ([("attn_qkv.weight", (64, 96)), ("ssm_out.weight", (64, 64))], 0),
        ([("attn_kv_a_mqa.weight", (64, 20)), ("attn_q.weight", (64, 64))], 40),
        ([("ssm_in.weight", (64, 96))], 0),
    ],
    ids=["shared", "joined", "joined, no output", "recurrent", "latent", "mamba"],
)
def test_each_kind_of_layer_has_its_cache(layer: list[Any], values: int) -> None:
    tensors = [tensor(f"blk.0.{name}", *shape) for name, shape in layer]
    assert summarized(*tensors).cache_bytes_per_token == values * KV_BYTES


def test_unfolded_latent_attention_has_its_declared_size() -> None:
    tensors = [
        tensor("blk.0.attn_kv_a_mqa.weight", 64, 20),
        tensor("blk.0.attn_kv_b.weight", 16, 9),
    ]
    found = summarized(
        *tensors,
        block_count=1,
        attention__head_count=16,
        attention__key_length=24,
        attention__value_length=16,
    )
    assert found.cache_bytes_per_token == 16 * (24 + 16) * KV_BYTES


def test_rows_are_as_wide_as_the_largest_layer() -> None:
    dense = tensor("blk.1.ffn_up.weight", 64, 1000)
    small, large = summarized(*attention(0)).shape, summarized(*attention(0), dense).shape
    assert large.row_bytes >= 1000 * 4 > small.row_bytes > 0


@pytest.mark.parametrize(("used", "counted"), [(2, 2), (0, 16), (999, 16)])
def test_of_experts_those_count_that_a_token_goes_through(used: int, counted: int) -> None:
    experts = tensor("blk.0.ffn_up_exps.weight", 64, 100, 16)
    assert summarized(experts, expert_used_count=used).shape.row_bytes == 2 * 4 * 100 * counted


def test_embeddings_that_are_the_output_too_count_twice() -> None:
    embeddings, output = tensor("token_embd.weight", 64, 500), tensor("output.weight", 64, 500)
    assert summarized(embeddings).shape.repeated_bytes == 64 * 500 * 4
    assert summarized(embeddings, output).shape.repeated_bytes == 0
    assert summarized(embeddings).shape.vocab_size == 500


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ({"ssm__conv_kernel": 4, "ssm__inner_size": 32, "ssm__state_size": 8}, 3 * 32 + 32 * 8),
        ({"wkv__head_size": 16, "embedding_length": 64}, 2 * 64 + 64 * 16),
        ({"shortconv__l_cache": 3, "embedding_length": 64}, 2 * 64),
    ],
)
def test_recurrent_layers_remember_a_state(keys: dict[str, int], values: int) -> None:
    layers = [tensor("blk.0.ssm_in.weight", 1, 1), tensor("blk.1.ssm_in.weight", 1, 1)]
    assert summarized(*layers, **keys).shape.state_bytes == 2 * values * 4


def test_each_kind_of_attention_has_a_mask() -> None:
    recurrent = tensor("blk.0.ssm_in.weight", 64, 96)
    assert summarized(recurrent, attention__sliding_window=512).shape.masks == 0
    assert summarized(*attention()).shape.masks == 1
    assert summarized(*attention(), attention__sliding_window=512).shape.masks == 2


def test_where_nothing_fuses_attention_its_scores_count() -> None:
    assert summarized(attention__head_count=8).shape.scored_heads == 0
    assert summarized(attention__head_count=8, architecture="grok").shape.scored_heads == 8
    assert summarized(attention__indexer__head_count=64).shape.scored_heads == 64


NAMES = [
    "token_embd.weight",
    "output.weight",
    "rope_freqs.weight",
    *(f"blk.0.{part}.weight" for part in ("attn_k", "attn_v", "attn_qkv", "attn_output")),
    *(f"blk.0.{part}.weight" for part in ("attn_kv_a_mqa", "attn_kv_b", "ffn_up_exps", "ssm_in")),
    *("blk", "blk.", "blk.x", "blk.1", "..", ""),
]
KEYS = [
    *("attention.head_count", "attention.key_length", "embedding_length", "expert_used_count"),
    *("ssm.inner_size", "ssm.state_size", "wkv.head_size", "kda.head_dim", "block_count"),
]
LARGE = st.integers(-5, 1 << 63)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.lists(st.integers(0, 1 << 62), max_size=4))),
    st.dictionaries(st.sampled_from(KEYS), st.one_of(LARGE, st.text(), st.booleans())),
    st.sampled_from(["a", "grok", "minimax-01"]),
)
@example([("token_embd.weight", [0, 1 << 62])], {}, "a")
def test_no_shape_and_no_claim_fails_or_makes_a_number_that_cannot_travel(
    tensors: Any, keys: Any, architecture: str
) -> None:
    made = [TensorInfo(name, 0, tuple(shape), 1, 0, 4) for name, shape in tensors]
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    metadata["general.architecture"] = architecture
    found = summarize(GgufHeader(0, metadata, tuple(made)))
    shape = found.shape
    for number in (
        *(found.cache_bytes_per_token, shape.state_bytes, shape.row_bytes, shape.vocab_size),
        *(shape.heads, shape.head_length, shape.scored_heads, shape.repeated_bytes),
    ):
        assert 0 <= number < 1 << 62
