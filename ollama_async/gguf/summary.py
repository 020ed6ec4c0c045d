"""Summarizes the header of a GGUF file for the server.

Headers are untrusted: a key may be missing or invalid. Then the value is 0, "" or False, which
means "unknown" everywhere.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from ollama_async.core.model_shape import EmbeddingKind, ModelShape
from ollama_async.gguf.compatibility import find_missing_part
from ollama_async.gguf.memory_shape import cache_bytes_per_token, shape_of
from ollama_async.gguf.metadata import MAX_COUNT, TypedMetadata
from ollama_async.gguf.projector_faults import find_audio_fault
from ollama_async.gguf.reader import GgufHeader
from ollama_async.gguf.types import FILE_TYPES, GUESSED_FLAG, TENSOR_TYPES

ENCODERS = frozenset(
    {
        *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert"),
        *("eurobert", "modern-bert", "gemma-embedding"),
    }
)
"""Architectures that only embed, for which the engine library makes no KV cache."""

_MEAN, _LAST = 1, (3, 4)
"""Values of ``pooling_type``: the mean of all tokens; the last one, or a classifier of the last."""

_UNSUPPORTED_AUDIO = ("gemma3nv", "nemotron_h_omni")

GgufKind = Literal["model", "adapter", "projector"]


class GgufSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``train_ctx`` in tokens. ``weights_bytes``: the tensors' data.

    ``cache_bytes_per_token``: KV cache in all layers, as f16; an upper bound with attention
    windows, 0 for recurrent models and encoders. ``shape``: the other memory. ``chat_template``:
    the Jinja text. ``embedding``: how it embeds or ranks, if it does. ``is_split``: one
    part of several files. ``missing_part``: see :func:`.find_missing_part`.
    """

    kind: GgufKind = "model"
    architecture: str = ""
    parameter_count: int = 0
    quantization: str = ""
    train_ctx: int = 0
    embedding_length: int = 0
    cache_bytes_per_token: int = 0
    weights_bytes: int = 0
    chat_template: str = ""
    embedding: EmbeddingKind = ""
    has_vision: bool = False
    has_audio: bool = False
    is_split: bool = False
    missing_part: str = ""
    shape: ModelShape = ModelShape()

    @property
    def is_embedding(self) -> bool:
        return bool(self.embedding)


def summarize(header: GgufHeader) -> GgufSummary:
    """Never fails."""
    metadata = TypedMetadata(header)
    kind = _kind(metadata)
    return GgufSummary(
        kind=kind,
        architecture=metadata.architecture,
        parameter_count=min(sum(tensor.elements for tensor in header.tensors), MAX_COUNT),
        quantization=_quantization(header),
        train_ctx=metadata.count("context_length"),
        embedding_length=metadata.count("embedding_length"),
        cache_bytes_per_token=0
        if metadata.architecture in ENCODERS
        else cache_bytes_per_token(metadata, header.tensors),
        weights_bytes=sum(tensor.size for tensor in header.tensors),
        chat_template=metadata.text("tokenizer.chat_template"),
        embedding=_embedding(metadata),
        has_vision=metadata.has("vision.block_count"),
        has_audio=_has_audio(metadata) and not find_audio_fault(header),
        is_split=metadata.is_split,
        missing_part=find_missing_part(header) if kind == "model" and not metadata.is_split else "",
        shape=shape_of(metadata, header.tensors),
    )


def _kind(metadata: TypedMetadata) -> GgufKind:
    declared = metadata.text("general.type")
    if declared == "adapter":
        return "adapter"
    is_vision_only = metadata.has("vision.block_count") and not metadata.has("block_count")
    if declared in {"projector", "mmproj"} or metadata.architecture == "clip" or is_vision_only:
        return "projector"
    return "model"


def _embedding(metadata: TypedMetadata) -> EmbeddingKind:
    """An input may be split if no token attends to a later one, and only the last one counts."""
    if metadata.architecture in ENCODERS:
        return "encoder"
    if not metadata.has("pooling_type"):
        return ""
    is_causal = not metadata.has("attention.causal") or metadata.is_true("attention.causal")
    counts_last = metadata.count("pooling_type") in _LAST
    is_averaged = metadata.count("classifier.pooling_type") == _MEAN
    return "split" if is_causal and counts_last and not is_averaged else "whole"


def _has_audio(metadata: TypedMetadata) -> bool:
    """Whether a model or projector has audio that the engine can use."""
    if metadata.has("audio.block_count"):
        return True
    kind = metadata.text(f"{metadata.architecture}.projector_type")
    return metadata.is_true("has_audio_encoder") and kind not in _UNSUPPORTED_AUDIO


def _quantization(header: GgufHeader) -> str:
    """The declared file type, or the type of most of the data."""
    declared = header.metadata.get("general.file_type")
    if isinstance(declared, int) and not isinstance(declared, bool):
        return FILE_TYPES.get(declared & ~GUESSED_FLAG, "unknown")
    sizes: Counter[int] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.size
    most = sizes.most_common(1)
    return TENSOR_TYPES[most[0][0]].name if most else "unknown"
