"""Estimates how much memory a model needs to run, from the shapes of its tensors.

Metadata counts only where the engine library also allocates by it. Other claims of an untrusted
file must not make the estimate smaller than the allocation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ollama_async.core.model_shape import ModelShape
from ollama_async.gguf.metadata import MAX_COUNT, TypedMetadata
from ollama_async.gguf.reader import TensorInfo

_F16_BYTES = 2
_F32_BYTES = 4

_LIVE_OUTPUTS = 2
"""Multiple of a layer's matrix outputs in memory at a time. At most 1.5 was measured, where gate,
up and their product are the largest."""

_WITHOUT_FUSED_ATTENTION = frozenset({"grok"})
_INDEXED = frozenset(
    {
        *("token_embd.weight", "output.weight", "per_layer_token_embd.weight"),
        *("position_embd.weight", "token_types.weight"),
    }
)
"""Matrices with a row for each token, or position: their number is not a width."""

_Layer = dict[str, TensorInfo]


def cache_bytes_per_token(metadata: TypedMetadata, tensors: Sequence[TensorInfo]) -> int:
    """KV cache of one token in all layers, as f16: from the matrices that compute keys and values,
    or from the metadata if there are none.
    """
    layers = _layers(tensors)
    computed = [_cached_values(layer) for layer in layers.values()]
    values = sum(computed)
    if not values or any("attn_kv_b.weight" in layer for layer in layers.values()):
        values = max(values, _declared_values(metadata))
    return min(values * _F16_BYTES, MAX_COUNT)


def shape_of(metadata: TypedMetadata, tensors: Sequence[TensorInfo]) -> ModelShape:
    """Never fails; missing values are 0."""
    named = {tensor.name: tensor for tensor in tensors}
    layers = _layers(tensors)
    embeddings = named.get("token_embd.weight")
    heads = metadata.count("attention.head_count")
    is_repeated = embeddings is not None and "output.weight" not in named
    attends = any(map(_cached_values, layers.values()))
    return ModelShape(
        repeated_bytes=embeddings.size if embeddings is not None and is_repeated else 0,
        state_bytes=min(_state_values(metadata, len(layers)) * _F32_BYTES, MAX_COUNT),
        row_bytes=min(_row_values(metadata, layers, tensors) * _F32_BYTES, MAX_COUNT),
        vocab_size=min(_outputs(embeddings), MAX_COUNT),
        masks=attends + (attends and metadata.has("attention.sliding_window")),
        heads=heads,
        head_length=_head_length(metadata, heads),
        scored_heads=heads
        if metadata.architecture in _WITHOUT_FUSED_ATTENTION
        else metadata.count("attention.indexer.head_count"),
    )


def _layers(tensors: Iterable[TensorInfo]) -> dict[str, _Layer]:
    """The tensors of each ``blk.N``, by the rest of their names."""
    layers: defaultdict[str, _Layer] = defaultdict(dict)
    for tensor in tensors:
        block, number, rest = [*tensor.name.split(".", 2), "", ""][:3]
        if block == "blk":
            layers[number][rest] = tensor
    return layers


def _cached_values(layer: _Layer) -> int:
    """KV cache values of one token in the layer; 0 if it has no attention or is recurrent."""
    key = layer.get("attn_k.weight")
    if key is not None:
        value = layer.get("attn_v.weight", key)  # some layers use their keys as values
        return _outputs(key) + _outputs(value)
    if latent := layer.get("attn_kv_a_mqa.weight"):
        return 2 * _outputs(latent)
    joined = layer.get("attn_qkv.weight")
    if joined is None or any(name.startswith("ssm_") for name in layer):
        return 0
    queries = _inputs(layer.get("attn_output.weight"))
    return max(0, _outputs(joined) - queries)


def _declared_values(metadata: TypedMetadata) -> int:
    heads = metadata.count("attention.head_count")
    if not heads:
        return 0
    head_length = metadata.count("embedding_length") // heads
    key_length = metadata.count("attention.key_length") or head_length
    value_length = metadata.count("attention.value_length") or head_length
    return _declared_kv_heads(metadata) * (key_length + value_length)


def _declared_kv_heads(metadata: TypedMetadata) -> int:
    """KV heads of all layers together; layers without attention have none."""
    per_layer = metadata.counts("attention.head_count_kv") or metadata.counts(
        "attention.head_count"
    )
    if len(per_layer) > 1:
        return sum(per_layer)
    layers = metadata.count("block_count")
    # Hybrids such as qwen3next attend in every n-th layer; the others are recurrent.
    layers //= metadata.count("full_attention_interval") or 1
    return per_layer[0] * layers if per_layer else 0


def _state_values(metadata: TypedMetadata, layers: int) -> int:
    """State values of one sequence, as if all layers were recurrent."""
    width, heads = metadata.count("embedding_length"), metadata.count("attention.head_count")
    inner, state = metadata.count("ssm.inner_size"), metadata.count("ssm.state_size")
    kernel, groups = metadata.count("ssm.conv_kernel"), metadata.count("ssm.group_count")
    wkv, kda = metadata.count("wkv.head_size"), metadata.count("kda.head_dim")
    convolution = max(
        max(0, kernel - 1) * (inner + 2 * groups * state),
        max(0, metadata.count("shortconv.l_cache") - 1) * width,
        3 * max(3, kernel - 1) * heads * kda,
        (metadata.count("token_shift_count") or 2) * width if wkv else 0,
    )
    linear = _head_length(metadata, heads) if metadata.architecture == "minimax-01" else 0
    recurrence = max(state * inner, width * wkv, kda * kda * heads, linear * linear * heads)
    return layers * (convolution + recurrence)


def _row_values(
    metadata: TypedMetadata, layers: dict[str, _Layer], tensors: Iterable[TensorInfo]
) -> int:
    """Values per token of a batch, in the largest layer and outside the layers."""
    experts_used = metadata.count("expert_used_count")
    largest = max((_layer_outputs(layer, experts_used) for layer in layers.values()), default=0)
    outside = sum(
        _inputs(tensor) if tensor.name in _INDEXED else _outputs(tensor)
        for tensor in tensors
        if not tensor.name.startswith("blk.") and len(tensor.shape) > 1
    )
    return _LIVE_OUTPUTS * (largest + outside)


def _layer_outputs(layer: _Layer, experts_used: int) -> int:
    """Outputs of a layer's matrices per token, with only the experts that a token uses."""
    total = 0
    for tensor in layer.values():
        if len(tensor.shape) == 2:
            total += _outputs(tensor)
        elif len(tensor.shape) == 3:
            experts = tensor.shape[2]
            total += _outputs(tensor) * (min(experts_used, experts) or experts)
    return total


def _head_length(metadata: TypedMetadata, heads: int) -> int:
    return metadata.count("attention.key_length") or (
        metadata.count("embedding_length") // heads if heads else 0
    )


def _inputs(tensor: TensorInfo | None) -> int:
    return tensor.shape[0] if tensor is not None and tensor.shape else 0


def _outputs(tensor: TensorInfo | None) -> int:
    return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else 0
