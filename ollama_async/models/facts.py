"""What the server needs to know of a model's file, derived from its GGUF header.

Headers are hostile: a key may be missing, of another type, or absurd. Then the fact is 0, "" or
False, which everywhere means "unknown".
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from ollama_async.models.ggml_types import FILE_TYPES, GUESSED_FLAG, TENSOR_TYPES
from ollama_async.models.gguf import Array, GgufHeader
from ollama_async.models.vocabulary import lack_of

_F16_BYTES = 2
_SILENT_PROJECTORS = ("gemma3nv", "nemotron_h_omni")
_MOST = (1 << 62) - 1  # keeps every number within what JSON, msgpack and C accept

Kind = Literal["model", "adapter", "projector"]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``train_ctx`` in tokens. ``weights_bytes``: the tensors' data.

    ``cache_bytes_per_token``: keys and values of one token in all layers, as f16. It is an upper
    bound where layers look at a window only. Recurrent and encoder models have 0.
    ``chat_template`` is the Jinja text in the file. ``is_split``: one part of several files.
    ``lack``: what a model lacks to be run, in words.
    """

    kind: Kind = "model"
    architecture: str = ""
    parameter_count: int = 0
    quantization: str = ""
    train_ctx: int = 0
    embedding_length: int = 0
    cache_bytes_per_token: int = 0
    weights_bytes: int = 0
    chat_template: str = ""
    is_embedding: bool = False
    has_vision: bool = False
    has_audio: bool = False
    is_split: bool = False
    lack: str = ""


def facts_of(header: GgufHeader) -> ModelFacts:
    """Never fails: what the header does not say is unknown."""
    reader = _Keys(header)
    kind = _kind(reader)
    return ModelFacts(
        kind=kind,
        architecture=reader.architecture,
        parameter_count=min(sum(tensor.elements for tensor in header.tensors), _MOST),
        quantization=_quantization(header),
        train_ctx=reader.count("context_length"),
        embedding_length=reader.count("embedding_length"),
        cache_bytes_per_token=_cache_bytes_per_token(reader),
        weights_bytes=sum(tensor.size for tensor in header.tensors),
        chat_template=reader.text("tokenizer.chat_template"),
        is_embedding=reader.has("pooling_type"),
        has_vision=reader.has("vision.block_count"),
        has_audio=_has_audio(reader),
        is_split=reader.is_split,
        lack=lack_of(header) if kind == "model" and not reader.is_split else "",
    )


class _Keys:
    """The metadata by type; ``<arch>.`` in front is understood except in :meth:`text`."""

    def __init__(self, header: GgufHeader) -> None:
        self._metadata = header.metadata
        self.architecture = self.text("general.architecture")
        parts = header.metadata.get("split.count")
        self.is_split = isinstance(parts, int) and parts > 1

    def text(self, key: str) -> str:
        value = self._metadata.get(key)
        return value if isinstance(value, str) else ""

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def is_true(self, key: str) -> bool:
        return self._metadata.get(f"{self.architecture}.{key}") is True

    def is_false(self, key: str) -> bool:
        return self._metadata.get(f"{self.architecture}.{key}") is False

    def count(self, key: str) -> int:
        """A number that is not negative; of an array (one value per layer) the largest."""
        return max(self.counts(key), default=0)

    def counts(self, key: str) -> list[int]:
        """One number, or one per layer."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        values = value.values if isinstance(value, Array) else (value,)
        return [
            min(max(number, 0), _MOST)
            for number in values
            if isinstance(number, int) and not isinstance(number, bool)
        ]


def _kind(reader: _Keys) -> Kind:
    declared = reader.text("general.type")
    if declared == "adapter":
        return "adapter"
    is_vision_only = reader.has("vision.block_count") and not reader.has("block_count")
    if declared in {"projector", "mmproj"} or reader.architecture == "clip" or is_vision_only:
        return "projector"
    return "model"


def _has_audio(reader: _Keys) -> bool:
    """In the model, or in a projector, but for those whose sound nobody can use."""
    if reader.has("audio.block_count"):
        return True
    kind = reader.text(f"{reader.architecture}.projector_type")
    return reader.is_true("has_audio_encoder") and kind not in _SILENT_PROJECTORS


def _quantization(header: GgufHeader) -> str:
    """The declared file type, else the type of most of the data."""
    declared = header.metadata.get("general.file_type")
    if isinstance(declared, int) and not isinstance(declared, bool):
        return FILE_TYPES.get(declared & ~GUESSED_FLAG, "unknown")
    sizes: Counter[int] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.size
    most = sizes.most_common(1)
    return TENSOR_TYPES[most[0][0]].name if most else "unknown"


def _cache_bytes_per_token(reader: _Keys) -> int:
    heads = reader.count("attention.head_count")
    if not heads or reader.is_false("attention.causal"):
        return 0
    head_length = reader.count("embedding_length") // heads
    key_length = reader.count("attention.key_length") or head_length
    value_length = reader.count("attention.value_length") or head_length
    bytes_per_token = _kv_heads(reader) * (key_length + value_length) * _F16_BYTES
    return min(bytes_per_token, _MOST)


def _kv_heads(reader: _Keys) -> int:
    """KV heads of all layers together; layers without attention have none."""
    per_layer = reader.counts("attention.head_count_kv") or reader.counts("attention.head_count")
    if len(per_layer) > 1:
        return sum(per_layer)
    layers = reader.count("block_count")
    # Hybrids such as qwen3next attend in every n-th layer; the others are recurrent.
    layers //= reader.count("full_attention_interval") or 1
    return per_layer[0] * layers if per_layer else 0
