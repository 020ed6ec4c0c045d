"""Converts a directory of safetensors into one GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf import PoolingType

from ollama_async.convert.added_tokens import added_fields
from ollama_async.convert.architectures import ModelArchitecture, find_architecture
from ollama_async.convert.config_files import Files, JsonObject, read_json, read_object
from ollama_async.convert.gguf_writer import FILE_TYPES, FloatType, write
from ollama_async.convert.safetensors import Weights
from ollama_async.convert.special_tokens import special_fields
from ollama_async.convert.tensor_mapping import EMBEDDING, make_tensors, published_type
from ollama_async.convert.tokenizer import read_json_files, read_vocabulary
from ollama_async.core.errors import BadRequest


def convert_model(
    files: Files, out: Path, kind: FloatType | None = None
) -> Iterator[tuple[int, int]]:
    """Write the GGUF to ``out``; yields the bytes written so far and in all, every few megabytes.

    ``files``: paths by name in the published directory. ``kind``: of the matrices; by default BF16
    if published so, otherwise F16. Blocks and computes: iterate in a thread. Takes 100 MB beside
    the tokenizer. Closing the iterator cancels the work. Then, and after errors, ``out`` is
    invalid.

    :raises BadRequest: the files are invalid or not supported.
    :raises OSError: a file cannot be read, or ``out`` not be written.
    """
    config = read_object(files, "config.json") or JsonObject("config.json", {})
    architecture, inner = find_architecture(config)
    network = architecture.fields(inner)
    with Weights(files) as weights:
        kind = kind or published_type(weights)
        tensors = make_tensors(architecture, inner, weights, kind)
        size = next(tensor.shape[0] for tensor in tensors if tensor.name == EMBEDDING)
        fields = {
            "general.type": "model",
            "general.file_type": int(FILE_TYPES[kind]),
            **_below(architecture.name, network),
            **_below(architecture.name, pooling_fields(files, architecture.is_embedding)),
            f"{architecture.name}.vocab_size": size,
            **_tokenizer_fields(files, architecture, inner, size),
        }
        yield from write(out, architecture.name, fields, tensors)


def _below(architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {f"{architecture}.{key}": value for key, value in fields.items()}


def _tokenizer_fields(
    files: Files, architecture: ModelArchitecture, config: JsonObject, size: int
) -> dict[str, Any]:
    json_files = read_json_files(files)
    vocabulary = read_vocabulary(files, json_files)
    fields = vocabulary.fields(size)
    fields |= special_fields(files, json_files, config, vocabulary, size)
    fields |= added_fields(json_files, vocabulary, size)
    if architecture.name == "bert":
        fields["tokenizer.ggml.token_type_count"] = config.count("type_vocab_size", 2)
    elif vocabulary.model == "gpt2" and "tokenizer.ggml.eos_token_id" not in fields:
        # By default llama.cpp ends answers at token 11, an ordinary one.
        raise BadRequest("no file defines the token that ends an answer (eos_token)")
    return fields


_MODES = {
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
}


def pooling_fields(files: Files, is_embedding: bool) -> dict[str, Any]:
    """The pooling of an embedding model, from the files of sentence-transformers.

    Returns keys below ``ARCHITECTURE.``; none for other models.

    :raises BadRequest: llama.cpp does not support the pooling.
    """
    modules = read_json(files, "modules.json")
    for step in JsonObject("modules.json", {"modules": modules}).sections("modules"):
        kind = step.text("type", "").rpartition(".")[2]
        if kind == "Pooling":
            return {"pooling_type": int(_pooling_type(files, step.text("path", "")))}
        if kind not in {"Transformer", "Normalize"}:
            raise BadRequest(f"modules.json has a step that does not convert: {kind[:80]!r}")
    return {"pooling_type": int(PoolingType.MEAN)} if is_embedding else {}


def _pooling_type(files: Files, folder: str) -> PoolingType:
    name = f"{folder}/config.json"
    config = read_object(files, name)
    if config is None:
        raise BadRequest(f'"{name[:200]}", which modules.json names, is missing')
    chosen = [
        name
        for name, value in config.values.items()
        if name.startswith("pooling_mode") and value is not False
    ]
    if len(chosen) != 1 or chosen[0] not in _MODES or not config.flag(chosen[0]):
        raise BadRequest(
            f"{config.where}: vectors are pooled in a way that does not convert: "
            f"{', '.join(chosen)[:200] or 'none'}"
        )
    return _MODES[chosen[0]]
