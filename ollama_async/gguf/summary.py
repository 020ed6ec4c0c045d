"""What the server needs to know of a model's file, derived from its GGUF header.

Headers are hostile: a key may be missing, of another type, or absurd. Then the fact is 0, "" or
False, which everywhere means "unknown".
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from ollama_async.core.model_shape import ModelShape
from ollama_async.gguf.keys import MOST, Keys
from ollama_async.gguf.memory_shape import cache_bytes_per_token, shape_of
from ollama_async.gguf.reader import GgufHeader
from ollama_async.gguf.types import FILE_TYPES, GUESSED_FLAG, TENSOR_TYPES
from ollama_async.gguf.vocabulary import lack_of

_SILENT_PROJECTORS = ("gemma3nv", "nemotron_h_omni")

Kind = Literal["model", "adapter", "projector"]


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """``train_ctx`` in tokens. ``weights_bytes``: the tensors' data.

    ``cache_bytes_per_token``: keys and values of one token in all layers, as f16. It is an upper
    bound where layers look at a window only. Recurrent models have 0. ``shape``: what else takes
    memory.
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
    shape: ModelShape = ModelShape()


def facts_of(header: GgufHeader) -> ModelFacts:
    """Never fails: what the header does not say is unknown."""
    reader = Keys(header)
    kind = _kind(reader)
    return ModelFacts(
        kind=kind,
        architecture=reader.architecture,
        parameter_count=min(sum(tensor.elements for tensor in header.tensors), MOST),
        quantization=_quantization(header),
        train_ctx=reader.count("context_length"),
        embedding_length=reader.count("embedding_length"),
        cache_bytes_per_token=cache_bytes_per_token(reader, header.tensors),
        weights_bytes=sum(tensor.size for tensor in header.tensors),
        chat_template=reader.text("tokenizer.chat_template"),
        is_embedding=reader.has("pooling_type"),
        has_vision=reader.has("vision.block_count"),
        has_audio=_has_audio(reader),
        is_split=reader.is_split,
        lack=lack_of(header) if kind == "model" and not reader.is_split else "",
        shape=shape_of(reader, header.tensors),
    )


def _kind(reader: Keys) -> Kind:
    declared = reader.text("general.type")
    if declared == "adapter":
        return "adapter"
    is_vision_only = reader.has("vision.block_count") and not reader.has("block_count")
    if declared in {"projector", "mmproj"} or reader.architecture == "clip" or is_vision_only:
        return "projector"
    return "model"


def _has_audio(reader: Keys) -> bool:
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
